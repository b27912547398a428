"""What crashagent measures."""

from typing import get_args

from common.item import Arrival, CrashItem
from common.metrics import Registry

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""Seconds that the histograms tell apart."""

_KINDS = [(kind,) for kind in get_args(Arrival) if kind not in {"file", "apport-report"}]
_CAPTURES = ("resident", "stream", "none")
_STEPS = ("released", "whole")


class Measures:
    """Owns crashagent's instruments."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self._taken = registry.counter(
            "intake_total",
            "Crashes that were taken in, by the way they came.",
            ("kind",),
            known=_KINDS,
        )
        self._refused = registry.counter(
            "intake_refused_total",
            "Connections that were refused: no core came, or not from who may send one.",
            ("kind",),
            known=_KINDS,
        )
        self._lost = registry.counter(
            "intake_lost_total",
            "Crashes of which nothing could be kept.",
            ("kind",),
            known=_KINDS,
        )
        self._turned_away = registry.counter(
            "turned_away_total",
            "Crashes that were turned away before they were dumped, as nobody would keep the core.",
            ("kind",),
            known=_KINDS,
        )
        self._truncated = registry.counter(
            "intake_truncated_total", "Crashes whose core came in partly."
        )
        self._failed = registry.counter(
            "intake_failed_total", "Crashes that were not taken in for a fault of ours."
        )
        self._captured = registry.counter(
            "intake_capture_total",
            "Crashes that were taken in, by how the memory was read.",
            ("capture",),
            known=[(capture,) for capture in _CAPTURES],
        )
        self._bytes = registry.counter(
            "intake_bytes_total", "Bytes that were written to the spool for them."
        )
        self._seconds = registry.histogram(
            "intake_seconds",
            "Seconds from the start of an intake until the process was released, and until the "
            "core was whole on the disk.",
            ("step",),
            bounds=BOUNDS,
            known=[(step,) for step in _STEPS],
        )
        self._under_way = registry.gauge("intake_under_way", "Cores that come in, or wait to.")

    def taken_in(self, item: CrashItem, *, size: int, released: float, seconds: float) -> None:
        """Count a crash that was taken in, in *size* bytes."""
        self._taken.add(item.arrived)
        self._truncated.add(amount=item.truncated)
        capture = item.capture.partition(":")[0]
        self._captured.add(capture if capture in _CAPTURES else "none")
        self._bytes.add(amount=size)
        self._seconds.observe(released, "released")
        self._seconds.observe(seconds, "whole")

    def recovered(self, item: CrashItem) -> None:
        """Count a crash whose core an earlier crashagent had begun to take in."""
        if not item.turned_away:
            self._taken.add(item.arrived)
            self._truncated.add(amount=item.truncated)

    def failed(self) -> None:
        """Count an intake that failed by a fault of ours."""
        self._failed.add()

    def refused(self, kind: Arrival) -> None:
        """Count a connection that was refused."""
        self._refused.add(kind)

    def lost(self, kind: Arrival) -> None:
        """Count a crash of which nothing could be kept."""
        self._lost.add(kind)

    def turned_away(self, kind: Arrival) -> None:
        """Count a crash that was turned away."""
        self._turned_away.add(kind)

    def show_under_way(self, number: int) -> None:
        """Show how many cores come in."""
        self._under_way.set(number)
