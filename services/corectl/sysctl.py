"""The kernel's settings for cores: read, written, and read back."""

import errno
import subprocess
import sys
from pathlib import Path

from common.errors import CollectorError

SETTINGS = {
    "core_pattern": "kernel/core_pattern",
    "core_pipe_limit": "kernel/core_pipe_limit",
    "suid_dumpable": "fs/suid_dumpable",
}
"""Their paths in /proc/sys."""

PROC_SYS = Path("/proc/sys")
HOST = Path("/proc/1/ns/mnt")
"""The host's mount namespace, as a container with the host's pid namespace sees it."""

_WRITE_THERE = """
import ctypes, os, sys
namespace, path, value = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open(namespace, os.O_RDONLY), 0x00020000):  # CLONE_NEWNS
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(os.open(path, os.O_WRONLY), os.fsencode(value) + b"\\n")
"""


class SysctlError(CollectorError):
    """The kernel did not take a setting. It has the one it had, or the one that is told."""


class Sysctls:
    """Owns what may be done with them; *root* is where /proc/sys is, *host* the host's mounts."""

    def __init__(self, root: Path = PROC_SYS, host: Path = HOST) -> None:
        self._root = root
        self._host = host

    def read(self) -> dict[str, str]:
        """Give them all by their names."""
        return {
            name: (self._root / path).read_text(errors="surrogateescape").removesuffix("\n")
            for name, path in SETTINGS.items()
        }

    def write(self, name: str, value: str) -> None:
        """Write one, and make sure that the kernel has it as it was written."""
        path = self._root / SETTINGS[name]
        try:
            # One write: the kernel takes each for the whole value.
            path.write_bytes(value.encode(errors="surrogateescape") + b"\n")
        except OSError as error:
            # A socket is taken from the host's mount namespace only: Linux, fs/coredump.c,
            # check_coredump_socket().
            if error.errno == errno.EINVAL and value.startswith("@"):
                self._write_from_host(path, value)
                return
            raise SysctlError(
                f"{path} cannot be set to {value}: {error.strerror}; it takes root, and in a "
                "container privileged: true"
            ) from error
        self._read_back(path, value)

    def _write_from_host(self, path: Path, value: str) -> None:
        command = [sys.executable, "-c", _WRITE_THERE, str(self._host), str(path), value]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SysctlError(
                f"{path} cannot be set to {value} but from the host's own mount namespace: in a "
                f"container it takes hostPID: true ({done.stderr.strip().splitlines()[-1]})"
            )
        self._read_back(path, value)

    def _read_back(self, path: Path, value: str) -> None:
        found = path.read_text(errors="surrogateescape").removesuffix("\n")
        if found != value:
            raise SysctlError(f"{path} was set to {value}, but reads {found}")
