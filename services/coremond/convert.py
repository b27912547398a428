"""Make a stored core of a source: take it over if it is packed as it should be, or pack it."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from common.errors import CorruptError, SpaceError, StoppedError
from common.item import CrashItem, Packed
from common.log import Logger
from common.packing.codec import Codec
from common.packing.crew import Crew
from common.packing.opened import OpenCore
from common.packing.packer import Packer
from common.packing.registry import CODECS
from common.packing.sources import Allowance
from common.packing.sums import Sums
from common.record import CrashRecord
from services.coremond.progress import Progress, Show
from services.coremond.settings import CoremondSettings
from services.coremond.store import CoreStore

log = Logger()

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}

MakeRoom = Callable[[CrashRecord, int], bool]
"""Lets other cores go for one of which so many bytes were written; False where that is no help."""

_SPACE_CHECK_EVERY = 16 * 2**20
_COPIED_AT_ONCE = 8 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What is converted, and into what."""

    source: str
    """The path of the source, as it is shown."""
    descriptor: int
    """The source, open."""
    record: CrashRecord
    item: CrashItem | None
    """What crashagent says of the source; nobody else's word counts here."""


class Converter:
    """Writes the hidden file of the store that a core is, before it has its name."""

    def __init__(
        self,
        store: CoreStore,
        settings: CoremondSettings,
        crew: Crew,
        progress: Progress,
        *,
        is_stopped: Callable[[], bool],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._settings = settings
        self._codec: Codec = CODECS[settings.codec]
        self._crew = crew
        self._progress = progress
        self._is_stopped = is_stopped
        self._clock = clock

    def convert(self, conversion: Conversion, make_room: MakeRoom) -> CrashRecord:
        """Give the record of the core, which is durable then; its hidden file is left to publish.

        Raises `SpaceError` where free space is asked for and cannot be made, `StoppedError` where
        coremond is to stop. The hidden file may be there after an error too.
        """
        started = time.monotonic()
        with self._progress.of(conversion.source, conversion.record.core) as show:
            packed, sums = self._take_over(conversion, make_room, show) or self._write(
                conversion, make_room, lambda target: self._pack(conversion, target, show)
            )
        record = conversion.record
        return replace(
            record,
            state="stored",
            codec=self._codec.name,
            size=packed.size,
            data=packed.data,
            packed=packed.packed,
            ratio=round(packed.size / packed.packed, 3),
            crc32=f"{sums.crc32:08x}",
            sha256=sums.sha256,
            truncated=record.truncated or bool(packed.cut),
            truncated_why=record.truncated_why or packed.cut,
            stored_at=self._clock(),
            convert_seconds=round(time.monotonic() - started, 6),
        )

    def _take_over(
        self, conversion: Conversion, make_room: MakeRoom, show: Show
    ) -> tuple[Packed, Sums] | None:
        """Take the source as it is, if crashagent packed it as it should be, and it still is so."""
        item = conversion.item
        if item is None or item.packed is None or item.encoding != self._codec.name:
            return None
        packed = item.packed
        try:
            if self._settings.delete_src and (sums := self._link(conversion, packed)):
                return packed, sums
            return self._write(
                conversion, make_room, lambda target: self._copy(conversion, packed, target, show)
            )
        except CorruptError as error:
            log.warning(
                "packed core damaged",
                src=conversion.source,
                reason=str(error),
                effect="it is packed anew, as far as it is whole",
            )
            return None

    def _link(self, conversion: Conversion, packed: Packed) -> Sums | None:
        """Give the source a second name in the store; None where that cannot be."""
        try:
            target = self._store.adopt(conversion.record.name, conversion.descriptor)
        except OSError:  # another file system, or one without links
            return None
        try:
            return self._store.settle(packed, target)
        finally:
            os.close(target)

    def _write(
        self, conversion: Conversion, make_room: MakeRoom, write: Callable[[int], Packed]
    ) -> tuple[Packed, Sums]:
        """Write the hidden file, and while the disk is full, let other cores go for this one."""
        target = self._store.create(conversion.record.name)
        try:
            while True:
                try:
                    packed = write(target)
                    return packed, self._store.settle(packed, target)
                except OSError as error:
                    if error.errno not in NO_SPACE or not self._settings.disk.keep_free:
                        raise
                    written = os.fstat(target).st_size
                    os.ftruncate(target, 0)
                    if not make_room(conversion.record, written):
                        raise SpaceError("there is no space for it") from error
        finally:
            os.close(target)

    def _copy(self, conversion: Conversion, packed: Packed, target: int, show: Show) -> Packed:
        watch, place = self._watching(target), 0
        os.lseek(target, 0, os.SEEK_SET)
        while place < packed.packed:
            watch(place)
            show(place, packed.packed)
            copied = os.sendfile(target, conversion.descriptor, place, _COPIED_AT_ONCE)
            if not copied:
                raise CorruptError(f"it ends at byte {place}, not {packed.packed}")
            place += copied
        return packed

    def _pack(self, conversion: Conversion, target: int, show: Show) -> Packed:
        core, disk = OpenCore(conversion.descriptor), self._settings.disk
        source = core.source(Allowance(disk.max_core, disk.max_size))
        packer, watch = Packer(target, self._codec, self._crew), self._watching(target)

        def watch_and_show() -> None:
            watch(packer.packed)
            show(packer.size, core.size or 0)

        packer.run(source, watch_and_show)
        kept = f"it is kept as it came: {core.damage}" if core.damage else ""
        return packer.end(source.cut or kept)

    def _watching(self, target: int) -> Callable[[int], None]:
        """Give what looks, *written* bytes being in *target*, whether to stop, and for room."""
        checked_at = 0

        def watch(written: int) -> None:
            nonlocal checked_at
            if self._is_stopped():
                raise StoppedError("asked to stop while a core was converted")
            if written - checked_at >= _SPACE_CHECK_EVERY:
                checked_at = written
                if self._settings.disk.lacking(target):
                    raise OSError(errno.ENOSPC, "the disk must keep more space free")

        return watch
