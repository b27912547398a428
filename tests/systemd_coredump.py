"""Debian's systemd-coredump: unpacked into a folder, and never installed.

To install it would set core_pattern and two more settings of the kernel.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

PROGRAM, LIBRARY = "systemd/systemd-coredump", "libsystemd-shared-*.so"
PACKAGES = {"systemd-coredump": PROGRAM, "libsystemd-shared": LIBRARY}
"""What is wanted of each."""


class Unpacked:
    """Knows the folder with its files, and fills it when they are needed first."""

    def __init__(self) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._folder = Path(cache) / "coremond-bench"

    @property
    def binary(self) -> Path:
        """The program: the kernel's helper, and what stores."""
        [path] = self._found(PROGRAM)
        return path

    @property
    def library(self) -> Path:
        """What the program needs, in a folder that the linker must be told of."""
        [path] = self._found(LIBRARY)
        return path

    def _found(self, what: str) -> list[Path]:
        """Find a file of the packages; Debian's releases have them in different folders."""
        return [path for path in self._folder.glob(f"**/{what}") if path.is_file()]

    def missing(self) -> str:
        """Have its files there; say why that cannot be, empty if they are."""
        for command in ("apt-get", "dpkg"):
            if not shutil.which(command):
                return command
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self._found(PROGRAM) and self._found(LIBRARY)):
                for package in PACKAGES:
                    if problem := self._fetch(package):
                        return problem
        return ""

    def _fetch(self, package: str) -> str:
        """Download and unpack *package*; say why that cannot be."""
        got = subprocess.run(
            ["apt-get", "download", package], cwd=self._folder, capture_output=True, text=True
        )
        if got.returncode != 0:
            last = (got.stderr.strip() or got.stdout.strip()).splitlines()[-1:]
            return f"the Debian package {package}, which could not be downloaded: {''.join(last)}"
        for archive in self._folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg", "-x", archive, self._folder], check=True)
            archive.unlink()
        return ""

    def write_helper(self, path: Path) -> None:
        """Write the script that the kernel starts it by: it needs its library, and is silent."""
        words = f"LD_LIBRARY_PATH={self.library.parent} exec {self.binary}"
        path.write_text(f'#!/bin/sh\n{words} "$@" 2>{path}.err\n')
        path.chmod(0o755)
