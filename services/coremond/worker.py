"""What happens to one source: convert it, record it, keep it or not, tell of it, let it go."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace

from common import elf, naming, packing
from common.errors import BusyError, CorruptError, SourceError, SpaceError, StoppedError
from common.files import open_regular, refuse_if_being_written
from common.item import Crash, CrashItem, clean
from common.log import Logger, log_moment
from common.naming import CoreName
from common.packing import Packed
from common.record import CrashRecord, Source, facts_of
from common.settings import NANOSECONDS
from services.coremond import retain, sources
from services.coremond.gather import gather
from services.coremond.identity import Identifier
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings
from services.coremond.store import CoreStore
from services.coremond.tell import Teller
from services.coremond.watch import CrashDirectory

log = Logger()

SETTLED_FOR = 5.0
"""Seconds without a change after which a file is complete, where leases cannot tell."""

_SPACE_CHECK_EVERY = 16 * 2**20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Worker:
    """Takes sources all the way, one after another; a failure costs that source only."""

    def __init__(
        self,
        directory: CrashDirectory,
        store: CoreStore,
        identifier: Identifier,
        settings: CoremondSettings,
        *,
        room: Room,
        teller: Teller,
        is_stopped: Callable[[], bool],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory = directory
        self._store = store
        self._identifier = identifier
        self._settings = settings
        self._room = room
        self._teller = teller
        self._is_stopped = is_stopped
        self._clock = clock
        self._said: dict[str, str] = {}
        """What was last said of a source that stays, so that it is not said at each scan."""

    def handle(self, name: str, item: CrashItem | None) -> bool:
        """Take the source *name* all the way; False if it is to be looked at again later."""
        try:
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
        for name in self._said.keys() - names:
            del self._said[name]

    def _handle_complete(self, name: str, item: CrashItem | None, descriptor: int) -> None:
        status = os.fstat(descriptor)
        source = Source.of(name, status)
        known = self._store.record_of(source)
        if known and (known.state != "stored" or self._store.has_core(known)):
            self._delete_source(name, known)
            return
        if known:  # its core did not appear after all
            self._store.forget(known)
        self._store.check()
        if name not in self._said:
            log.info("new core file detected", file=self._path(name))
        item = sources.read_sidecar(self._directory.descriptor, name) or item
        notes = elf.read_notes(descriptor)
        crash = gather(name, item, notes, status, self._clock())
        record = replace(self._record(crash, source), elf=notes is not None, owner=status.st_uid)
        history = [known for known in self._store.records() if known.key == record.key]
        decision = retain.decide(history, record.crashed_at, self._settings.keep)
        if isinstance(decision, retain.Keep):
            self._keep(name, replace(record, window=decision.window), decision.replaces, descriptor)
        else:
            limit = self._settings.keep.cores_max_files
            reason = f"the limit of {limit} cores of this process is reached"
            self._hold(name, record, reason, until=decision.until)

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
        while self._store.has_name(str(core_name)):
            core_name = replace(core_name, crashed_at=core_name.crashed_at + 1)
        return CrashRecord(
            **facts_of(crash),
            id=naming.short_id(str(core_name)),
            name=str(core_name),
            state="held",
            node=self._settings.node,
            namespace=whose.namespace,
            pod=whose.pod,
            container=whose.container,
            process=process,
            workload=whose.workload,
            identity=whose.identity,
            size=source.size,
            detected_at=self._clock(),
            last_crashed_at=crash.crashed_at,
            sources=(source,),
        )

    def _keep(
        self, name: str, record: CrashRecord, replaces: tuple[CrashRecord, ...], descriptor: int
    ) -> None:
        log.info("creating coredump", src=self._path(name), dst=self._stored_path(record))
        target = self._store.create(record.name)
        room: list[CrashRecord] | None = None
        try:
            stored, packed = self._pack_making_room(record, descriptor, target)
            room = self._room.choose_for(stored, replaces)
            if room is not None:
                self._store.prepare(stored, packed, target)
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
        finally:
            os.close(target)
        if room is None:
            self._store.discard(record.name)
            self._hold(name, replace(record, window=0), "there is no space for it")
            return
        self._teller.tell_of("stored", stored)
        self._delete_source(name, stored)

    def _pack_making_room(
        self, record: CrashRecord, descriptor: int, target: int
    ) -> tuple[CrashRecord, Packed]:
        """Pack, and while the disk is full, let other cores go for this one.

        Raises `SpaceError` where free space is asked for and cannot be made.
        """
        while True:
            try:
                return self._pack(record, descriptor, target)
            except OSError as error:
                if error.errno not in _NO_SPACE or not self._settings.disk.keep_free:
                    raise
                going = self._room.choose_for_part(record, os.fstat(target).st_size)
                if not going:
                    raise SpaceError("there is no space for it") from error
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
            for old in going:
                self.remove(old, "made room for another")

    def _pack(
        self, record: CrashRecord, descriptor: int, target: int
    ) -> tuple[CrashRecord, Packed]:
        started = time.monotonic()
        disk = self._settings.disk
        packed = packing.pack(
            descriptor,
            target,
            workers=self._settings.workers or len(os.sched_getaffinity(0)),
            max_data=disk.max_core,
            max_size=disk.max_size,
            check=self._checking(target),
        )
        cut = f"it has more than {disk.max_core} bytes of data"
        if 0 < disk.max_size <= packed.size:
            cut = f"it is longer than {disk.max_size} bytes"
        record = replace(
            record,
            state="stored",
            size=packed.size,
            data=packed.data,
            packed=packed.packed,
            ratio=round(packed.size / packed.packed, 3),
            crc32=f"{packed.crc32:08x}",
            sha256=packed.sha256,
            truncated=record.truncated or packed.cut,
            truncated_why=record.truncated_why or (cut if packed.cut else ""),
            stored_at=self._clock(),
            convert_seconds=round(time.monotonic() - started, 6),
        )
        return record, packed

    def _checking(self, target: int) -> Callable[[], None]:
        """Give what looks, while *target* is written, whether to stop and whether there is room."""
        checked_at = 0

        def check() -> None:
            nonlocal checked_at
            if self._is_stopped():
                raise StoppedError("asked to stop while packing")
            written = os.lseek(target, 0, os.SEEK_CUR)
            if written - checked_at >= _SPACE_CHECK_EVERY:
                checked_at = written
                if self._settings.disk.lacking(target):
                    raise OSError(errno.ENOSPC, "the disk must keep more space free")

        return check

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
        of_key = [known for known in self._store.records() if known.key == record.key]
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
        full = isinstance(error, OSError) and error.errno in _NO_SPACE
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
