"""Tell whoever listens what became of a core."""

from collections.abc import Callable

from common.holds import Hold
from common.item import CoreEvent, EventKind
from common.record import CrashRecord
from services.coremond.holds import Change
from services.coremond.store import CoreStore


class Teller:
    """Makes events of records and failures."""

    def __init__(
        self, store: CoreStore, send: Callable[[CoreEvent], None], clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._send = send
        self._clock = clock

    def tell_of(self, kind: EventKind, record: CrashRecord) -> None:
        """Tell that *kind* of thing happened to the core of *record*."""
        self._send(
            CoreEvent(
                kind=kind,
                id=record.id,
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
                pod=hold.workload,
                process=hold.process,
                reason=hold.reason,
                at=self._clock(),
                until=hold.until,
            )
        )

    def tell_failed(self, source: str, reason: str) -> None:
        """Tell that the core in *source* could not be stored for now."""
        self._send(CoreEvent(kind="failed", id="", core=source, reason=reason, at=self._clock()))
