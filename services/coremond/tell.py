"""Tell whoever listens, or counts, what became of a core."""

from collections.abc import Callable

from common.holds import Hold
from common.item import CoreEvent, EventKind
from common.record import CrashRecord
from services.coremond.holds import Change
from services.coremond.measures import Measures
from services.coremond.store import CoreStore


class Teller:
    """Makes events of records and failures."""

    def __init__(
        self,
        store: CoreStore,
        send: Callable[[CoreEvent], None],
        clock: Callable[[], int],
        measures: Measures,
        announce: Callable[[CrashRecord, int], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._send = send
        self._clock = clock
        self._measures = measures
        self._announce = announce

    def tell_stored(self, record: CrashRecord) -> None:
        """Tell that the core of *record* was stored."""
        self._measures.stored(record, self._clock())
        self._announce(record, 1)
        self._tell_of("stored", record)

    def tell_held(self, record: CrashRecord, number: int) -> None:
        """Tell that *number* crashes were counted in *record*, whose cores were not kept."""
        self._measures.held(record, number)
        self._announce(record, number)
        self._tell_of("held", record)

    def tell_removed(self, record: CrashRecord) -> None:
        """Tell that the core of *record* was removed."""
        self._measures.removed(record)
        self._tell_of("removed", record)

    def _tell_of(self, kind: EventKind, record: CrashRecord) -> None:
        """Tell that *kind* of thing happened to the core of *record*."""
        self._send(
            CoreEvent(
                kind=kind,
                id=record.id,
                namespace=record.namespace,
                pod=record.pod,
                container=record.container,
                process=record.process,
                pid=record.pid,
                core="" if kind == "held" else str(self._store.path / record.core),
                reason=record.reason,
                at=self._clock(),
            )
        )

    def tell_hold(self, kind: Change, hold: Hold) -> None:
        """Tell that crashes of a process are turned away from now on, or no longer."""
        self._send(
            CoreEvent(
                kind=kind,
                id="",
                namespace=hold.namespace,
                pod=hold.workload,
                container=hold.container,
                process=hold.process,
                reason=hold.reason,
                at=self._clock(),
                until=hold.until,
            )
        )

    def tell_failed(self, source: str, reason: str) -> None:
        """Tell that the core in *source* could not be stored for now."""
        self._measures.failed()
        self._send(CoreEvent(kind="failed", id="", core=source, reason=reason, at=self._clock()))
