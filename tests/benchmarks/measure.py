"""How a tool is measured: which it is, what it did, and how long a command takes."""

import fcntl
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tests.benchmarks.inputs import Input

PIPE_SIZE = 2**20
FEED = Path(__file__).with_name("feed.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one run."""

    seconds: float
    packed: int
    """Bytes written."""
    peak: int = 0
    """Bytes in memory at most, above what the idle process had; 0 where it is not known."""
    start_up: float = 0.0
    """Seconds that are not among the others: the interpreter's start, and its imports."""

    def as_dict(self) -> dict[str, Any]:
        """Give it for JSON."""
        return asdict(self)


class Others:
    """Watches how much of the machine others take meanwhile: proc_stat(5), in jiffies."""

    def __init__(self) -> None:
        self._before = self._now()

    def share(self) -> float:
        """Say which part of all CPU time went to processes that are not ours, or was stolen."""
        busy, whole, own = (
            after - before for before, after in zip(self._before, self._now(), strict=True)
        )
        return max(0.0, busy - own) / whole if whole else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        with open("/proc/stat") as file:
            times = [int(word) for word in file.readline().split()[1:9]]
        usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages) * os.sysconf("SC_CLK_TCK")
        idle = times[3] + times[4]
        return sum(times) - idle, sum(times), own


class Tool(Protocol):
    """Something that packs."""

    @property
    def name(self) -> str:
        """How it is called in the table."""
        ...

    def missing(self) -> str:
        """Say why it cannot run; empty if it can."""
        ...

    def version(self) -> str:
        """Say which one it is."""
        ...

    def pack(self, source: Input, target: Path) -> Outcome:
        """Pack *source* into *target*, a file, or a folder where there are many cores."""
        ...


def run(words: Sequence[str | Path], stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> float:
    """Run a command to its end, which must be good; give the seconds."""
    started = time.perf_counter()
    subprocess.run(
        words, stdin=stdin or subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=True
    )
    return time.perf_counter() - started


@contextmanager
def fed(core: Path) -> Iterator[IO[bytes]]:
    """Give the reading end of a pipe that *core* comes through; it has begun to."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    with open(reading, "rb", buffering=0) as pipe:
        with open(writing, "wb", buffering=0) as end:
            feeder = subprocess.Popen([sys.executable, "-I", "-S", FEED, core], stdout=end)
        with feeder:
            select.select([pipe], [], [])
            yield pipe
        assert feeder.returncode == 0, "the core did not go through the pipe"


def size_of(target: Path) -> int:
    """Give the bytes in a file, or in all files of a folder."""
    files = target.iterdir() if target.is_dir() else [target]
    return sum(path.stat().st_size for path in files)
