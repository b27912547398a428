"""What was measured, and how figures of several runs become one."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.measure import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """What reading at random places of a large packed core took."""

    size: int
    packed: int
    opening: float
    median: float
    worst: float
    peak: int
    """Bytes in memory at most while it was packed."""


class Results:
    """Gathers outcomes, and gives each figure."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
        self.restored: dict[tuple[str, str], list[float]] = defaultdict(list)
        """Seconds of each tool and kind of input."""
        self.reads: dict[str, Reads] = {}
        """Of each codec."""
        self.end_to_end: list[float] = []
        """Seconds until a bundle had stored all small cores."""

    def add(self, tool: str, kind: str, outcome: Outcome) -> None:
        """Keep one run's outcome."""
        self._outcomes[tool, kind].append(outcome)

    def runs(self, tool: str, kind: str) -> int:
        """Count them."""
        return len(self._outcomes.get((tool, kind), []))

    def of(self, tool: str, kind: str) -> Outcome | None:
        """Give the median time, and the most memory; None if it did not run."""
        if not (outcomes := self._outcomes.get((tool, kind))):
            return None
        return replace(
            outcomes[0],
            seconds=statistics.median(outcome.seconds for outcome in outcomes),
            peak=max(outcome.peak for outcome in outcomes),
        )

    def start_up(self) -> float | None:
        """Give the median of what our processes needed before they began."""
        times = [run.start_up for runs in self._outcomes.values() for run in runs if run.start_up]
        return statistics.median(times) if times else None

    def peak(self) -> int:
        """Give the most memory that any run of ours took."""
        packing = (run.peak for runs in self._outcomes.values() for run in runs)
        return max([*packing, *(reads.peak for reads in self.reads.values())], default=0)

    def as_dict(self) -> dict[str, Any]:
        """Give every single run, for JSON."""
        return {
            "packing": {
                f"{kind}: {tool}": [outcome.as_dict() for outcome in outcomes]
                for (tool, kind), outcomes in self._outcomes.items()
            },
            "restoring": {
                f"{kind}: {tool}": times for (tool, kind), times in self.restored.items()
            },
            "end_to_end": self.end_to_end,
        }
