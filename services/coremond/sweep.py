"""The regular look through what is stored: what is too old goes, and what does not fit."""

import os
import stat
import time
from collections.abc import Callable

from common.errors import BusyError, SourceError
from common.files import open_regular, refuse_if_being_written
from common.log import Logger
from common.record import CrashRecord
from common.settings import NANOSECONDS
from services.coremond import retain
from services.coremond.room import Room
from services.coremond.settings import Retention
from services.coremond.source_directories import SourceDirectories
from services.coremond.store import CoreStore
from services.coremond.watch import Found
from services.coremond.worker import SETTLED_FOR, Worker

log = Logger()


class Sweep:
    """Applies the retention settings to the store and to the source directories."""

    def __init__(
        self,
        directories: SourceDirectories,
        store: CoreStore,
        worker: Worker,
        room: Room,
        keep: Retention,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directories = directories
        self._store = store
        self._worker = worker
        self._room = room
        self._keep = keep
        self._clock = clock

    def run(self) -> None:
        """Look through everything once."""
        with self._worker.deciding:
            self._run(self._clock())

    def _run(self, now: int) -> None:
        for record in retain.choose_expired(self._store.records(), now, self._keep.retention):
            self._remove(record, "older than COREMON_RETENTION")
        self._remove_old_sources(now)
        self._make_room()
        self._forget_records(now)

    def _remove_old_sources(self, now: int) -> None:
        if self._keep.retention == 0:
            return
        oldest = now - int(self._keep.retention * NANOSECONDS)
        for found in self._directories.all():
            may_go = found.directory.is_ours or found.directory.sources_go
            if may_go and self._is_older(found, oldest, now):
                self._remove_source(found)

    def _remove_source(self, found: Found) -> None:
        try:
            found.remove()
        except OSError as error:
            log.error(
                "source could not be deleted",
                src=found.path,
                reason=str(error),
                effect="tried again at the next look through",
            )
            return
        log.info("deleting src core file", src=found.path, reason="older than COREMON_RETENTION")

    def _is_older(self, found: Found, oldest: int, now: int) -> bool:
        try:
            descriptor = open_regular(found.directory.descriptor, found.name)
        except (FileNotFoundError, SourceError, BusyError):
            return False
        try:
            status = os.fstat(descriptor)
            refuse_if_being_written(descriptor, settled_for=SETTLED_FOR, now=now / NANOSECONDS)
            return stat.S_ISREG(status.st_mode) and status.st_mtime_ns < oldest
        except BusyError:
            return False
        finally:
            os.close(descriptor)

    def _make_room(self) -> None:
        for record in self._room.choose():
            self._remove(record, "the cores take more space than they may")

    def _remove(self, record: CrashRecord, reason: str) -> None:
        try:
            self._worker.remove(record, reason)
        except OSError as error:
            log.error(
                "core could not be removed",
                core=record.core,
                reason=str(error),
                effect="tried again at the next look through",
            )

    def _forget_records(self, now: int) -> None:
        # A source that is still there would be taken for a new crash.
        may_go = [
            record
            for record in self._store.records()
            if record.state != "stored"
            and not any(self._directories.has(source) for source in record.sources)
        ]
        for record in retain.choose_forgotten(may_go, now, self._keep.record_retention):
            self._forget(record)

    def _forget(self, record: CrashRecord) -> None:
        try:
            self._store.forget(record)
        except OSError as error:
            log.error(
                "record could not be deleted",
                record=record.name,
                reason=str(error),
                effect="tried again at the next look through",
            )
