"""How soon a crashed process is let go, and its core stored: python -m tests.benchmarks.intake.

Each crash is the kernel's. A bundle takes them at its coredump socket; the peer is Debian's
systemd-coredump as the kernel's pipe helper, which hands the core to its own storing half.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil

from tests import kernel
from tests.benchmarks.packing import machine
from tests.benchmarks.storer import Storer
from tests.benchmarks.table import grid, times
from tests.bundle import Bundle, Home, wait_until
from tests.crashes import PROGRAMS

PATIENCE = 300.0
LOOP_SECONDS = 10.0
LOOP_RATES = (200, 10**6)
"""Crashes per second; the second is as many as may be."""
STORM, STORM_SECONDS, STORM_PROGRAMS = 1000, 60.0, 50
MIB = 2**20

Stored = Callable[[int], bool]
"""Says whether the core of the process with this pid is stored."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A program that crashes, and how often it does."""

    name: str
    words: tuple[str, ...]
    runs: int
    is_streamed: bool = True
    """Whether it is also tried where all that is mapped is streamed."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the signal until the process is gone, and until its core is stored."""

    released: float
    stored: float


HEAP, MAPPER = str(PROGRAMS / "heap.py"), str(PROGRAMS / "mapper.py")
SMALL, DENSE = "10 MiB", "dense, 0.7 GiB"
CRASHES = (
    Crash(SMALL, (MAPPER, "0", "4"), 15),
    Crash(DENSE, (HEAP, "dense", "700"), 3),
    Crash("2 GiB mapped", (MAPPER, "2", "200"), 3),
    Crash("16 GiB mapped", (MAPPER, "16", "200"), 3),
    Crash("64 GiB mapped", (MAPPER, "64", "200"), 3, is_streamed=False),
)
OURS, DRAINED, PEER = "coremond, @@", "the same, all that is streamed", "systemd-coredump"


def crash(words: tuple[str, ...], stored: Stored) -> Times:
    """Start a program that says when it is ready, send it a signal, and watch."""
    process = subprocess.Popen([sys.executable, *words, "wait"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    started = time.perf_counter()
    process.send_signal(signal.SIGSEGV)
    with process:
        process.wait()
        released = time.perf_counter() - started
    wait_until(lambda: stored(process.pid), "the core", PATIENCE)
    return Times(released, time.perf_counter() - started)


@contextmanager
def bundle(**settings: str) -> Iterator[Bundle]:
    """Have a bundle take what the kernel hands to its socket."""
    with ExitStack() as stack:
        home = stack.enter_context(Home())
        ours = stack.enter_context(Bundle(home, {"COREMON_CORES_MAX_FILES": "0", **settings}))
        stack.enter_context(kernel.core_pattern(f"@@{ours.run_dir}/kernel.sock"))
        yield ours


@contextmanager
def by_us(**settings: str) -> Iterator[Stored]:
    """Have our bundle store cores."""
    with bundle(**settings) as ours:
        yield lambda pid: any(ours.store_dir.glob(f"core.*.{pid}.*.json"))


@contextmanager
def by_systemd(storer: Storer) -> Iterator[Stored]:
    """Have systemd-coredump store cores."""
    with ExitStack() as stack:
        handler, folder = stack.enter_context(storer.serving(stack.enter_context(Home())))
        pattern = f"|{handler} %P %u %g %s %t %c %h"
        stack.enter_context(kernel.core_pattern(pattern, pipe_limit=16))
        yield lambda pid: any(folder.glob(f"core.*.{pid}.*.zst"))


def measure(name: str, taking: AbstractContextManager[Stored], runs: int) -> dict[str, Times]:
    """Have each program crash a few times, and give the medians."""
    found = {}
    with taking as stored:
        for each in CRASHES:
            if name != OURS and not each.is_streamed:
                continue
            seen = []
            for _ in range(min(runs, each.runs) if each.name != SMALL else each.runs):
                seen.append(crash(each.words, stored))
                _tell(f"{name}: {each.name}: {seen[-1].released:.3f} s, {seen[-1].stored:.3f} s")
            found[each.name] = Times(
                statistics.median(each.released for each in seen),
                statistics.median(each.stored for each in seen),
            )
    return found


@dataclass(frozen=True, slots=True)
class Loop:
    """What came of a program that crashed again and again, and was turned away."""

    crashes: int
    seconds: float
    cpu: float
    """Of one core, that our programs took."""
    counted: int


def loop(program: Path, rate: int) -> Loop:
    """Have a program crash so many times a second, which has had its only core."""
    with bundle(COREMON_CORES_MAX_FILES="1", COREMON_RETENTION_INTERVAL="1h") as ours:
        subprocess.run([program, "0"], stdout=subprocess.DEVNULL, check=True)
        ours.wait_for_stored()
        wait_until(lambda: "again" in (ours.run_dir / "holds.json").read_text(), "the hold")
        programs = [psutil.Process(process["pid"]) for process in ours.processes()]
        before, started = cpu_of(programs), time.perf_counter()
        words = [str(program), str(LOOP_SECONDS), str(rate)]
        crashes = int(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
        seconds = time.perf_counter() - started
        counted = wait_until(
            lambda: count_of(ours) >= crashes and count_of(ours), f"{crashes} counts", 30
        )
        cpu = (cpu_of(programs) - before) / seconds
        return Loop(crashes, seconds, cpu, counted)


def count_of(ours: Bundle) -> int:
    """Say how many crashes are counted in records of which no core is kept."""
    return sum(record["count"] for record in ours.records() if record["state"] == "held")


def cpu_of(programs: list[psutil.Process]) -> float:
    """Give the seconds of CPU time that *programs* took."""
    spent = [program.cpu_times() for program in programs]
    return float(sum(each.user + each.system for each in spent))


@dataclass(frozen=True, slots=True)
class Storm:
    """What came of many crashes."""

    crashes: int
    seconds: float
    stored: int
    truncated: int
    memory: list[float]
    """MiB of our programs (PSS): before, at most, after."""


def storm(program: Path, folder: Path) -> Storm:
    """Crash many programs at an even pace."""
    programs = []
    for number in range(STORM_PROGRAMS):
        copy = folder / f"p{number:02}"
        copy.write_bytes(program.read_bytes())
        copy.chmod(0o755)
        programs.append(copy)
    with bundle() as ours:
        pids = [process["pid"] for process in ours.processes()]
        subprocess.run([programs[0], "0"], check=False)
        ours.wait_for_stored()
        memory = [memory_of(pids)]
        threads, started = [], time.perf_counter()
        for number in range(STORM):
            time.sleep(max(0.0, started + number * STORM_SECONDS / STORM - time.perf_counter()))
            words = [programs[number % STORM_PROGRAMS], str(number)]
            threads.append(Thread(target=subprocess.run, args=(words,)))
            threads[-1].start()
            if not number % 50:
                memory.append(memory_of(pids))
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        wait_until(lambda: len(list(ours.store_dir.glob("*.json"))) > STORM, "all records", 60)
        records = ours.stored()
        highest = max(memory)
        return Storm(
            STORM,
            seconds,
            len(records) - 1,
            sum(record["truncated"] for record in records),
            [memory[0], highest, memory_of(pids)],
        )


def memory_of(pids: list[int]) -> float:
    """Give the memory of processes, in MiB, as PSS."""
    return float(sum(psutil.Process(pid).memory_full_info().pss for pid in pids)) / MIB


def compiled(folder: Path, name: str) -> Path:
    """Compile a program that stands beside this."""
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-O1", "-o", folder / name, source], check=True)
    return folder / name


def show(results: dict[str, dict[str, Times]]) -> None:
    """Print the table, and the ratios."""
    for title, part in (
        ("seconds until the process is gone", "released"),
        ("seconds until the core is stored", "stored"),
    ):
        seen = {
            name: {crash: getattr(found, part) for crash, found in of.items()}
            for name, of in results.items()
        }
        rows = [
            (name, [f"{of[c.name]:.3f}" if c.name in of else "-" for c in CRASHES])
            for name, of in seen.items()
        ]
        for name in seen.keys() - {OURS}:
            ratios = {crash: took / seen[OURS][crash] for crash, took in seen[name].items()}
            cells = [times(ratios[c.name]) if c.name in ratios else "-" for c in CRASHES]
            rows.append((f"{name}: times as long", cells))
        print(grid(title, [each.name for each in CRASHES], rows), end="\n\n")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="times,loop,storm", help="some of them, with commas")
    return parser.parse_args()


def main() -> int:
    """Run everything, and print the tables."""
    arguments, storer = _arguments(), Storer()
    only = arguments.only.split(",")
    if what := kernel.missing():
        print(f"missing: {what}", file=sys.stderr)
        return 1
    print(machine())
    if "times" in only:
        results = {
            OURS: measure(OURS, by_us(), arguments.runs),
            DRAINED: measure(DRAINED, by_us(CRASHAGENT_RESIDENT="false"), 1),
        }
        if missing := storer.missing():
            print(f"{PEER}: missing: {missing}")
        else:
            results[PEER] = measure(PEER, by_systemd(storer), arguments.runs)
        show(results)
    with Home() as folder:
        if "loop" in only:
            program = compiled(folder, "again")
            for came in (loop(program, rate) for rate in LOOP_RATES):
                print(
                    f"a crash loop under hold: {came.crashes / came.seconds:.0f} crashes/s turned "
                    f"away with {came.cpu:.0%} of one core, {came.counted} of {came.crashes} "
                    "counted"
                )
        if "storm" in only:
            storms = storm(compiled(folder, "small"), folder)
            before, most, after = storms.memory
            print(
                f"{storms.crashes} crashes of {STORM_PROGRAMS} programs in {storms.seconds:.0f} s: "
                f"{storms.stored} stored, {storms.truncated} cut short; memory {before:.0f} MiB "
                f"before, {most:.0f} at most, {after:.0f} after"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
