"""What is packed: cores that the kernel wrote of programs that crashed."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.daemon import end_with_parent
from tests import kernel
from tests.bundle import ROOT
from tests.crashes import PROGRAMS

KINDS = ("dense", "mixed", "random", "sparse", "stream", "small")
MIB = 2**20
GIB_OF_HEAP, QUICK_HEAP = 1024, 64
GIB_OF_HOLES, QUICK_HOLES = 16 * 1024, 1024
MANY, QUICK_MANY = 500, 50

MEANINGS = {
    "dense": "a live heap of Python objects and text",
    "mixed": "the same, a third of it zeroed buffers",
    "random": "a heap of random bytes",
    "sparse": "a file with holes, 200 MiB of things in it",
    "stream": "the same through a pipe, its holes as literal zeros",
    "small": "crashes of a small C program, each its own",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One core, or a folder of them."""

    kind: str
    path: Path
    cores: int = 1

    @property
    def files(self) -> list[Path]:
        """The cores themselves."""
        return sorted(self.path.iterdir()) if self.is_many else [self.path]

    @property
    def is_stream(self) -> bool:
        """Whether it comes through a pipe."""
        return self.kind == "stream"

    @property
    def is_many(self) -> bool:
        """Whether it is a folder."""
        return self.kind == "small"

    @property
    def size(self) -> int:
        """Bytes of all, holes included."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def on_disk(self) -> int:
        """Bytes of all without the holes."""
        return sum(path.stat().st_blocks * 512 for path in self.files)


def make(work: Path, kinds: Iterable[str], *, quick: bool) -> list[Input]:
    """Make the inputs that are not in *work* yet, and read each once."""
    inputs = []
    for kind in kinds:
        if kind == "small":
            wanted = _small(work, QUICK_MANY if quick else MANY)
        else:
            wanted = _large(work, kind, quick=quick)
        inputs.append(wanted)
        if kind != "stream":
            for path in wanted.files:
                _read(path)
    return inputs


def _large(work: Path, kind: str, *, quick: bool) -> Input:
    heap = "sparse" if kind == "stream" else kind
    if heap == "sparse":
        mib = QUICK_HOLES if quick else GIB_OF_HOLES
    else:
        mib = QUICK_HEAP if quick else GIB_OF_HEAP
    path = work / f"{heap}-{mib}.core"
    if not path.exists():
        print(f"crashing a program: {heap}, {mib} MiB", file=sys.stderr)
        with kernel.core_pattern(_pattern(work)):
            core = _crash(work, [sys.executable, str(PROGRAMS / "heap.py"), heap, str(mib)])
        core.rename(path)
    return Input(kind=kind, path=path)


def _small(work: Path, number: int) -> Input:
    """Have a small C program crash so many times."""
    folder = work / f"small-{number}"
    if not folder.exists():
        print(f"crashing {number} small programs", file=sys.stderr)
        program, unfinished = work / "small", work / "small.cores"
        source = ROOT / "tests" / "benchmarks" / "small.c"
        subprocess.run(["cc", "-O1", "-o", program, source], check=True)
        unfinished.mkdir()
        with kernel.core_pattern(_pattern(unfinished)):
            for n in range(number):
                _crash(unfinished, [str(program), str(n)])
        unfinished.rename(folder)
    return Input(kind="small", path=folder, cores=number)


def _pattern(folder: Path) -> str:
    """Name cores as the product page does."""
    return kernel.file_pattern(folder)


def _crash(folder: Path, words: list[str]) -> Path:
    """Run a program to its death, and give its core."""
    process = subprocess.Popen(words, cwd=folder, preexec_fn=end_with_parent)
    code = process.wait()
    assert code < 0, f"{words} ended with {code}"
    [core] = folder.glob(f"core.*.{process.pid}.*")
    return core


def _read(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


def is_same(one: Path, other: Path) -> bool:
    """Say whether two files have the same content; what is a hole in both is not read."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as first, open(other, "rb") as second:
        for sparse in (first.fileno(), second.fileno()):
            for start, end in _data(sparse, one.stat().st_size):
                for place in range(start, end, MIB):
                    size = min(MIB, end - place)
                    parts = (os.pread(file.fileno(), size, place) for file in (first, second))
                    if len(set(parts)) != 1:
                        return False
    return True


def _data(descriptor: int, size: int) -> Iterable[tuple[int, int]]:
    place = 0
    while place < size:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:  # nothing but a hole from here on
            return
        place = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, place
