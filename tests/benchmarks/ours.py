"""Our engine as a tool among the others, each run in a process of its own."""

import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from tests.benchmarks.inputs import Input
from tests.benchmarks.measure import Outcome, fed, size_of
from tests.bundle import ROOT

LIBRARIES = {"gzip": "isal", "zstd": "zstandard", "lz4": "lz4"}


@dataclass(frozen=True, slots=True)
class Ours:
    """Our engine, with so many threads."""

    codec: str
    workers: int

    @property
    def name(self) -> str:
        """How it is called in the table."""
        return f"coremond {self.codec} x{self.workers}"

    def missing(self) -> str:
        """Say that it is there."""
        return ""

    def version(self) -> str:
        """Name the library behind it."""
        library = LIBRARIES[self.codec]
        return f"{library} {metadata.version(library)}"

    def pack(self, source: Input, target: Path) -> Outcome:
        """Pack in a fresh process."""
        words = ["pack", self.codec, str(self.workers)]
        if source.is_stream:
            with fed(source.path) as pipe:
                return _outcome([*words, "-", str(target)], target, pipe)
        return _outcome([*words, str(source.path), str(target)], target)

    def unpack(self, packed: Path, target: Path) -> float:
        """Restore one file in a fresh process; give the seconds."""
        took: float = ask("restore", str(self.workers), str(packed), str(target))["seconds"]
        return took


@dataclass(frozen=True, slots=True)
class PlainIsal:
    """What one thread can do that reads a block, packs it with ISA-L, writes it, and no more."""

    name: str = "isal x1, bare"

    def missing(self) -> str:
        """Say that it is there."""
        return ""

    def version(self) -> str:
        """Name the library."""
        return f"isal {metadata.version('isal')}"

    def pack(self, source: Input, target: Path) -> Outcome:
        """Pack one file in a fresh process."""
        return _outcome(["plain", str(source.path), str(target)], target)


def _outcome(words: list[str], target: Path, stdin: IO[bytes] | None = None) -> Outcome:
    started = time.perf_counter()
    told = ask(*words, stdin=stdin)
    whole = time.perf_counter() - started
    assert told["packed"] == size_of(target), f"{told['packed']} bytes are not in {target}"
    return Outcome(**told, start_up=whole - told["seconds"])


def ask(*words: str, stdin: IO[bytes] | None = None) -> dict[str, Any]:
    """Have a fresh process do something, and give what it tells."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.engine", *words],
        cwd=ROOT,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    told: dict[str, Any] = json.loads(process.stdout)
    return told


def versions() -> str:
    """Name Python and the libraries."""
    libraries = (f"{name} {metadata.version(name)}" for name in LIBRARIES.values())
    return ", ".join([f"Python {platform.python_version()}", *libraries])
