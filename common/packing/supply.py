"""Bytes in their order, taken in measured portions from what gives them in pieces."""

import os
from collections.abc import Iterator

from common.errors import CorruptError

PIECE = 2**18
"""Bytes read from a file at once."""


class Supply:
    """Holds one piece at a time, and knows where it stands.

    *pieces* are pairs: the piece's place in the packed file, and its bytes.
    """

    def __init__(self, pieces: Iterator[tuple[int, bytes]]) -> None:
        self._pieces = pieces
        self._start, self._piece = 0, b""
        self._used = 0

    @classmethod
    def of_file(cls, descriptor: int) -> "Supply":
        """Supply the open file from its beginning; its own place stays as it is."""
        return cls(_pieces_of(descriptor))

    @property
    def place(self) -> int:
        """Where the next byte stands in the packed file, or (in a report) just before it."""
        return self._start + self._used

    def some(self, most: int) -> bytes:
        """Give at least one byte and at most *most*; none at all only at the end."""
        while self._used >= len(self._piece):
            found = next(self._pieces, None)
            if found is None:
                return b""
            (self._start, self._piece), self._used = found, 0
        part = self._piece[self._used : self._used + most]
        self._used += len(part)
        return part

    def put_back(self, data: bytes) -> None:
        """Take back *data*, which `some` gave last."""
        if len(data) <= self._used:
            self._used -= len(data)
        else:  # it spans two pieces
            place = max(0, self.place - len(data))
            self._piece, self._used = data + self._piece[self._used :], 0
            self._start = place

    def take(self, size: int) -> bytes:
        """Give *size* bytes, or what there is of them."""
        part = self.some(size)
        if len(part) == size:
            return part
        data = bytearray(part)
        while len(data) < size and (part := self.some(size - len(data))):
            data += part
        return bytes(data)

    def exactly(self, size: int, what: str) -> bytes:
        """Give *size* bytes of *what*; raises `CorruptError` where it ends before."""
        data = self.take(size)
        if len(data) < size:
            raise self.ended(what)
        return data

    def ended(self, what: str) -> CorruptError:
        """Make the error that says that it ends in the middle of *what*."""
        return CorruptError(f"it ends in the middle of {what}, at byte {self.place}")

    def peek(self, size: int) -> bytes:
        """Give the next *size* bytes, or what there is of them, without taking them."""
        data = self.take(size)
        self.put_back(data)
        return data

    def skip(self, size: int, what: str) -> None:
        """Pass over *size* bytes of *what*; raises `CorruptError` where it ends before."""
        while size:
            part = self.some(min(size, PIECE))
            if not part:
                raise self.ended(what)
            size -= len(part)

    def skip_past_zero(self, what: str) -> None:
        """Pass over *what*, which goes on to the first zero byte."""
        while part := self.some(PIECE):
            _, zero, rest = part.partition(b"\0")
            if zero:
                self.put_back(rest)
                return
        raise self.ended(what)

    def skip_zeros(self) -> int:
        """Pass over the zero bytes that stand here; say how many there were."""
        size = 0
        if self.peek(1) != b"\0":
            return 0
        while part := self.some(PIECE):
            rest = part.lstrip(b"\0")
            size += len(part) - len(rest)
            if rest:
                self.put_back(rest)
                break
        return size


def _pieces_of(descriptor: int) -> Iterator[tuple[int, bytes]]:
    place = 0
    while piece := os.pread(descriptor, PIECE, place):
        yield place, piece
        place += len(piece)


def named(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the *blocks*; an error among them further says what was damaged, and how much came."""
    given = 0
    try:
        for block in blocks:
            yield block
            given += len(block)
    except CorruptError as error:
        raise CorruptError(f"damaged {name}: {error}, after {given} bytes of content") from error
