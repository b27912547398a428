"""Where the content of a core comes from: a file, whose holes are not read, or blocks in a row."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

from common.errors import CorruptError, TruncatedError
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
    """Zeros: nothing is to be read."""


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
class Allowance:
    """How much of a core is taken, in bytes of data (what is no hole) and in all; 0 is no limit."""

    max_data: int = 0
    max_size: int = 0
    _data: int = field(default=0, init=False)

    def refusal(self, start: int, data: int) -> str:
        """Say why the next piece is not taken, of which *data* bytes are data; empty if it is.

        It begins at byte *start* of the core.
        """
        self._data += data
        if 0 < self.max_size <= start:
            return f"it is longer than {self.max_size} bytes"
        if 0 < self.max_data < self._data:
            return f"it has more than {self.max_data} bytes of data"
        return ""


class RangeSource:
    """What can be read at any place: *size* bytes, of which only the *ranges* are no holes.

    *ranges* are (start, end), in order. *read* fills a view from a place on, and gives the bytes; 0
    where there is nothing any more. It is called by many threads at a time.
    """

    def __init__(
        self,
        size: int,
        ranges: Iterator[tuple[int, int]],
        read: Callable[[memoryview, int], int],
        allowance: Allowance | None = None,
    ) -> None:
        self.cut = ""
        self.size = size
        self._ranges = ranges
        self._read = read
        self._allowance = allowance or Allowance()
        self._place = 0
        self._next = deque[tuple[int, int]]()

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
        end = min(start + BLOCK, self.size)
        ranges = self._ranges_until(end)
        self.cut = self._allowance.refusal(start, sum(end - start for start, end in ranges))
        if self.cut:
            return None
        if not ranges:
            self._note_size()  # where a file has just shrunk, there is no hole
            return self._claim_hole(start) if start < self.size else None
        self._place = end
        return Claim(end - start, start, ranges)

    def _note_size(self) -> None:
        """Note that there is less than there was."""

    def _claim_hole(self, start: int) -> Claim:
        """Claim whole blocks up to the next data, or the last one."""
        following = self._next[0][0] if self._next else self.size
        whole = (following - start) // BLOCK * BLOCK
        size = min(whole or self.size - start, MOST_ZEROS * BLOCK)
        if most := self._allowance.max_size:
            size = min(size, -(-(most - start) // BLOCK) * BLOCK)
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
        """Read the data of *claim*; where there is no more, it ends sooner."""
        if claim.ranges != ((claim.start, claim.start + claim.size),):
            buffer[: claim.size] = ZEROS[: claim.size]
        view = memoryview(buffer)
        for start, end in claim.ranges:
            while start < end:
                got = self._read(view[start - claim.start : end - claim.start], start)
                if not got:
                    return start - claim.start
                start += got
        return claim.size


class FileSource(RangeSource):
    """An open file from its beginning on, as long as it is now. Its holes are not read."""

    def __init__(self, descriptor: int, allowance: Allowance | None = None) -> None:
        size = os.fstat(descriptor).st_size
        super().__init__(size, data_ranges(descriptor, size), self._read_file, allowance)
        self._descriptor = descriptor

    def _read_file(self, view: memoryview, start: int) -> int:
        return os.preadv(self._descriptor, [view], start)

    def _note_size(self) -> None:
        self.size = min(self.size, os.fstat(self._descriptor).st_size)


@dataclass(slots=True)
class StreamSource:
    """What comes in a row: *read* fills a view as far as there is something, and gives its bytes.

    0 is the end. Where *read* raises `CorruptError` or `TruncatedError`, the core is cut short for
    that reason.
    """

    read: Callable[[memoryview], int]
    allowance: Allowance = field(default_factory=Allowance)
    cut: str = field(default="", init=False)
    _size: int = field(default=0, init=False)
    _is_ended: bool = field(default=False, init=False)

    @classmethod
    def of(cls, blocks: Iterable[bytes], allowance: Allowance | None = None) -> Self:
        """Give a source of *blocks* of any size."""
        return cls(_Row(blocks).read, allowance or Allowance())

    @property
    def pieces(self) -> int:
        """Nobody knows."""
        return MANY

    def claim(self, buffer: bytearray) -> Claim | None:
        """Claim the next block, once it has come whole; one that has not is the last."""
        with memoryview(buffer) as view:
            size = self._fill(view)
            if not size:
                return None
            is_hole = is_zero(view[:size])
        if why := self.allowance.refusal(self._size, 0 if is_hole else size):
            self.cut = why
            return None
        self._size += size
        return Claim(size, is_hole=is_hole)

    def _fill(self, view: memoryview) -> int:
        size = 0
        try:
            while size < len(view) and not self._is_ended and not self.cut:
                got = self.read(view[size:])
                self._is_ended = not got
                size += got
        except (CorruptError, TruncatedError) as error:
            self.cut = str(error)
        return size

    def fill(self, claim: Claim, buffer: bytearray) -> int:  # noqa: ARG002  # `claim` has read
        """Give what was claimed: it is there already."""
        return claim.size


class _Row:
    """Reads blocks one after the other."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._left = memoryview(b"")

    def read(self, view: memoryview) -> int:
        if not self._left:
            self._left = memoryview(next((block for block in self._blocks if block), b""))
        piece = self._left[: len(view)]
        view[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)
