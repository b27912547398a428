"""Instruments that a program counts with, safe in threads, whose number of series is bounded.

What they are called ends as Prometheus asks: ``_total``, ``_seconds``, ``_bytes``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

PREFIX = "coremond_"
LABEL_LIMIT = 128
"""Characters of a label's value; most of them come from crashed processes."""
MOST_SERIES = 100
"""Series of an instrument, where nothing else is said."""
OTHER = "_other"
"""The value of labels that stand for all beyond the bound."""

Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. *suffix* is what stands behind the family's name."""

    labels: dict[str, str]
    value: float
    suffix: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """All series of one name."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def tame(value: str) -> str:
    """Cut a hostile *value* for a label, with what is not printable as an escape."""
    value = value[:LABEL_LIMIT]
    if not value.isprintable():
        value = "".join(_shown(character) for character in value)
    return value[:LABEL_LIMIT]


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


class Instrument:
    """One family; each set of label values is a series, and those of *known* are there at once.

    Whatever comes once there are *most* of them is counted in the series *other*.
    """

    kind: Kind = "counter"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Values = (),
        *,
        known: Iterable[Values] = (),
        most: int = MOST_SERIES,
        other: Values | None = None,
    ) -> None:
        self.name = PREFIX + name
        self._help = help_text
        self._labels = labels
        self._most = most
        self._other = other or (OTHER,) * len(labels)
        self._lock = Lock()
        self._series: dict[Values, list[float]] = {}
        for values in known if labels else [()]:
            self._series[values] = self._start()

    def family(self) -> Family:
        """Give what was counted so far."""
        with self._lock:
            series = [(values, list(numbers)) for values, numbers in self._series.items()]
        samples = (
            sample
            for values, numbers in series
            for sample in self._samples(dict(zip(self._labels, values, strict=True)), numbers)
        )
        return Family(name=self.name, kind=self.kind, help=self._help, samples=tuple(samples))

    def _start(self) -> list[float]:
        return [0.0]

    def _samples(self, labels: dict[str, str], numbers: list[float]) -> Iterable[Sample]:
        return [Sample(labels, numbers[0])]

    def _find(self, values: Values) -> list[float]:
        """Give the numbers of a series, under the lock."""
        tamed = tuple(map(tame, values))
        numbers = self._series.get(tamed)
        if numbers is None:
            # The series of all others is one more than *most*.
            is_full = len(self._series) - (self._other in self._series) >= self._most
            numbers = self._series.setdefault(self._other if is_full else tamed, self._start())
        return numbers


class Counter(Instrument):
    """Counts what only ever grows."""

    def add(self, *values: str, amount: float = 1) -> None:
        """Count *amount* more in the series of these label *values*."""
        with self._lock:
            self._find(values)[0] += amount


class Gauge(Instrument):
    """Shows what is so now."""

    kind = "gauge"

    def set(self, value: float, *values: str) -> None:
        """Show *value* in the series of these label *values*."""
        with self._lock:
            self._find(values)[0] = value

    def forget(self) -> None:
        """Show nothing, for nobody knows what is so now."""
        with self._lock:
            self._series.clear()


class Histogram(Instrument):
    """Counts values by their size: how many are at most each of *bounds*, and all together."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Values = (),
        *,
        bounds: Sequence[float],
        known: Iterable[Values] = (),
    ) -> None:
        self._bounds = (*bounds, float("inf"))
        super().__init__(name, help_text, labels, known=known)

    def observe(self, value: float, *values: str) -> None:
        """Count *value* in the series of these label *values*."""
        place = next((n for n, bound in enumerate(self._bounds) if value <= bound), None)
        if place is None:  # not a number
            return
        with self._lock:
            numbers = self._find(values)
            numbers[place] += 1
            numbers[-1] += value

    def _start(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 1)

    def _samples(self, labels: dict[str, str], numbers: list[float]) -> Iterable[Sample]:
        *counts, total = numbers
        so_far = 0.0
        for bound, count in zip(self._bounds, counts, strict=True):
            so_far += count
            yield Sample({**labels, "le": _bound_text(bound)}, so_far, "_bucket")
        yield Sample(labels, total, "_sum")
        yield Sample(labels, so_far, "_count")


def _bound_text(bound: float) -> str:
    return "+Inf" if bound == float("inf") else f"{bound:g}"


class Registry:
    """Owns the instruments of a program; *look* is called before they are read, to set gauges."""

    def __init__(self) -> None:
        self._instruments: list[Instrument] = []
        self._looks: list[Callable[[], None]] = []

    def counter(
        self,
        name: str,
        help_text: str,
        labels: Values = (),
        *,
        known: Iterable[Values] = (),
        most: int = MOST_SERIES,
        other: Values | None = None,
    ) -> Counter:
        """Make a counter."""
        made = Counter(name, help_text, labels, known=known, most=most, other=other)
        self._instruments.append(made)
        return made

    def gauge(
        self, name: str, help_text: str, labels: Values = (), *, known: Iterable[Values] = ()
    ) -> Gauge:
        """Make a gauge."""
        made = Gauge(name, help_text, labels, known=known)
        self._instruments.append(made)
        return made

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Values = (),
        *,
        bounds: Sequence[float],
        known: Iterable[Values] = (),
    ) -> Histogram:
        """Make a histogram."""
        made = Histogram(name, help_text, labels, bounds=bounds, known=known)
        self._instruments.append(made)
        return made

    def before_reading(self, look: Callable[[], None]) -> None:
        """Have *look* called before the instruments are read."""
        self._looks.append(look)

    def families(self) -> list[Family]:
        """Read all instruments."""
        for look in self._looks:
            look()
        return [instrument.family() for instrument in self._instruments]
