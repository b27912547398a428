"""What a way of packing has to know: how one block becomes a unit, and how units are found again.

A packed core is a row of units. Each holds one block of the core, 1 MiB except where the core ends,
can be unpacked without the others, and is by itself a file of its format: a gzip member, a zstd
frame, an lz4 frame. A file of concatenated units is what any tool of that format reads.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, Protocol

from common.errors import CorruptError
from common.item import CodecName

BLOCK = 2**20
"""Bytes of a core in one unit."""
MOST_PACKED = BLOCK + BLOCK // 64
"""More bytes than a unit has, however badly its block packs."""
MOST_UNITS = 2**22
"""Of a core of 4 TiB."""

Buffer = bytes | bytearray | memoryview
Parts = tuple[Buffer, ...]
"""The bytes of a unit, in pieces that nobody joined; they may be pieces of the block itself."""
Pack = Callable[[memoryview], Parts]


class Unit(NamedTuple):
    """Where one unit stands, in bytes."""

    place: int
    """In the packed file."""
    packed: int
    start: int
    """In the core."""
    size: int


class Units:
    """The sizes of a file's units, in their order: 4 bytes for each."""

    def __init__(self) -> None:
        self.packed = array("I")
        self.end = self.size = 0
        """Where they end, in the packed file and in the core."""
        self._places = array("Q", [0])

    def __len__(self) -> int:
        return len(self.packed)

    def add(self, packed: int, size: int, times: int = 1) -> None:
        """Note *times* units of *packed* bytes that hold *size* bytes each.

        Raises `CorruptError` where no unit of ours is like that: each but the last holds a block.
        """
        is_last = len(self) > 0 and (self.size % BLOCK or not self.size or not size)
        is_odd = size > BLOCK or (times > 1 and size != BLOCK)
        if is_last or is_odd or packed > MOST_PACKED:
            raise CorruptError(f"the unit at byte {self.end} is none of ours: {packed} for {size}")
        self.packed.extend((packed,) * times)
        self.end += packed * times
        self.size += size * times

    def keep(self, number: int) -> None:
        """Forget all but the first *number*."""
        if number < len(self):
            del self.packed[number:]
            self.end, self.size = sum(self.packed), number * BLOCK
            self._places = array("Q", [0])

    def __iter__(self) -> Iterator[Unit]:
        place = 0
        for number, packed in enumerate(self.packed):
            start = number * BLOCK
            yield Unit(place, packed, start, min(BLOCK, self.size - start))
            place += packed

    def at(self, offset: int) -> Unit:
        """Give the unit that holds the core's byte *offset*, which must be less than `size`."""
        number = offset // BLOCK
        if len(self._places) <= number:
            self._places = array("Q", accumulate(self.packed, initial=0))
        start = number * BLOCK
        size = min(BLOCK, self.size - start)
        return Unit(self._places[number], self.packed[number], start, size)


class Codec(Protocol):
    """One way of packing."""

    name: CodecName
    magic: bytes
    """What its files begin with."""

    def packer(self) -> Pack:
        """Give what packs a block of at most `BLOCK` bytes into a unit; each thread has its own."""
        ...

    def zeros(self, size: int) -> bytes:
        """Give the unit of *size* zeros."""
        ...

    def trailer(self, units: Units) -> bytes:
        """Give what stands behind the *units*; no tool of the format takes it for content."""
        ...

    def units(self, descriptor: int) -> Units:
        """Find the units of the open file; `CorruptError` where it is not made of such."""
        ...

    def walk(self, descriptor: int) -> Iterator[tuple[int, int]]:
        """Give packed and unpacked size of each unit, as far as there are any, without a trailer.

        Raises `CorruptError` at the first place where there is none.
        """
        ...

    def unpack(self, unit: bytes, size: int) -> bytes:
        """Give the *size* bytes in *unit*, checked; `CorruptError` where they are not there."""
        ...


def walked(codec: Codec, descriptor: int) -> Units:
    """Find the units of the open file from one to the next; `CorruptError` where there is none."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        return gathered(codec.walk(descriptor))
    finally:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)


def gathered(sizes: Iterable[tuple[int, int]]) -> Units:
    """Gather the packed and unpacked sizes of units; `CorruptError` where one is none of ours."""
    units = Units()
    for packed, size in sizes:
        units.add(packed, size)
        if len(units) > MOST_UNITS:
            raise CorruptError(f"there are more than {MOST_UNITS} units, up to byte {units.end}")
    return units


def read_exactly(descriptor: int, size: int, place: int) -> bytes:
    """Read *size* bytes of the open file at *place*; raises `CorruptError` where it ends before."""
    data = os.pread(descriptor, size, place)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), place + len(data))
        if not more:
            raise CorruptError(f"it ends at byte {place + len(data)}, in the middle of a unit")
        data += more
    return data
