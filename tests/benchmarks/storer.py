"""systemd-coredump as a tool among the others: the half of it that stores."""

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

from tests.benchmarks.inputs import Input
from tests.benchmarks.measure import Outcome, fed, size_of

PACKAGES = ("systemd-coredump", "libsystemd-shared")
STORING = Path(__file__).with_name("storing.py")


class Storer:
    """Owns a folder with the unpacked packages.

    They are never installed, for that would set core_pattern.
    """

    name = "systemd-coredump"

    def __init__(self) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._folder = Path(cache) / "coremond-bench"

    def missing(self) -> str:
        """Say why it cannot run; empty if it can."""
        return self._problem

    @cached_property
    def _problem(self) -> str:
        if os.geteuid() != 0:
            return "root (it runs in a mount namespace of its own)"
        for command in ("apt-get", "dpkg", "unshare"):
            if not shutil.which(command):
                return command
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            return "a kernel that lets root unshare its mounts"
        if not self._found("systemd/systemd-coredump"):
            self._folder.mkdir(parents=True, exist_ok=True)
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

    def _found(self, what: str) -> list[Path]:
        """Find a file of the packages; Debian's releases have them in different folders."""
        return [path for path in self._folder.glob(f"**/{what}") if path.is_file()]

    def version(self) -> str:
        """Read it off the library's name."""
        [library] = self._found("libsystemd-shared-*.so")
        return f"{self.name} {library.stem.rpartition('-')[2]}"

    def pack(self, source: Input, target: Path) -> Outcome:
        """Have each core stored, by a process for each, in the folder *target*."""
        folder = target if source.is_many else target.with_suffix(".folder")
        folder.mkdir(exist_ok=True)
        cores = ["-"] if source.is_stream else source.files
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", STORING]
        [binary] = self._found("systemd/systemd-coredump")
        [library] = self._found("libsystemd-shared-*.so")
        places = [binary, library.parent, folder]
        with fed(source.path) if source.is_stream else nullcontext() as pipe:
            told = subprocess.run(
                [*words, *places, *cores],
                stdin=pipe or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
            )
        packed = size_of(folder)
        assert len(list(folder.iterdir())) == source.cores, "it did not store them all"
        if not source.is_many:
            shutil.rmtree(folder)
        return Outcome(seconds=float(told.stdout), packed=packed)
