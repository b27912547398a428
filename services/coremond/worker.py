"""What happens to one source: convert it, record it, keep it or not, tell of it, let it go."""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock

from common import elf, naming
from common.errors import BusyError, CorruptError, SourceError, SpaceError, StoppedError
from common.files import open_regular, refuse_if_being_written
from common.holds import Hold
from common.identity import Whose
from common.item import Crash, CrashItem
from common.log import Logger, log_moment
from common.naming import CoreName
from common.packing.opened import OpenCore
from common.record import CrashRecord, Source, facts_of
from common.settings import NANOSECONDS
from services.coremond import retain, sources
from services.coremond.container_log import ContainerLogs
from services.coremond.convert import NO_SPACE, Conversion, Converter
from services.coremond.gather import find_missing, gather
from services.coremond.holds import Holds
from services.coremond.identity import CrashIdentifier, pod_facts
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings
from services.coremond.source_directories import SourceDirectories
from services.coremond.store import CoreStore
from services.coremond.tell import Teller
from services.coremond.watch import Found

log = Logger()

_DENIED = "COREMON_DENY names its process"
_FOR_GOOD = 2**63 - 1
_NO_SPACE_FOR = 10.0
"""Seconds that crashes of a process are turned away after there was no space for its core."""
_ROUNDING = 4 * 4096
"""Bytes that a checksum, and three files' last blocks, take up on a disk."""
SETTLED_FOR = 5.0
"""Seconds without a change after which a file is complete, where leases cannot tell."""


class Worker:
    """Takes sources all the way, several at once; a failure costs that source only.

    All is decided, recorded and removed under one lock, which is let go while a core is converted.
    """

    def __init__(
        self,
        directories: SourceDirectories,
        store: CoreStore,
        identifier: CrashIdentifier,
        logs: ContainerLogs,
        settings: CoremondSettings,
        converter: Converter,
        *,
        room: Room,
        teller: Teller,
        holds: Holds,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.deciding = RLock()
        """Held by whoever changes the store."""
        self._directories = directories
        self._store = store
        self._identifier = identifier
        self._logs = logs
        self._settings = settings
        self._converter = converter
        self._room = room
        self._teller = teller
        self._holds = holds
        self._clock = clock
        self._under_way: dict[str, CrashRecord] = {}
        """The cores that are being converted, as they will be."""
        self._said: dict[Found, str] = {}
        """What was last said of a source that stays, so that it is not said at each scan."""
        self._failing: dict[Found, str] = {}
        """Why a source could not be stored when that was last tried."""
        self._is_behind = False
        """What the API told later could not be written down."""

    def handle(self, found: Found, item: CrashItem | None) -> bool:
        """Take a source all the way; False if it is to be looked at again later.

        *item* is what a message told of it.
        """
        with self.deciding:
            is_done = self._handle(found, item)
            if is_done:
                self._failing.pop(found, None)
            return is_done

    def _handle(self, found: Found, item: CrashItem | None) -> bool:
        try:
            if self._is_settled(found):
                return True
            descriptor = open_regular(found.directory.descriptor, found.name)
        except FileNotFoundError:
            return True
        except SourceError as error:
            self._say_once(found, "core file refused", str(error), "it is left as it is")
            return True
        except BusyError:
            return False
        try:
            refuse_if_being_written(
                descriptor, settled_for=SETTLED_FOR, now=self._clock() / NANOSECONDS
            )
            self._handle_complete(found, item, descriptor)
        except BusyError:
            return False
        except StoppedError:
            return True
        except (OSError, CorruptError) as error:
            self._store.check()
            self._fail(found, error)
            return False
        finally:
            os.close(descriptor)
        self._said.pop(found, None)
        return True

    def failing(self) -> list[str]:
        """Say of each source that could not be stored when that was last tried why not."""
        return list(self._failing.values())

    def forget_missing(self, there: set[Found]) -> None:
        """Forget what was said of sources that are not *there* any more."""
        with self.deciding:
            for said in (self._said, self._failing):
                for found in said.keys() - there:
                    del said[found]

    def _is_settled(self, found: Found) -> bool:
        """Let a source go that was taken in before; say whether it is one.

        It may have a second name by then, in the store, so it is not opened.
        """
        try:
            status = os.lstat(found.name, dir_fd=found.directory.descriptor)
        except FileNotFoundError:
            raise
        except OSError:  # a name that no file can have: who opens it says so
            return False
        source = Source.of(found.name, status)
        known = self._store.record_of(source)
        if known is None or not stat.S_ISREG(status.st_mode):
            return False
        if known.state == "stored" and not self._store.has_core(known):
            self._store.forget(known)  # its core did not appear after all
            return False
        self._delete_source(found, known, source)
        return True

    def _handle_complete(self, found: Found, item: CrashItem | None, descriptor: int) -> None:
        self._store.check()
        status = os.fstat(descriptor)
        source = Source.of(found.name, status)
        found.refuse_if_hidden(status)
        if found not in self._said:
            log.info("new core file detected", file=found.path)
        core = OpenCore(descriptor)
        told = found.tell(descriptor, status, core)
        notes = elf.read_notes(core.read)
        seen = told.seen or item or Crash()
        crash = gather(seen, told.readings, notes, status, self._clock())
        if found.directory.kind.may_grow and (known := self._grown(source, crash)):
            self._store.save(sources.grown(known, source))
            self._delete_source(found, known, source)
            return
        whose = self._identifier.whose(crash, read=core.read, notes=notes, directory=told.pod)
        record = replace(
            self._record(crash, whose, source),
            elf=notes is not None,
            owner=status.st_uid if told.owner is None else told.owner,
            size=status.st_size if core.size is None else core.size,
        )
        if told.lack:
            until = told.item.held_until if told.item else 0
            count = told.item.count if told.item else 1
            self._hold(found, replace(record, size=0, count=count), told.lack, until=until)
            return
        if retain.is_denied(record.process, self._settings.keep):
            self._hold(found, record, _DENIED, until=_FOR_GOOD)
            return
        history = self._recorded(record, self._under_way.values())
        decision = retain.decide(history, record.crashed_at, self._settings.keep)
        if isinstance(decision, retain.Keep):
            conversion = Conversion(
                source=found.path,
                descriptor=descriptor,
                record=replace(record, window=decision.window),
                item=told.item,
            )
            self._keep(found, conversion, notes, self._log_end(record, whose))
        else:
            reason = retain.reason_of(self._settings.keep)
            if core.size is not None:
                record = find_missing(record, notes, core.size)
            self._hold(found, record, reason, until=decision.until)

    def _grown(self, source: Source, crash: Crash) -> CrashRecord | None:
        """Give the record of a source to which something was added since, as *source* is now."""
        records = self._store.records()
        return next((known for known in records if sources.is_grown(known, source, crash)), None)

    def _recorded(self, like: CrashRecord, coming: Iterable[CrashRecord] = ()) -> list[CrashRecord]:
        """Give the records that count for the limit of a process, with those that are *coming*."""
        there = self._store.of_container(like.container_key)
        there += [record for record in coming if record.container_key == like.container_key]
        return retain.tell_apart(there).of(like)

    def _record(self, crash: Crash, whose: Whose, source: Source) -> CrashRecord:
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
            kubernetes=pod_facts(whose.found, whose.container) if whose.found else None,
            detected_at=self._clock(),
            last_crashed_at=crash.crashed_at,
            sources=(source,),
        )

    def _log_end(self, record: CrashRecord, whose: Whose) -> bytes:
        """Read the end of the container's log, where it is known which container's."""
        if "guess" in {whose.identity.by, whose.identity.container_by}:
            return b""
        return self._logs.tail(whose.found, record.container, record.crashed_at)

    def _keep(
        self, found: Found, conversion: Conversion, notes: elf.CoreNotes | None, log_end: bytes
    ) -> None:
        record = conversion.record
        log.info("creating coredump", src=conversion.source, dst=self._stored_path(record))
        room: list[CrashRecord] | None = None
        try:
            with self._undecided(record):
                stored = self._converter.convert(conversion, self._make_room)
                stored = self._describe(find_missing(stored, notes, stored.size), log_end)
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
            until = self._clock() + int(_NO_SPACE_FOR * NANOSECONDS)
            self._hold(found, replace(record, window=0), "there is no space for it", until=until)
            return
        self._teller.tell_stored(stored)
        self._hold_at_limit(stored, self._recorded(stored))
        self._delete_source(found, stored, stored.sources[-1])

    def _describe(self, stored: CrashRecord, log_end: bytes) -> CrashRecord:
        """Write what belongs beside the core; on a full disk, other cores go for that, too."""
        while True:
            try:
                if log_end:
                    stored = self._store.attach(stored, log_end)
                self._store.prepare(stored)
            except OSError as error:
                if error.errno not in NO_SPACE or not self._settings.disk.keep_free:
                    raise
                beside = len(log_end) + len(stored.to_json()) + _ROUNDING
                if not self._make_room(stored, beside):
                    raise SpaceError("there is no space for what belongs beside it") from error
            else:
                return stored

    def recall_holds(self) -> None:
        """Hold the processes again that an earlier coremond held, as the records tell."""
        with self.deciding:
            for container in self._store.by_container():
                told = retain.tell_apart(container)
                for records in (*told.by_name.values(), told.others):
                    if records:
                        self._hold_at_limit(records[-1], records)

    def look_around(self) -> None:
        """End the holds whose time is over, and see which pods came and went."""
        self._identifier.refresh()
        with self.deciding:
            self._holds.release()
            try:
                for record in self._store.records():
                    if facts := self._identifier.complete(record, self._clock()):
                        self._store.save(replace(record, kubernetes=facts))
            except OSError as error:
                self._say_behind(error.strerror or str(error))
            else:
                self._is_behind = False

    def _say_behind(self, reason: str) -> None:
        """Say once that records cannot be written."""
        if not self._is_behind:
            log.error(
                "record not brought up to date", reason=reason, effect="tried again in a moment"
            )
        self._is_behind = True

    def _hold_at_limit(self, record: CrashRecord, history: Iterable[CrashRecord]) -> None:
        """Have crashes of the same process turned away, if no core of it would be kept now."""
        keep = self._settings.keep
        decision = retain.decide(history, self._clock(), keep)
        if isinstance(decision, retain.Hold):
            self._turn_away(record, retain.reason_of(keep), decision.until)

    def _turn_away(self, record: CrashRecord, reason: str, until: int) -> None:
        """Have crashes of a process turned away; only crashagent's own, for it writes as we do.

        None for a guess, which may be a word that another pod gave: it would hold the wrong one.
        """
        if record.owner == os.geteuid() and record.identity.by != "guess":
            self._holds.add(
                Hold(
                    namespace=record.namespace,
                    workload=record.workload,
                    container=record.container,
                    process=record.process,
                    until=until,
                    reason=reason,
                )
            )

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

    def _hold(self, found: Found, record: CrashRecord, reason: str, *, until: int = 0) -> None:
        """Count a crash whose core is not kept: in the record of its like, if there is one.

        *until* (ns) its process is held, if it is.
        """
        like, number = self._held_like(record, reason), record.count
        if like:
            kept = [source for source in like.sources if self._directories.has(source)]
            record = replace(
                like,
                count=like.count + record.count,
                last_crashed_at=max(like.last_crashed_at, record.crashed_at),
                sources=(*kept, *record.sources),
                acknowledged_at=None,
            )
        else:
            record = replace(record, state="held", reason=reason)
        self._store.save(record)
        log.warning(
            "core not kept",
            src=found.path,
            reason=reason,
            effect=f"the crash is counted in {record.name}{naming.RECORD_SUFFIX}",
            count=record.count,
            **({"until": log_moment(until / NANOSECONDS)} if until else {}),
        )
        self._teller.tell_held(record, number)
        self._turn_away(record, reason, until)
        self._delete_source(found, record, record.sources[-1])

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
        self._teller.tell_removed(removed)

    def _delete_source(self, found: Found, record: CrashRecord, source: Source) -> None:
        """Let the source go, which *record* has taken in, if it is to go, and is still the same."""
        if not found.directory.sources_go or not found.directory.has(source):
            return
        try:
            found.remove()
        except OSError as error:  # a directory that is mounted for reading, say
            effect = "it stays, and is not taken again"
            self._say_once(found, "source could not be deleted", str(error), effect)
            return
        log.info("deleting src core file", src=found.path, dst=self._stored_path(record))

    def _fail(self, found: Found, error: OSError | CorruptError) -> None:
        full = isinstance(error, OSError) and error.errno in NO_SPACE
        reason = "the disk is full" if full else str(error)
        effect = "the source stays, and is tried again"
        self._failing[found] = reason
        if self._say_once(found, "core could not be stored", reason, effect):
            self._teller.tell_failed(found.path, reason)

    def _say_once(self, found: Found, text: str, reason: str, effect: str) -> bool:
        if self._said.get(found) == reason:
            return False
        self._said[found] = reason
        log.error(text, src=found.path, reason=reason, effect=effect)
        return True

    def _stored_path(self, record: CrashRecord) -> str:
        return str(self._store.path / record.name)
