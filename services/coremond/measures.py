"""What coremond measures."""

from collections.abc import Callable, Collection, Iterable
from typing import get_args

from common.item import Arrival
from common.metrics import OTHER, Registry
from common.record import CrashRecord, IdentityBy
from common.settings import NANOSECONDS

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""Seconds that the histograms tell apart."""
PHASES = ("wait", "convert", "publish")

GUESS = "_guess"
"""The workload that stands for all whose pod is a guess: processes may have made them up."""

_GUESSED = ("", GUESS, "")
_OF_FILES: Collection[Arrival] = ("file", "apport-report")
"""How crashes arrive of which a file alone tells, which anybody may have made."""
_LONGEST_TOLD = 86400.0
"""Seconds of waiting that are believed of such a file, whose owner may set its time, too."""

_HELD = {
    "the limit of ": "limit",
    "COREMON_DENY ": "denied",
    "there is no space ": "no-space",
}
"""How reasons of held cores begin, and what they are counted as."""
_REMOVED = {
    "older than ": "expired",
    "replaced by ": "rotated",
    "made room ": "room",
    "the cores take more ": "room",
}
"""Likewise of removed ones."""


class Measures:
    """Owns coremond's instruments; workloads have a series each, but for *most_workloads*."""

    def __init__(self, most_workloads: int) -> None:
        self.registry = registry = Registry()
        self._crashes = registry.counter(
            "crashes_total",
            "Crashes that were recorded, by how they arrived.",
            ("kind",),
            known=_known(get_args(Arrival)),
        )
        self._stored = registry.counter("crashes_stored_total", "Cores that were stored.")
        self._held = registry.counter(
            "crashes_held_total",
            "Crashes whose core was not kept, by why.",
            ("reason",),
            known=_known((*_HELD.values(), "no-core")),
        )
        self._failed = registry.counter(
            "crashes_failed_total", "Cores that could not be stored for now; they are tried again."
        )
        self._removed = registry.counter(
            "crashes_removed_total",
            "Stored cores that were removed, by why.",
            ("reason",),
            known=_known((*_REMOVED.values(), "other")),
        )
        self._truncated = registry.counter(
            "crashes_truncated_total", "Stored cores that are not whole."
        )
        self._core_bytes = registry.counter(
            "core_bytes_total", "Bytes of stored cores as the processes left them, with holes."
        )
        self._data_bytes = registry.counter(
            "core_data_bytes_total", "Bytes of stored cores that were neither holes nor zeros."
        )
        self._packed_bytes = registry.counter(
            "packed_bytes_total", "Bytes of stored cores as they were written to the disk."
        )
        self._phases = registry.histogram(
            "phase_seconds",
            "Seconds that stored cores took: wait, from the crash (or a file's last change) until "
            "coremond saw the core; convert; publish, from there until it was told of.",
            ("phase",),
            bounds=BOUNDS,
            known=_known(PHASES),
        )
        self._identities = registry.counter(
            "identity_total",
            "Crashes, by how the pod was found.",
            ("by",),
            known=_known(get_args(IdentityBy)),
        )
        self._workloads = registry.counter(
            "workload_crashes_total",
            "Crashes, by workload and container; all that are beyond the bound together, and so "
            "are those whose pod is a guess.",
            ("namespace", "workload", "container"),
            known=[_GUESSED],
            most=most_workloads + 1,
            other=("", OTHER, ""),
        )
        self._queue = registry.gauge("queue", "Sources that wait, or are under way.", ("state",))
        self._failing = registry.gauge(
            "crashes_failing", "Cores that could not be stored when that was last tried."
        )
        self._cores = registry.gauge("store_cores", "Cores in the store.")
        self._bytes = registry.gauge("store_bytes", "Bytes that they take up.")
        self._records = registry.gauge("store_records", "Crash records in the store.")
        self._free = registry.gauge("store_free_bytes", "Bytes free on the disk of the store.")
        self._size = registry.gauge("store_size_bytes", "Bytes of the disk of the store.")
        self._new = registry.gauge(
            "crashes_unacknowledged", "Crash records that nobody has acknowledged."
        )
        self._last_stored = registry.gauge(
            "last_stored_timestamp_seconds", "When a core was last stored; 0 for never."
        )
        self._last_scan = registry.gauge(
            "last_scan_timestamp_seconds", "When the source directories were last looked through."
        )

    def stored(self, record: CrashRecord, now: int) -> None:
        """Count a core that was stored, which is told of at *now* (ns)."""
        self._stored.add()
        self._truncated.add(amount=record.truncated)
        self._core_bytes.add(amount=record.size)
        self._data_bytes.add(amount=record.data)
        self._packed_bytes.add(amount=record.packed)
        stored_at = record.stored_at or now
        self._phases.observe(_wait(record), "wait")
        self._phases.observe(record.convert_seconds or 0.0, "convert")
        self._phases.observe(_seconds(now - stored_at), "publish")
        self._count(record, 1)

    def held(self, record: CrashRecord, number: int) -> None:
        """Count *number* crashes whose core was not kept, in *record*."""
        self._held.add(_class_of(record.reason, _HELD, "no-core"), amount=number)
        self._count(record, number)

    def removed(self, record: CrashRecord) -> None:
        """Count a core that was removed."""
        self._removed.add(_class_of(record.reason, _REMOVED, "other"))

    def failed(self) -> None:
        """Count a core that could not be stored for now."""
        self._failed.add()

    def _count(self, record: CrashRecord, number: int) -> None:
        self._crashes.add(record.arrived, amount=number)
        self._identities.add(record.identity.by, amount=number)
        is_guess = record.identity.by == "guess"
        whose = (record.namespace, record.workload, record.container)
        self._workloads.add(*(_GUESSED if is_guess else whose), amount=number)

    def watch_store(
        self,
        records: Callable[[], Iterable[CrashRecord]],
        disk: Callable[[], tuple[int, int]],
    ) -> None:
        """Show what is in the store whenever it is asked for.

        *records* are those at hand; *disk* gives how many bytes are free, of how many.
        """

        def look() -> None:
            self._look_at(records())
            try:
                free, size = disk()
            except OSError:
                self._free.forget()
                self._size.forget()
            else:
                self._free.set(free)
                self._size.set(size)

        self.registry.before_reading(look)

    def _look_at(self, records: Iterable[CrashRecord]) -> None:
        cores = size = new = number = last = 0
        for record in records:
            number += 1
            new += record.is_new
            last = max(last, record.stored_at or 0)
            if record.state == "stored":
                cores += 1
                size += record.occupied
        self._records.set(number)
        self._cores.set(cores)
        self._bytes.set(size)
        self._new.set(new)
        self._last_stored.set(last / NANOSECONDS)

    def watch_loop(
        self,
        queue: Callable[[], tuple[int, int]],
        scanned_at: Callable[[], float],
        failing: Callable[[], int],
    ) -> None:
        """Show how many sources wait, are under way or *failing*, and when the last scan was."""

        def look() -> None:
            waiting, under_way = queue()
            self._queue.set(waiting, "waiting")
            self._queue.set(under_way, "under_way")
            self._failing.set(failing())
            self._last_scan.set(scanned_at())

        self.registry.before_reading(look)


def _known(values: Iterable[str]) -> list[tuple[str]]:
    return [(value,) for value in dict.fromkeys(values)]


def _wait(record: CrashRecord) -> float:
    """Say how many seconds passed from a crash until its core was seen.

    A file tells any moment that its owner likes, but it was not there before its own.
    """
    if record.arrived not in _OF_FILES:
        return _seconds(record.detected_at - record.crashed_at)
    written_at = record.sources[-1].changed_at if record.sources else 0
    there_at = max(record.crashed_at, written_at)
    return min(_seconds(record.detected_at - there_at), _LONGEST_TOLD)


def _seconds(nanoseconds: int) -> float:
    return max(0, nanoseconds) / NANOSECONDS


def _class_of(reason: str, classes: dict[str, str], other: str) -> str:
    return next((name for start, name in classes.items() if reason.startswith(start)), other)
