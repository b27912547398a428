"""What happens to one source: convert it, record it, keep it or not, tell of it, let it go."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock

from common import elf, naming
from common.errors import BusyError, CorruptError, SourceError, SpaceError, StoppedError
from common.files import open_regular, refuse_if_being_written
from common.item import Crash, CrashItem, clean
from common.log import Logger, log_moment
from common.naming import CoreName
from common.packing.opened import OpenCore
from common.record import CrashRecord, Source, facts_of
from common.settings import NANOSECONDS
from services.coremond import retain, sources
from services.coremond.convert import NO_SPACE, Conversion, Converter
from services.coremond.gather import find_missing, gather
from services.coremond.identity import Identifier
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings
from services.coremond.store import CoreStore
from services.coremond.tell import Teller
from services.coremond.watch import CrashDirectory

log = Logger()

SETTLED_FOR = 5.0
"""Seconds without a change after which a file is complete, where leases cannot tell."""


class Worker:
    """Takes sources all the way, several at once; a failure costs that source only.

    All is decided, recorded and removed under one lock, which is let go while a core is converted.
    """

    def __init__(
        self,
        directory: CrashDirectory,
        store: CoreStore,
        identifier: Identifier,
        settings: CoremondSettings,
        converter: Converter,
        *,
        room: Room,
        teller: Teller,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.deciding = RLock()
        """Held by whoever changes the store."""
        self._directory = directory
        self._store = store
        self._identifier = identifier
        self._settings = settings
        self._converter = converter
        self._room = room
        self._teller = teller
        self._clock = clock
        self._under_way: dict[str, CrashRecord] = {}
        """The cores that are being converted, as they will be."""
        self._said: dict[str, str] = {}
        """What was last said of a source that stays, so that it is not said at each scan."""

    def handle(self, name: str, item: CrashItem | None) -> bool:
        """Take the source *name* all the way; False if it is to be looked at again later.

        *item* is what a message told of it.
        """
        with self.deciding:
            return self._handle(name, item)

    def _handle(self, name: str, item: CrashItem | None) -> bool:
        try:
            if self._is_settled(name):
                return True
            descriptor = open_regular(self._directory.descriptor, name)
        except FileNotFoundError:
            return True
        except SourceError as error:
            self._say_once(name, "core file refused", str(error), "it is left as it is")
            return True
        except BusyError:
            return False
        try:
            refuse_if_being_written(
                descriptor, settled_for=SETTLED_FOR, now=self._clock() / NANOSECONDS
            )
            self._handle_complete(name, item, descriptor)
        except BusyError:
            return False
        except StoppedError:
            return True
        except (OSError, CorruptError) as error:
            self._store.check()
            self._fail(name, error)
            return False
        finally:
            os.close(descriptor)
        self._said.pop(name, None)
        return True

    def forget_missing(self, names: set[str]) -> None:
        """Forget what was said of sources that are not among *names* any more."""
        with self.deciding:
            for name in self._said.keys() - names:
                del self._said[name]

    def _is_settled(self, name: str) -> bool:
        """Let a source go that was taken in before; say whether it is one.

        It may have a second name by then, in the store, so it is not opened.
        """
        try:
            status = os.lstat(name, dir_fd=self._directory.descriptor)
        except FileNotFoundError:
            raise
        except OSError:  # a name that no file can have: who opens it says so
            return False
        known = self._store.record_of(Source.of(name, status))
        if known is None or not stat.S_ISREG(status.st_mode):
            return False
        if known.state == "stored" and not self._store.has_core(known):
            self._store.forget(known)  # its core did not appear after all
            return False
        self._delete_source(name, known)
        return True

    def _handle_complete(self, name: str, item: CrashItem | None, descriptor: int) -> None:
        self._store.check()
        status = os.fstat(descriptor)
        if name not in self._said:
            log.info("new core file detected", file=self._path(name))
        told = sources.read_sidecar(self._directory.descriptor, name)
        core = OpenCore(descriptor)
        notes = elf.read_notes(core.read)
        crash = gather(name, told or item, notes, status, self._clock())
        record = replace(
            self._record(crash, Source.of(name, status)),
            elf=notes is not None,
            owner=status.st_uid,
            size=status.st_size if core.size is None else core.size,
        )
        coming = [other for other in self._under_way.values() if other.key == record.key]
        history = [*self._recorded(record), *coming]
        decision = retain.decide(history, record.crashed_at, self._settings.keep)
        if isinstance(decision, retain.Keep):
            conversion = Conversion(
                source=self._path(name),
                descriptor=descriptor,
                record=replace(record, window=decision.window),
                item=told,
            )
            self._keep(name, conversion, notes)
        else:
            limit = self._settings.keep.cores_max_files
            reason = f"the limit of {limit} cores of this process is reached"
            if core.size is not None:
                record = find_missing(record, notes, core.size)
            self._hold(name, record, reason, until=decision.until)

    def _recorded(self, like: CrashRecord) -> list[CrashRecord]:
        """Give the records of the same process."""
        return [record for record in self._store.records() if record.key == like.key]

    def _record(self, crash: Crash, source: Source) -> CrashRecord:
        whose = self._identifier.whose(crash.hostname)
        process = crash.comm or "unknown"
        core_name = CoreName(
            pod=whose.pod,
            container=whose.container,
            process=process,
            pid=crash.pid or 0,
            crashed_at=crash.crashed_at,
        )
        while self._store.has_name(str(core_name)) or str(core_name) in self._under_way:
            core_name = replace(core_name, crashed_at=core_name.crashed_at + 1)
        return CrashRecord(
            **facts_of(crash),
            id=naming.short_id(str(core_name)),
            name=str(core_name),
            state="held",
            codec=self._settings.codec,
            node=self._settings.node,
            namespace=whose.namespace,
            pod=whose.pod,
            container=whose.container,
            process=process,
            workload=whose.workload,
            identity=whose.identity,
            detected_at=self._clock(),
            last_crashed_at=crash.crashed_at,
            sources=(source,),
        )

    def _keep(self, name: str, conversion: Conversion, notes: elf.CoreNotes | None) -> None:
        record = conversion.record
        log.info("creating coredump", src=conversion.source, dst=self._stored_path(record))
        room: list[CrashRecord] | None = None
        try:
            with self._undecided(record):
                stored = self._converter.convert(conversion, self._make_room)
                stored = find_missing(stored, notes, stored.size)
                self._store.prepare(stored)
            replaces = retain.choose_replaced(self._recorded(record), self._settings.keep)
            room = self._room.choose_for(stored, replaces)
            if room is not None:
                for old in replaces:
                    self.remove(old, "replaced by a newer core")
                for old in room:
                    self.remove(old, "made room for another")
                self._store.publish(stored)
        except SpaceError:
            pass  # held, below
        except BaseException:
            self._store.discard(record.name)
            raise
        if room is None:
            self._store.discard(record.name)
            self._hold(name, replace(record, window=0), "there is no space for it")
            return
        self._teller.tell_of("stored", stored)
        self._delete_source(name, stored)

    @contextmanager
    def _undecided(self, record: CrashRecord) -> Iterator[None]:
        """Let other sources be handled in the block, as if *record* were stored already."""
        self._under_way[record.name] = replace(record, state="stored")
        self.deciding.release()
        try:
            yield
        finally:
            self.deciding.acquire()
            del self._under_way[record.name]

    def _make_room(self, record: CrashRecord, written: int) -> bool:
        """Let other cores go for *record*, of which *written* bytes are; say if that may help."""
        with self.deciding:
            going = self._room.choose_for_part(record, written)
            for old in going:
                self.remove(old, "made room for another")
            return bool(going)

    def _hold(self, name: str, record: CrashRecord, reason: str, *, until: int = 0) -> None:
        """Count a crash whose core is not kept: in the record of its like, if there is one.

        *until* (ns) its process is held, if it is.
        """
        like = self._held_like(record, reason)
        if like:
            directory = self._directory.descriptor
            kept = [source for source in like.sources if sources.is_there(directory, source)]
            record = replace(
                like,
                count=like.count + 1,
                last_crashed_at=max(like.last_crashed_at, record.crashed_at),
                sources=(*kept, *record.sources),
            )
        else:
            record = replace(record, state="held", reason=reason)
        self._store.save(record)
        log.warning(
            "core not kept",
            src=self._path(name),
            reason=reason,
            effect=f"the crash is counted in {record.name}{naming.RECORD_SUFFIX}",
            count=record.count,
            **({"until": log_moment(until / NANOSECONDS)} if until else {}),
        )
        self._teller.tell_of("held", record)
        self._delete_source(name, record)

    def _held_like(self, record: CrashRecord, reason: str) -> CrashRecord | None:
        """Give the record that a held crash is counted in: since the last core that was kept."""
        of_key = self._recorded(record)
        last = max((known.crashed_at for known in of_key if known.state != "held"), default=0)
        held = [
            known
            for known in of_key
            if known.state == "held" and known.reason == reason and known.crashed_at >= last
        ]
        return max(held, key=lambda known: known.crashed_at, default=None)

    def remove(self, record: CrashRecord, reason: str) -> None:
        """Remove a stored core, say so, and tell of it."""
        removed = self._store.remove(record, reason, self._clock())
        log.info("core removed", core=self._store.path / record.core, reason=reason)
        self._teller.tell_of("removed", removed)

    def _delete_source(self, name: str, record: CrashRecord) -> None:
        """Let the source go, which *record* has taken in, if it is to go."""
        if not self._settings.delete_src:
            return
        log.info("deleting src core file", src=self._path(name), dst=self._stored_path(record))
        sources.remove_source(self._directory.descriptor, name)

    def _fail(self, name: str, error: OSError | CorruptError) -> None:
        full = isinstance(error, OSError) and error.errno in NO_SPACE
        reason = "the disk is full" if full else str(error)
        effect = "the source stays, and is tried again"
        if self._say_once(name, "core could not be stored", reason, effect):
            self._teller.tell_failed(self._path(name), reason)

    def _say_once(self, name: str, text: str, reason: str, effect: str) -> bool:
        if self._said.get(name) == reason:
            return False
        self._said[name] = reason
        log.error(text, src=self._path(name), reason=reason, effect=effect)
        return True

    def _stored_path(self, record: CrashRecord) -> str:
        return str(self._store.path / record.name)

    def _path(self, name: str) -> str:
        return clean(os.fsencode(self._directory.path / name))
