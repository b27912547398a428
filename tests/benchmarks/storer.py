"""systemd-coredump as a tool among the others: the half of it that stores."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

from tests.benchmarks.inputs import Input
from tests.benchmarks.measure import Outcome, fed, size_of
from tests.systemd_coredump import Unpacked

STORING = Path(__file__).with_name("storing.py")


class Storer:
    """Owns what Debian's packages hold, without their being installed."""

    name = "systemd-coredump"

    def __init__(self) -> None:
        self._files = Unpacked()

    def missing(self) -> str:
        """Say why it cannot run; empty if it can."""
        return self._problem

    @cached_property
    def _problem(self) -> str:
        if os.geteuid() != 0:
            return "root (it runs in a mount namespace of its own)"
        if not shutil.which("unshare"):
            return "unshare"
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            return "a kernel that lets root unshare its mounts"
        return self._files.missing()

    def version(self) -> str:
        """Read it off the library's name."""
        return f"{self.name} {self._files.library.stem.rpartition('-')[2]}"

    def pack(self, source: Input, target: Path) -> Outcome:
        """Have each core stored, by a process for each, in the folder *target*."""
        folder = target if source.is_many else target.with_suffix(".folder")
        folder.mkdir(exist_ok=True)
        cores = ["-"] if source.is_stream else source.files
        with fed(source.path) if source.is_stream else nullcontext() as pipe:
            told = subprocess.run(
                [*self._storing(folder), *cores],
                stdin=pipe or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
            )
        packed = size_of(folder)
        assert len(list(folder.iterdir())) == source.cores, "it did not store them all"
        if not source.is_many:
            shutil.rmtree(folder)
        return Outcome(seconds=float(told.stdout), packed=packed)

    def _storing(self, folder: Path) -> list[str | Path]:
        """Give the command by which it stores in *folder*."""
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-I"]
        return [*words, STORING, self._files.binary, self._files.library.parent, folder]

    @contextmanager
    def serving(self, home: Path) -> Iterator[tuple[Path, Path]]:
        """Give the kernel's helper, and the folder that its other half stores in."""
        folder, handler = home / "stored", home / "h"
        folder.mkdir()
        self._files.write_helper(handler)
        process = subprocess.Popen(
            [*self._storing(folder), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield handler, folder
            process.stdin.close()
