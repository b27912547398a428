"""The kernel's settings for cores: read, written, and read back."""

from pathlib import Path

from common.errors import CollectorError

SETTINGS = {
    "core_pattern": "kernel/core_pattern",
    "core_pipe_limit": "kernel/core_pipe_limit",
    "suid_dumpable": "fs/suid_dumpable",
}
"""Their paths in /proc/sys."""

PROC_SYS = Path("/proc/sys")


class SysctlError(CollectorError):
    """The kernel did not take a setting. It has the one it had, or the one that is told."""


class Sysctls:
    """Owns what may be done with them; *root* is where /proc/sys is."""

    def __init__(self, root: Path = PROC_SYS) -> None:
        self._root = root

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
            raise SysctlError(
                f"{path} cannot be set to {value}: {error.strerror}; it takes root, and in a "
                "container privileged: true"
            ) from error
        found = path.read_text(errors="surrogateescape").removesuffix("\n")
        if found != value:
            raise SysctlError(f"{path} was set to {value}, but reads {found}")
