"""How the results are printed: aligned text, one row for each tool, one column for each input."""

import statistics
from collections.abc import Callable, Collection, Sequence

from tests.benchmarks.inputs import MEANINGS, Input
from tests.benchmarks.results import Results

BASE = "pigz -1"
MB, MIB, GIB = 1e6, 2**20, 2**30
NOTHING = "-"

Cell = Callable[[str, Input], str]


def seconds(value: float) -> str:
    """Write seconds with three digits that matter."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}s"


def times(ratio: float) -> str:
    """Write how many times as much something is."""
    return f"{ratio:.{1 if ratio < 100 else 0}f}x"


def bytes_of(value: int) -> str:
    """Write a size."""
    return f"{value / GIB:.2f} GiB" if value >= GIB else f"{value / MIB:.0f} MiB"


def grid(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Align *rows* under *columns*, and all that under *title*."""
    names = max(len(name) for name, _ in rows)
    widths = [
        max(len(cells[n]) for cells in [columns, *(cells for _, cells in rows)])
        for n in range(len(columns))
    ]
    lines = [
        "  ".join([name.ljust(names), *(map(str.rjust, cells, widths))]).rstrip()
        for name, cells in [("", columns), *rows]
    ]
    return "\n".join([title, lines[0], "-" * max(map(len, lines)), *lines[1:]])


class Table:
    """The results of packing, by *tools*; some *alike* have the output of another."""

    def __init__(
        self,
        results: Results,
        tools: Sequence[str],
        inputs: Sequence[Input],
        alike: Collection[str] = (),
    ) -> None:
        self._results = results
        self._tools = tools
        self._inputs = inputs
        self._alike = alike

    def _section(self, title: str, cell: Cell, tools: Sequence[str]) -> str:
        rows = [(tool, [cell(tool, source) for source in self._inputs]) for tool in tools]
        return grid(title, [source.kind for source in self._inputs], rows)

    def inputs(self) -> str:
        """Say what was packed."""
        rows = []
        for source in self._inputs:
            sizes = f"{bytes_of(source.size)}, {bytes_of(source.on_disk)} on disk"
            count = f"{source.cores} " if source.is_many else ""
            rows.append(f"{source.kind:<7} {sizes:<28} {count}{MEANINGS[source.kind]}")
        return "\n".join(rows)

    def times(self) -> str:
        """Seconds, and how many times as fast as the base."""

        def cell(tool: str, source: Input) -> str:
            ran, base = (self._results.of(name, source.kind) for name in (tool, BASE))
            if not ran:
                return NOTHING
            ratio = times(base.seconds / ran.seconds) if base else ""
            once = "'" if self._results.runs(tool, source.kind) == 1 else ""
            return f"{seconds(ran.seconds)}{once} {ratio:>5}"

        return self._section(f"time, and how many times as fast as {BASE}", cell, self._tools)

    def speeds(self) -> str:
        """MB of the core in a second."""

        def cell(tool: str, source: Input) -> str:
            ran = self._results.of(tool, source.kind)
            return f"{source.size / MB / ran.seconds:.0f}" if ran else NOTHING

        return self._section("speed in MB of the core per second", cell, self._tools)

    def sizes(self) -> str:
        """MB of the output, and the difference to the base."""

        def cell(tool: str, source: Input) -> str:
            ran, base = (self._results.of(name, source.kind) for name in (tool, BASE))
            if not ran:
                return NOTHING
            ratio = f"{(ran.packed / base.packed - 1) * 100:+.1f}%" if base else ""
            return f"{ran.packed / MB:.0f} {ratio:>6}"

        tools = [tool for tool in self._tools if tool not in self._alike]
        title = f"size of the output in MB, and the difference to {BASE}"
        return self._section(title, cell, tools)

    def peaks(self) -> str:
        """MiB in memory, above the idle process."""

        def cell(tool: str, source: Input) -> str:
            ran = self._results.of(tool, source.kind)
            return f"{ran.peak / MIB:.1f}" if ran and ran.peak else NOTHING

        kinds = [source.kind for source in self._inputs]
        runs = {tool: [self._results.of(tool, kind) for kind in kinds] for tool in self._tools}
        tools = [tool for tool, ran in runs.items() if any(one.peak for one in ran if one)]
        return self._section("peak memory in MiB, above that of the idle process", cell, tools)


def restoring(results: Results) -> str:
    """Seconds of each tool that unpacks, and how fast."""
    tools = list(dict.fromkeys(tool for tool, _ in results.restored))
    kinds = list(dict.fromkeys(kind for _, kind in results.restored))

    def cell(tool: str, kind: str) -> str:
        times = results.restored.get((tool, kind))
        return seconds(statistics.median(times)) if times else NOTHING

    rows = [(tool, [cell(tool, kind) for kind in kinds]) for tool in tools]
    return grid("time to restore a core from our file into a file", kinds, rows)


def reading(results: Results) -> str:
    """Show what opening a large packed core and reading in it takes."""
    rows = [
        (
            f"{codec}, {bytes_of(reads.size)} packed to {bytes_of(reads.packed)}",
            [f"{part * 1000:.1f} ms" for part in (reads.opening, reads.median, reads.worst)],
        )
        for codec, reads in results.reads.items()
    ]
    columns = ["open", "read: median", "worst"]
    return grid("4 KiB read at random places of a large packed core", columns, rows)
