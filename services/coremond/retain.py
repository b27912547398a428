"""Decide which cores to keep and which to let go. Deciding is pure; removing is done elsewhere."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from heapq import heapify, heappop, heappush
from itertools import islice

from common.record import ContainerKey, CrashRecord
from common.settings import NANOSECONDS
from services.coremond.settings import Retention

MOST_NAMES = 20
"""Names of a container's processes that are told apart: a process may call itself anything."""
MOST_OF_A_HOST = 500
"""The same of a host, where all processes of a user that are in no pod are of one container."""
MOST_RECORDS = 5000
"""Records of crashes without a core that are kept."""

_Process = tuple[ContainerKey, str]
_Workload = tuple[str, ...]
_Rank = tuple[int, int, str]
"""What goes first sorts first: minus how many there are, when the oldest was, and its name."""


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


@dataclass(frozen=True, slots=True)
class Told:
    """The records of a container, told apart by what its processes called themselves."""

    by_name: dict[str, list[CrashRecord]]
    """Those of the names that were seen first."""
    others: list[CrashRecord]
    """Those of all other names, which are one process as far as limits go."""

    def of(self, like: CrashRecord) -> list[CrashRecord]:
        """Give the records that count for the limit of a process."""
        if like.process in self.by_name:
            return self.by_name[like.process]
        return self.others if len(self.by_name) >= _most_names(like) else []


def tell_apart(container: Iterable[CrashRecord]) -> Told:
    """Tell the records of a *container* apart by processes, in the order they were detected in."""
    told = Told({}, [])
    for record in sorted(container, key=lambda record: (record.detected_at, record.name)):
        if record.process in told.by_name:
            told.by_name[record.process].append(record)
        elif len(told.by_name) < _most_names(record):
            told.by_name[record.process] = [record]
        else:
            told.others.append(record)
    return told


def _most_names(record: CrashRecord) -> int:
    return MOST_NAMES if record.namespace else MOST_OF_A_HOST


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

    Who has most, the *newcomer* counted in, gives the oldest first, so that one that crashes in a
    loop cannot push out the only core of a quiet one.
    """
    if needed <= 0:
        return []
    kept = list(stored)
    if sum(record.occupied for record in kept) < needed:
        return None
    removals = []
    for record in _in_turn(kept, newcomer):
        removals.append(record)
        needed -= record.occupied
        if needed <= 0:
            break
    return removals


def _in_turn(
    records: Iterable[CrashRecord], newcomer: CrashRecord | None = None
) -> Iterator[CrashRecord]:
    """Give all *records*, each time the oldest of the process that has most left.

    Of equals, that of the workload that has most, and then the oldest. What processes call
    themselves is their own choice, and so is whose they say they are: names that are not told apart
    are one process, and all guesses are one workload.
    """
    counted = [*records, *([newcomer] if newcomer else [])]
    process_of = _processes(counted)
    counts = Counter(process_of[record.name] for record in counted)
    sizes = Counter(map(_workload_of, counted))
    queues = defaultdict[_Process, deque[CrashRecord]](deque)
    for record in sorted(records, key=lambda record: (record.crashed_at, record.name)):
        queues[process_of[record.name]].append(record)

    def rank(process: _Process) -> tuple[_Rank, _Process]:
        oldest = queues[process][0]
        return (-counts[process], oldest.crashed_at, oldest.name), process

    processes = defaultdict[_Workload, list[tuple[_Rank, _Process]]](list)
    for process, queue in queues.items():
        heappush(processes[_workload_of(queue[0])], rank(process))

    def turn(workload: _Workload) -> tuple[int, int, _Rank, _Workload]:
        first, _ = processes[workload][0]
        return first[0], -sizes[workload], first, workload

    workloads = [turn(workload) for workload in processes]
    heapify(workloads)
    while workloads:
        *_, workload = heappop(workloads)
        _, process = heappop(processes[workload])
        yield queues[process].popleft()
        counts[process] -= 1
        sizes[workload] -= 1
        if queues[process]:
            heappush(processes[workload], rank(process))
        if processes[workload]:
            heappush(workloads, turn(workload))


def _processes(records: Iterable[CrashRecord]) -> dict[str, _Process]:
    """Give the process of each record, by the record's name, as far as they are told apart."""
    containers = defaultdict[ContainerKey, list[CrashRecord]](list)
    for record in records:
        containers[record.container_key].append(record)
    found: dict[str, _Process] = {}
    for key, container in containers.items():
        told = tell_apart(container)
        for name, alike in (*told.by_name.items(), ("", told.others)):
            found |= {record.name: (key, name) for record in alike}
    return found


def _workload_of(record: CrashRecord) -> _Workload:
    if record.identity.by == "guess":
        return ()
    return record.namespace, record.workload


def choose_expired(records: Iterable[CrashRecord], now: int, retention: float) -> list[CrashRecord]:
    """Choose the stored cores that are older than *retention* seconds at *now* (ns); 0 = none."""
    if retention == 0:
        return []
    oldest = now - int(retention * NANOSECONDS)
    return [r for r in records if r.state == "stored" and (r.stored_at or r.crashed_at) < oldest]


def choose_forgotten(
    records: Iterable[CrashRecord], now: int, retention: float
) -> list[CrashRecord]:
    """Choose records without a core: those whose last news is older than *retention*; 0 = none.

    Where there are too many others, those of who has most go, too.
    """
    without = [record for record in records if record.state != "stored"]
    oldest = now - int(retention * NANOSECONDS) if retention else 0
    old = [record for record in without if _last_news(record) < oldest]
    left = [record for record in without if _last_news(record) >= oldest]
    return [*old, *islice(_in_turn(left), max(0, len(left) - MOST_RECORDS))]


def _last_news(record: CrashRecord) -> int:
    return max(record.last_crashed_at, record.crashed_at, record.removed_at or 0)
