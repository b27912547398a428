"""What this project wants to reach, next to what was measured."""

import statistics
from dataclasses import dataclass

from tests.benchmarks.inputs import Input
from tests.benchmarks.results import Results
from tests.benchmarks.table import MIB, seconds

PIGZ, ZSTD_3, ZSTD_1, BARE = "pigz -1", "zstd -3 -T1", "zstd -1 -T0", "isal x1, bare"


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, and what was measured."""

    wanted: str
    measured: str = "not measured"
    is_reached: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "reached", False: "falls short", None: ""}[self.is_reached]
        return f"{self.wanted:<58}{self.measured:>24}  {verdict}".rstrip()


class Goals:
    """Judges the results of so many *workers*."""

    def __init__(self, results: Results, inputs: list[Input], workers: int) -> None:
        self._results = results
        self._inputs = {source.kind: source for source in inputs}
        self._workers = workers
        self._gzip = f"coremond gzip x{workers}"
        self._zstd = f"coremond zstd x{workers}"

    def all(self) -> list[Goal]:
        """Give them all."""
        return [
            self._faster("dense", PIGZ, 3.5),
            self._faster("dense", ZSTD_3, 3.5),
            self._efficient(),
            self._small_enough(),
            self._faster("mixed", PIGZ, 7),
            self._faster("mixed", ZSTD_3, 3.5),
            self._faster("sparse", PIGZ, 50),
            self._random_speed(),
            self._random_size(),
            self._faster("small", PIGZ, 5),
            *self._end_to_end(),
            self._memory(),
            *self._reads(),
            self._zstd_speed(),
            self._zstd_size(),
        ]

    def _ratio(self, tool: str, other: str, kind: str) -> float | None:
        ran, base = self._results.of(tool, kind), self._results.of(other, kind)
        return base.seconds / ran.seconds if ran and base else None

    def _size_ratio(self, tool: str, other: str, kind: str) -> float | None:
        ran, base = self._results.of(tool, kind), self._results.of(other, kind)
        return ran.packed / base.packed if ran and base else None

    def _faster(self, kind: str, other: str, times: float) -> Goal:
        wanted = f"{kind}: {times:g} times as fast as {other}"
        if (ratio := self._ratio(self._gzip, other, kind)) is None:
            return Goal(wanted)
        return Goal(wanted, f"{ratio:.2f} times", ratio >= times)

    def _efficient(self) -> Goal:
        wanted = f"dense: 0.9 of {self._workers} times one bare ISA-L thread"
        if (ratio := self._ratio(self._gzip, BARE, "dense")) is None:
            return Goal(wanted)
        return Goal(wanted, f"{ratio / self._workers:.2f}", ratio / self._workers >= 0.9)

    def _small_enough(self) -> Goal:
        wanted = f"dense: size within 3 % of {PIGZ}"
        if (ratio := self._size_ratio(self._gzip, PIGZ, "dense")) is None:
            return Goal(wanted)
        return Goal(wanted, f"{(ratio - 1) * 100:+.1f} %", ratio <= 1.03)

    def _random_speed(self) -> Goal:
        wanted = "random: 2 times its own speed on dense"
        random, dense = (self._results.of(self._gzip, kind) for kind in ("random", "dense"))
        if not random or not dense:
            return Goal(wanted)
        speeds = [
            self._inputs[kind].size / ran.seconds
            for kind, ran in (("random", random), ("dense", dense))
        ]
        ratio = speeds[0] / speeds[1]
        return Goal(wanted, f"{ratio:.2f} times", ratio >= 2)

    def _random_size(self) -> Goal:
        wanted = "random: output at most 0.1 % larger than the input"
        if not (ran := self._results.of(self._gzip, "random")):
            return Goal(wanted)
        ratio = ran.packed / self._inputs["random"].size
        return Goal(wanted, f"{(ratio - 1) * 100:+.2f} %", ratio <= 1.001)

    def _end_to_end(self) -> list[Goal]:
        wanted = "small, crash directory to record: all stored within 5 s"
        times = f"small, crash directory to record: 5 times one {PIGZ} each"
        if not self._results.end_to_end:
            return [Goal(wanted)]
        took = statistics.median(self._results.end_to_end)
        base = self._results.of(PIGZ, "small")
        ratio = base.seconds / took if base else 0
        return [
            Goal(wanted, seconds(took), took < 5),
            Goal(times, f"{ratio:.2f} times", ratio >= 5),
        ]

    def _memory(self) -> Goal:
        wanted = "any: at most 64 MiB of memory above idle"
        if not (peak := self._results.peak()):
            return Goal(wanted)
        return Goal(wanted, f"{peak / MIB:.1f} MiB", peak <= 64 * MIB)

    def _reads(self) -> list[Goal]:
        opening = "a packed core of 10 GiB is open within 1 s"
        reading = "4 KiB anywhere in it are read within 50 ms"
        if not (reads := self._results.reads.values()):
            return [Goal(opening), Goal(reading)]
        slowest, worst = (max(each.opening for each in reads), max(each.worst for each in reads))
        return [
            Goal(opening, f"{slowest * 1000:.0f} ms", slowest <= 1),
            Goal(reading, f"{worst * 1000:.1f} ms at worst", worst <= 0.05),
        ]

    def _zstd_speed(self) -> Goal:
        wanted = f"dense, zstd: 0.95 times as fast as {ZSTD_1}"
        if (ratio := self._ratio(self._zstd, ZSTD_1, "dense")) is None:
            return Goal(wanted)
        return Goal(wanted, f"{ratio:.2f} times", ratio >= 0.95)

    def _zstd_size(self) -> Goal:
        wanted = f"dense, zstd: as small as {ZSTD_1}"
        if (ratio := self._size_ratio(self._zstd, ZSTD_1, "dense")) is None:
            return Goal(wanted)
        return Goal(wanted, f"{(ratio - 1) * 100:+.2f} %", ratio <= 1)
