"""Where the content of a core comes from: a file, whose holes are not read, or blocks in a row."""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import CorruptError
from common.packing.codec import BLOCK
from common.packing.sparse import ZEROS, data_ranges, is_zero

MANY = sys.maxsize
MOST_ZEROS = 64
"""Blocks of a hole that are taken at once."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one thread takes on: at most `BLOCK` bytes, or a hole of up to `MOST_ZEROS` blocks."""

    size: int
    start: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    """What of it is yet to be read from a file, as (start, end) in it."""
    is_hole: bool = False


class Source(Protocol):
    """Gives a core piece by piece; each but the last is whole blocks."""

    cut: str
    """Why the core was cut short, once the last piece was claimed; empty if it was not."""

    @property
    def pieces(self) -> int:
        """At most so many pieces are to come."""
        ...

    def claim(self, buffer: bytearray) -> Claim | None:
        """Claim the next piece, or None at the end; one thread at a time calls this.

        A stream is read into *buffer* at once.
        """
        ...

    def fill(self, claim: Claim, buffer: bytearray) -> int:
        """Read what is yet to be read of *claim* into *buffer*; many threads at a time may.

        Gives the bytes that are there; fewer than were claimed mean that the core ends with them.
        """
        ...


@dataclass(slots=True)
class FileSource:
    """An open file from its beginning on, as long as it is now. Its holes are not read.

    It is cut short before its data (what is in no hole) is more than *max_data* bytes, and after
    *max_size* bytes; 0 is no limit.
    """

    descriptor: int
    max_data: int = 0
    max_size: int = 0
    cut: str = field(default="", init=False)
    size: int = field(init=False)
    _place: int = field(default=0, init=False)
    _data: int = field(default=0, init=False)
    _ranges: Iterator[tuple[int, int]] = field(init=False)
    _next: deque[tuple[int, int]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self.size = os.fstat(self.descriptor).st_size
        self._ranges = data_ranges(self.descriptor, self.size)

    @property
    def pieces(self) -> int:
        """As many as there would be without holes."""
        return -(-self.size // BLOCK)

    def claim(self, buffer: bytearray) -> Claim | None:  # noqa: ARG002  # `fill` reads
        """Claim the next block, or the next blocks that are in a hole."""
        start = self._place
        self._note_size()
        if start >= self.size or self.cut:
            return None
        if 0 < self.max_size <= start:
            self.cut = too_long(self.max_size)
            return None
        end = min(start + BLOCK, self.size)
        ranges = self._ranges_until(end)
        if not ranges:
            self._note_size()  # where a file has just shrunk, there is no hole
            return self._claim_hole(start) if start < self.size else None
        self._data += sum(end - start for start, end in ranges)
        if 0 < self.max_data < self._data:
            self.cut = too_much_data(self.max_data)
            return None
        self._place = end
        return Claim(end - start, start, ranges)

    def _note_size(self) -> None:
        self.size = min(self.size, os.fstat(self.descriptor).st_size)

    def _claim_hole(self, start: int) -> Claim:
        """Claim whole blocks up to the next data, or the last one."""
        following = self._next[0][0] if self._next else self.size
        whole = (following - start) // BLOCK * BLOCK
        size = min(whole or self.size - start, MOST_ZEROS * BLOCK)
        if self.max_size:
            size = min(size, -(-(self.max_size - start) // BLOCK) * BLOCK)
        self._place = start + size
        return Claim(size, start, is_hole=True)

    def _ranges_until(self, end: int) -> tuple[tuple[int, int], ...]:
        """Take the ranges of data that begin before *end*; what is behind it stays for later."""
        found = []
        while (following := self._following()) and following[0] < end:
            self._next.popleft()
            found.append((following[0], min(following[1], end)))
            if following[1] > end:
                self._next.append((end, following[1]))
                break
        return tuple(found)

    def _following(self) -> tuple[int, int] | None:
        if not self._next and (following := next(self._ranges, None)):
            self._next.append(following)
        return self._next[0] if self._next else None

    def fill(self, claim: Claim, buffer: bytearray) -> int:
        """Read the data of *claim*; where the file has shrunk, it ends sooner."""
        if claim.ranges != ((claim.start, claim.start + claim.size),):
            buffer[: claim.size] = ZEROS[: claim.size]
        view = memoryview(buffer)
        for start, end in claim.ranges:
            while start < end:
                got = os.preadv(
                    self.descriptor, [view[start - claim.start : end - claim.start]], start
                )
                if not got:
                    return start - claim.start
                start += got
        return claim.size


@dataclass(slots=True)
class StreamSource:
    """Blocks of any size in a row.

    It is cut short before its data (blocks that are not all zeros) is more than *max_data* bytes,
    after *max_size* bytes, and where the blocks turn out damaged (`CorruptError`).
    """

    blocks: Iterable[bytes]
    max_data: int = 0
    max_size: int = 0
    cut: str = field(default="", init=False)
    size: int = field(default=0, init=False)
    """Bytes that were claimed so far."""
    _data: int = field(default=0, init=False)
    _left: memoryview = field(default=memoryview(b""), init=False)
    _iterator: Iterator[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._iterator = iter(self.blocks)

    @property
    def pieces(self) -> int:
        """Nobody knows."""
        return MANY

    def claim(self, buffer: bytearray) -> Claim | None:
        """Claim a block, which is put together from what comes."""
        if self.cut:
            return None
        size = 0
        while size < BLOCK and (self._left or self._go_on()):
            piece = self._left[: BLOCK - size]
            buffer[size : size + len(piece)] = piece
            size += len(piece)
            self._left = self._left[len(piece) :]
        if not size:
            return None
        self._data += 0 if is_zero(memoryview(buffer)[:size]) else size
        if 0 < self.max_data < self._data:
            self.cut = too_much_data(self.max_data)
        elif 0 < self.max_size <= self.size:
            self.cut = too_long(self.max_size)
        else:
            self.size += size
            return Claim(size)
        return None

    def _go_on(self) -> bool:
        try:
            self._left = memoryview(next((block for block in self._iterator if block), b""))
        except CorruptError as error:
            self.cut = str(error)
        return bool(self._left)

    def fill(self, claim: Claim, buffer: bytearray) -> int:  # noqa: ARG002  # `claim` has read
        """Give what was claimed: it is there already."""
        return claim.size


def too_much_data(limit: int) -> str:
    """Say why a core was cut short that has more data than may be."""
    return f"it has more than {limit} bytes of data"


def too_long(limit: int) -> str:
    """Say why a core was cut short that is longer than it may be."""
    return f"it is longer than {limit} bytes"
