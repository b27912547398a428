"""Pack a core with several threads, in order, in one pass, in bounded memory.

Nothing is queued: each thread claims the next piece of the source, packs it, and writes it where it
belongs as soon as the sizes of all pieces before it are known. The CRC-32 of the whole output is
put together from those of its units.
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import accumulate, compress
from threading import Condition, Lock
from typing import NamedTuple, Self

from isal import isal_zlib

from common.item import Packed
from common.packing.allocator import give_memory_back
from common.packing.codec import BLOCK, Codec, Pack, Parts, Units
from common.packing.crew import Crew
from common.packing.registry import whole_units
from common.packing.sources import Claim, Source
from common.packing.sparse import PAGE, is_zero
from common.packing.sums import crc32_of

_AHEAD = 2
"""Pieces that may be taken on and not be written, beside those that are worked on."""
_FEW = 8
"""Pieces of a core that one thread packs alone, so that others can pack other cores meanwhile."""
_LARGE = 64 * 2**20
"""A core that takes so much memory to be packed that it is worth giving back."""


class _Done(NamedTuple):
    """A piece that is packed: *times* the same unit."""

    parts: Parts
    crc32: int
    packed: int
    size: int
    times: int
    is_data: bool
    is_last: bool


class Packer:
    """Packs one source into one open file, from its beginning on."""

    def __init__(self, target: int, codec: Codec, crew: Crew) -> None:
        self.size = self.packed = 0
        """Bytes of the source and of the output that are in order so far."""
        self._target = target
        self._codec = codec
        self._crew = crew
        self._units = Units()
        self._is_data = bytearray()
        self._crc32 = 0
        self._claiming = Lock()
        self._state = Condition(Lock())
        self._claimed = self._in_order = self._written = self._working = 0
        self._done: dict[int, tuple[_Done, bytearray]] = {}
        self._buffers: list[bytearray] = []
        self._unwritten: set[int] = set()
        """The places of units that are in order, and not yet written whole."""
        self._is_ended = self._has_last = False
        self._error: BaseException | None = None

    @classmethod
    def resume(cls, target: int, codec: Codec, crew: Crew) -> Self:
        """Take up a file over which another packer was ended: the units before a damaged one."""
        packer = cls(target, codec, crew)
        packer._units, packer._is_data = whole_units(target, codec)
        packer._cut_back(packer._units.end)
        return packer

    def run(self, source: Source, watch: Callable[[], None] = lambda: None) -> None:
        """Pack all that *source* gives; *watch* is called before each piece is claimed.

        What either raises, or the writing, is raised; what was packed before that stays.
        """
        at_work = self._crew.at_work
        if source.pieces <= _FEW:
            with at_work:
                self._work(source, watch, nullcontext())
        else:
            self._work_together(partial(self._work, source, watch, at_work), source.pieces)
        if self._error:
            raise self._error

    def _work_together(self, work: Callable[[], None], pieces: int) -> None:
        helpers = self._crew.helping(work, pieces - 1)
        work()
        for helper in helpers:
            helper.cancel()  # those that never began
        with self._state:
            self._state.wait_for(lambda: not self._working)

    def end(self, cut: str = "", *, room: int = 0) -> Packed:
        """Write what belongs behind the last unit, and say what there is, *cut* or not.

        After an error, that is what was written whole before it. Units of *room* bytes at least are
        given up at the end, where that much is wanted for something else.
        """
        whole = min(self._unwritten, default=self.packed)
        wanted = whole - (room + PAGE if room else 0)
        if wanted < self.packed:
            self._cut_back(wanted)
        if not self.packed:  # an empty file would be none of its format
            empty = self._zeros(0)
            self._put_in_order(empty)
            self._write(0, empty.parts)
        trailer = self._codec.trailer(self._units)
        os.ftruncate(self._target, self.packed)
        self._write(self.packed, (trailer,))
        self._buffers.clear()
        if self.size > _LARGE:
            give_memory_back()
        return Packed(
            size=self.size,
            data=sum(compress((unit.size for unit in self._units), self._is_data)),
            packed=self.packed + len(trailer),
            crc32=isal_zlib.crc32(trailer, self._crc32),
            cut=cut,
        )

    def _work(
        self, source: Source, watch: Callable[[], None], at_work: AbstractContextManager[object]
    ) -> None:
        """Pack pieces, each while *at_work* is held, until there are no more."""
        with self._state:
            if self._is_over():  # it was done without this helper
                return
            self._working += 1
        try:
            pack = self._codec.packer()
            while claimed := self._claim(source, watch):
                number, claim, buffer = claimed
                with at_work:
                    done = self._pack(source, claim, buffer, pack)
                self._deliver(number, done, buffer)
        except BaseException as error:  # `run` raises it
            with self._state:
                self._error = self._error or error
        finally:
            with self._state:
                self._working -= 1
                self._state.notify_all()

    def _claim(
        self, source: Source, watch: Callable[[], None]
    ) -> tuple[int, Claim, bytearray] | None:
        with self._claiming:
            with self._state:
                ahead = self._crew.workers + _AHEAD
                self._state.wait_for(
                    lambda: self._claimed - self._written < ahead or self._is_over()
                )
                if self._is_over():
                    return None
                buffer = self._buffers.pop() if self._buffers else bytearray(BLOCK)
            watch()
            claim = source.claim(buffer)
            if claim is None:
                self._is_ended = True
                return None
            self._claimed += 1
            return self._claimed - 1, claim, buffer

    def _is_over(self) -> bool:
        return self._is_ended or self._error is not None

    def _pack(self, source: Source, claim: Claim, buffer: bytearray, pack: Pack) -> _Done:
        if claim.is_hole:
            return self._zeros(claim.size)
        size = source.fill(claim, buffer)
        block = memoryview(buffer)[:size]
        if is_zero(block):
            return self._zeros(size, is_last=size < claim.size)
        parts, crc32 = pack(block), 0
        for part in parts:
            crc32 = isal_zlib.crc32(part, crc32)
        packed = sum(map(len, parts))
        return _Done(parts, crc32, packed, size, 1, is_data=True, is_last=size < claim.size)

    def _zeros(self, size: int, *, is_last: bool = False) -> _Done:
        """Give units of zeros: as many whole ones as *size* has, or a single smaller one."""
        times = max(1, size // BLOCK)
        unit = self._codec.zeros(size // times)
        crc32 = isal_zlib.crc32(unit * times)
        return _Done(
            (unit * times,), crc32, len(unit), size // times, times, is_data=False, is_last=is_last
        )

    def _deliver(self, number: int, done: _Done, buffer: bytearray) -> None:
        """Put a piece in order, and write it with those that waited only for it."""
        ready = []
        with self._state:
            self._done[number] = done, buffer
            while following := self._done.pop(self._in_order, None):
                self._in_order += 1
                if following[0].size and not self._has_last:
                    ready.append((self.packed, *following))
                    self._put_in_order(following[0])
                else:
                    self._written += 1
                if following[0].is_last:
                    self._is_ended = self._has_last = True
            self._state.notify_all()
        for place, piece, its_buffer in ready:
            self._write(place, piece.parts)
            with self._state:
                self._unwritten.discard(place)
                self._buffers.append(its_buffer)
                self._written += 1
                self._state.notify_all()

    def _put_in_order(self, done: _Done) -> None:
        self._unwritten.add(self.packed)
        self._units.add(done.packed, done.size, done.times)
        self._is_data.extend((done.is_data,) * done.times)
        self._crc32 = isal_zlib.crc32_combine(self._crc32, done.crc32, done.packed * done.times)
        self.packed += done.packed * done.times
        self.size += done.size * done.times

    def _write(self, place: int, parts: Parts) -> None:
        left = sum(map(len, parts))
        while left:
            written = os.pwritev(self._target, parts, place)
            left, place = left - written, place + written
            if left:
                parts = (memoryview(b"".join(parts))[-left:],)

    def _cut_back(self, end: int) -> None:
        """Keep the units that end at *end* or before."""
        kept = bisect_right(array("Q", accumulate(self._units.packed)), max(0, end))
        self._units.keep(kept)
        del self._is_data[kept:]
        self.packed, self.size = self._units.end, self._units.size
        os.ftruncate(self._target, self.packed)
        self._crc32 = crc32_of(self._target)


def pack(source: Source, target: int, codec: Codec, crew: Crew) -> Packed:
    """Pack all of *source* into the empty open file *target*; see `Packer`."""
    packer = Packer(target, codec, crew)
    packer.run(source)
    return packer.end(source.cut)
