"""Decide which cores to keep and which to let go. Deciding is pure; removing is done elsewhere."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common.record import CrashRecord
from common.settings import NANOSECONDS
from services.coremond.settings import Retention


@dataclass(frozen=True, slots=True)
class Keep:
    """The core is to be kept."""

    window: int = 0
    """Which core of the limit's window it is, from 1; 0 without a limit."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The core is not to be kept."""

    until: int
    """When the process is collected again, nanoseconds since the epoch."""


def decide(history: Iterable[CrashRecord], crashed_at: int, limits: Retention) -> Keep | Hold:
    """Decide about a new core of a process, which crashed at *crashed_at* (ns).

    *history* are the records of that process. Those of the cores that were ever stored tell the
    window, so that the answer is the same after a restart.
    """
    limit = limits.cores_max_files
    if limit == 0:
        return Keep()
    stored = [record for record in history if record.state != "held"]
    window = _window(stored)
    if any(record.window >= limit for record in window):
        last = max(window, key=lambda record: record.crashed_at)
        until = last.crashed_at + int(limits.retention_interval * NANOSECONDS)
        if crashed_at < until:
            return Hold(until=until)
        place = 1
    else:
        # A core that is gone from an open window leaves its place to another.
        place = 1 + sum(record.state == "stored" for record in window)
    return Keep(window=place)


def reason_of(limits: Retention) -> str:
    """Say why a core is held that `decide` does not keep."""
    return f"the limit of {limits.cores_max_files} cores of this process is reached"


def is_denied(process: str, limits: Retention) -> bool:
    """Say whether no core of *process* is ever kept."""
    return any(fnmatchcase(process, pattern) for pattern in limits.deny)


def choose_replaced(history: Iterable[CrashRecord], limits: Retention) -> list[CrashRecord]:
    """Choose the oldest stored cores of a process, whose records are *history*, for a new one."""
    if limits.cores_max_files == 0 or not limits.rotate:
        return []
    kept = sorted(
        (record for record in history if record.state == "stored"),
        key=lambda record: (record.crashed_at, record.name),
    )
    return kept[: max(0, len(kept) - limits.cores_max_files + 1)]


def _window(stored: Sequence[CrashRecord]) -> Sequence[CrashRecord]:
    """Give the cores of the newest window: from the last that was its first.

    They are in the order they were decided in: crashes may arrive late, or in one second, and small
    cores are stored before large ones.
    """
    in_order = sorted(stored, key=lambda record: (record.detected_at, record.name))
    first = max((n for n, record in enumerate(in_order) if record.window <= 1), default=0)
    return in_order[first:]


def choose_for_room(
    stored: Iterable[CrashRecord], newcomer: CrashRecord | None, needed: int
) -> list[CrashRecord] | None:
    """Choose stored cores to remove until *needed* bytes are free; None if that cannot be.

    The process with the most cores, the *newcomer* counted in, gives its oldest first, so that a
    process that crashes in a loop cannot push out the only core of a quiet one.
    """
    kept = sorted(stored, key=lambda record: (record.crashed_at, record.name))
    if sum(record.occupied for record in kept) < needed:
        return None
    count = Counter(record.key for record in kept)
    if newcomer:
        count[newcomer.key] += 1
    removals = []
    while needed > 0:
        # kept is sorted, and max() gives the first of equals: the oldest.
        worst = max(kept, key=lambda record: count[record.key])
        kept.remove(worst)
        count[worst.key] -= 1
        needed -= worst.occupied
        removals.append(worst)
    return removals


def choose_expired(records: Iterable[CrashRecord], now: int, retention: float) -> list[CrashRecord]:
    """Choose the stored cores that are older than *retention* seconds at *now* (ns); 0 = none."""
    if retention == 0:
        return []
    oldest = now - int(retention * NANOSECONDS)
    return [r for r in records if r.state == "stored" and (r.stored_at or r.crashed_at) < oldest]


def choose_forgotten(
    records: Iterable[CrashRecord], now: int, retention: float
) -> list[CrashRecord]:
    """Choose the records without a core whose last news is older than *retention*; 0 = none."""
    if retention == 0:
        return []
    oldest = now - int(retention * NANOSECONDS)
    return [
        record
        for record in records
        if record.state != "stored"
        and max(record.last_crashed_at, record.crashed_at, record.removed_at or 0) < oldest
    ]
