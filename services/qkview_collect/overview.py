"""How all three programs are, as one sees it who asks them."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common import buildinfo
from common.metrics import PREFIX, Family, Kind, Registry, Sample
from common.monitor import Report, State, ask, report_of

OTHERS = ("coremond", "crashagent")
OWN = "qkview-collect"
FRESH = 1.0
"""Seconds for which what was seen is so: many who ask at once cost one look."""
DEAD_AFTER = 180.0
"""Seconds without an answer after which only a restart of all helps: supervisord has given up by
then, or the program hangs."""

_Ask = Callable[[Path, Collection[str]], Mapping[str, Report]]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What was seen at one time."""

    families: tuple[Family, ...]
    faults: tuple[str, ...]
    """Why we are not ready, each in a line."""
    dead: tuple[str, ...]
    """What only a restart helps against."""


class Overview:
    """Asks the other programs, and remembers since when one has not answered."""

    def __init__(
        self,
        run_dir: Path,
        registry: Registry,
        *,
        ask_all: _Ask = ask,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_dir = run_dir
        self._registry = registry
        self._ask_all = ask_all
        self._clock = clock
        self._silent_since: dict[str, float] = {}
        self._seen: tuple[float, View] | None = None

    def look(self) -> View:
        """See how all are now, or were a moment ago."""
        if self._seen and self._clock() - self._seen[0] < FRESH:
            return self._seen[1]
        reports = {OWN: report_of(self._registry, State())}
        reports.update(self._ask_all(self._run_dir, OTHERS))
        now = self._clock()
        for program in OTHERS:
            if program in reports:
                self._silent_since.pop(program, None)
            else:
                self._silent_since.setdefault(program, now)
        faults = tuple(self._faults(reports))
        view = View(
            families=tuple(_families(reports, is_ready=not faults)),
            faults=faults,
            dead=tuple(self._dead(reports, now)),
        )
        self._seen = now, view
        return view

    @staticmethod
    def _faults(reports: Mapping[str, Report]) -> Iterator[str]:
        for program in OTHERS:
            report = reports.get(program)
            if report is None:
                yield f"{program}: it does not answer"
                continue
            if report.state.is_hung:
                yield f"{program}: its work stands still"
            for fault in report.state.faults:
                yield f"{program}: {fault}"

    def _dead(self, reports: Mapping[str, Report], now: float) -> Iterator[str]:
        for program in OTHERS:
            report = reports.get(program)
            if report is None and now - self._silent_since[program] >= DEAD_AFTER:
                silent = now - self._silent_since[program]
                yield f"{program}: it has not answered for {silent:.0f} s"
            elif report and report.state.is_hung:
                yield f"{program}: its work stands still"


def _families(reports: Mapping[str, Report], *, is_ready: bool) -> Iterator[Family]:
    build = {"version": buildinfo.VERSION, "commit": buildinfo.COMMIT_HASH}
    programs = [OWN, *OTHERS]
    yield _family("build_info", "gauge", "Which build this is.", [Sample(build, 1.0)])
    yield _family(
        "ready", "gauge", "1 where /readyz finds no fault, else 0.", [Sample({}, float(is_ready))]
    )
    yield _family(
        "program_up",
        "gauge",
        "1 where the program answers, else 0.",
        [Sample({"program": name}, float(name in reports)) for name in programs],
    )
    yield _family(
        "program_cpu_seconds_total",
        "counter",
        "Seconds of CPU that the program has taken.",
        [Sample({"program": name}, report.cpu_seconds) for name, report in reports.items()],
    )
    yield _family(
        "program_resident_bytes",
        "gauge",
        "Bytes of memory that are the program's, or shared by it.",
        [
            Sample({"program": name}, float(report.resident_bytes))
            for name, report in reports.items()
        ],
    )
    for report in reports.values():
        yield from report.families


def _family(name: str, kind: Kind, help_text: str, samples: list[Sample]) -> Family:
    return Family(name=PREFIX + name, kind=kind, help=help_text, samples=tuple(samples))
