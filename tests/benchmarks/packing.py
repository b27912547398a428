"""How fast cores are packed, next to what others pack with: python -m tests.benchmarks.packing.

Everything runs side by side on the same files, in turns, and the medians are shown. All inputs were
read once before, nothing is dropped from the page cache, and every output is a file beside them.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests import kernel
from tests.benchmarks import endtoend, inputs, table
from tests.benchmarks.goals import Goals
from tests.benchmarks.inputs import KINDS, Input
from tests.benchmarks.measure import Others, Tool
from tests.benchmarks.ours import Ours, PlainIsal, ask, versions
from tests.benchmarks.peers import PEERS, UNPACKERS
from tests.benchmarks.results import Reads, Results
from tests.benchmarks.storer import Storer

SLOW = 5.0
"""Seconds of a run that is not done again."""
CODECS = ("gzip", "zstd", "lz4")
RESTORED = ("dense", "mixed", "sparse")
NOT_PACKED = {"gzip -1": {"stream"}, PlainIsal().name: {"stream", "small"}}
"""What would take minutes, or make no sense."""
LARGE = 10 * 2**30
READS = 500
TOUCHED = 3 * 2**30
ROOM, QUICK_ROOM = 30 * 2**30, 5 * 2**30
"""systemd-coredump writes a copy of each core first, without its holes."""

# Memory that was free for long is slow at first.
_TOUCH = "import mmap, sys; mmap.mmap(-1, int(sys.argv[1]), flags=0x8022)"  # MAP_POPULATE


class Benchmark:
    """Owns a work folder, the tools and the results."""

    def __init__(self, work: Path, *, runs: int, quick: bool) -> None:
        self.results = Results()
        self.workers = len(os.sched_getaffinity(0))
        self._work = work
        self._runs = runs
        self._quick = quick
        self._ours = [
            Ours(codec, workers) for codec in CODECS for workers in sorted({1, self.workers})
        ]
        self.tools: list[Tool] = [*self._ours, PlainIsal(), *PEERS, Storer()]

    @property
    def alike(self) -> set[str]:
        """Name ours that differ from others only in their number of threads."""
        return {tool.name for tool in self._ours if tool.workers != self.workers}

    def versions(self) -> str:
        """Name the tools that are there, and say what is missing."""
        there = dict.fromkeys(
            tool.version()
            for tool in self.tools
            if not isinstance(tool, Ours | PlainIsal) and not tool.missing()
        )
        absent = (
            f"{tool.name}: missing: {tool.missing()}" for tool in self.tools if tool.missing()
        )
        return "\n".join([", ".join([versions(), *there]), *absent])

    def pack(self, source: Input) -> None:
        """Have every tool pack *source*, in turns."""
        self._touch()
        tools = [
            tool
            for tool in self.tools
            if not tool.missing() and source.kind not in NOT_PACKED.get(tool.name, set())
        ]
        for turn in range(self._runs):
            for tool in tools[turn:] + tools[:turn]:
                before = self.results.of(tool.name, source.kind)
                if before is None or before.seconds < SLOW:
                    self._pack(tool, source)

    def _pack(self, tool: Tool, source: Input) -> None:
        target = self._packed(tool, source.kind)
        if source.is_many:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
        else:
            target.unlink(missing_ok=True)
        outcome = tool.pack(source, target)
        self.results.add(tool.name, source.kind, outcome)
        _tell(f"{source.kind}: {tool.name}: {outcome.seconds:.2f} s, {outcome.packed} bytes")
        if source.is_many:
            shutil.rmtree(target)
        elif source.kind not in RESTORED or tool.name not in {
            ours.name for ours in self._fastest()
        }:
            target.unlink(missing_ok=True)

    def _packed(self, tool: Tool, kind: str) -> Path:
        name = f"{kind}.{tool.name}.packed".replace(" ", "-")
        return self._work / name

    def _fastest(self) -> list[Ours]:
        return [tool for tool in self._ours if tool.workers == self.workers]

    def restore(self, source: Input) -> None:
        """Have our files unpacked by us and by others, which must give the core again."""
        self._touch()
        for _ in range(self._runs):
            for ours in self._fastest():
                packed = self._packed(ours, source.kind)
                self._restore(ours.name, source, partial(ours.unpack, packed))
                for other in UNPACKERS:
                    is_short = other.leaves_holes or source.kind != "sparse"
                    if other.codec == ours.codec and is_short and not other.missing():
                        self._restore(other.name, source, partial(other.unpack, packed))
        for ours in self._fastest():
            self._packed(ours, source.kind).unlink()

    def _restore(self, name: str, source: Input, unpack: Callable[[Path], float]) -> None:
        before, target = self.results.restored[name, source.kind], self._work / "restored"
        if before and before[0] >= SLOW:
            return
        took = unpack(target)
        _tell(f"{source.kind}: {name} restored it in {took:.2f} s")
        if not before and not inputs.is_same(source.path, target):
            raise AssertionError(f"{name} did not restore {source.path}")
        before.append(took)
        target.unlink()

    def read(self, source: Input) -> None:
        """Pack *source* again and again as one large core, and read in it."""
        self._touch()
        size = 2**30 if self._quick else LARGE
        times = str(-(-size // source.size))
        for ours in self._fastest():
            target = self._work / f"large.{ours.codec}"
            words = ("repeat", ours.codec, str(ours.workers), times, str(source.path), str(target))
            packing = ask(*words)
            reading = ask("read", str(READS), str(target), str(source.path))
            self.results.reads[ours.codec] = Reads(
                **reading, packed=packing["packed"], peak=packing["peak"]
            )
            target.unlink()

    def collect(self, source: Input) -> None:
        """Have a bundle store all small cores."""
        for _ in range(self._runs):
            took = endtoend.store_all(source)
            self.results.end_to_end.append(took)
            _tell(f"{source.kind}: a bundle stored them in {took:.2f} s")

    def _touch(self) -> None:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        size = min(TOUCHED, available // 4)
        subprocess.run([sys.executable, "-I", "-S", "-c", _TOUCH, str(size)], check=True)


def machine() -> str:
    """Say what this runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{next(models, platform.machine())}, {len(os.sched_getaffinity(0))} cores, "
        f"{table.bytes_of(memory)} of memory, Linux {platform.release()}"
    )


def show(benchmark: Benchmark, sources: Sequence[Input], others: float) -> None:
    """Print the table, and the goals."""
    results = benchmark.results
    names = [tool.name for tool in benchmark.tools]
    main_table = table.Table(results, names, sources, benchmark.alike)
    print(machine())
    print(benchmark.versions())
    print(f"{others:.0%} of the CPU time went to others meanwhile")
    print(f"\n{main_table.inputs()}")
    for section in (main_table.times, main_table.speeds, main_table.sizes, main_table.peaks):
        print(f"\n{section()}")
    print("\n' = one run only; all others are medians. Times of the peers are those of whole")
    print("processes; ours are without the start of the interpreter and its imports, for our")
    if start_up := results.start_up():
        print(f"programs are daemons: that took {start_up:.2f} s here, once for each process.")
    if results.restored:
        print(f"\n{table.restoring(results)}")
    if results.reads:
        print(f"\n{table.reading(results)}")
    print("\ngoals, with gzip where no other codec is named")
    for goal in Goals(results, list(sources), benchmark.workers).all():
        print(f"  {goal}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep inputs and results in this folder")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(KINDS), help="some of them, with commas")
    parser.add_argument("--quick", action="store_true", help="small sizes, for trying")
    return parser.parse_args()


def main() -> int:
    """Make the inputs, run everything, print the table."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing behind
    kinds = arguments.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        print(f"unknown inputs: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    if what := kernel.missing():
        print(f"missing: {what}: the cores come from real crashes", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        work: Path = arguments.work or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="coremond-bench-"))
        )
        work.mkdir(parents=True, exist_ok=True)
        needed = QUICK_ROOM if arguments.quick else ROOM
        if (free := shutil.disk_usage(work).free) < needed:
            room = f"{table.bytes_of(needed)} of room in {work}, which has {table.bytes_of(free)}"
            print(f"missing: {room}; --work takes another folder", file=sys.stderr)
            return 1
        benchmark = Benchmark(work.resolve(), runs=arguments.runs, quick=arguments.quick)
        sources, others = [], Others()
        for kind in kinds:
            [source] = inputs.make(work.resolve(), [kind], quick=arguments.quick)
            sources.append(source)
            benchmark.pack(source)
            if kind in RESTORED:
                benchmark.restore(source)
            if kind == "dense":
                benchmark.read(source)
            if kind == "small":
                benchmark.collect(source)
        show(benchmark, sources, others.share())
        if arguments.work:
            text = json.dumps(benchmark.results.as_dict(), indent=1)
            (work / "results.json").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
