"""How gzip, zlib and xz are unpacked when nothing in them can be trusted.

Their decoders bound what they give back at once; nothing else bounds what a byte may become. Each
function here takes a `Supply` and gives blocks of at most `STEP` bytes. It raises `CorruptError`
that says what is wrong and at which byte, once it has given what was decoded before: all but what
the last step had made, since a decoder that finds damage gives back nothing.
"""

import lzma
from collections.abc import Iterator
from typing import Protocol

from isal import igzip_lib, isal_zlib

from common.errors import CorruptError
from common.packing.supply import Supply

STEP = 2**16
"""Bytes a decoder is given at once, and bytes that it may give back at once."""

MOST_WINDOW = 2**27
"""Bytes that a format may ask to have remembered, as much as ``zstd --long`` does."""

_FIRST_STEP = 2**9  # so that a row of tiny members is not copied 64 KiB at a time
_DECODER = 2**20  # what liblzma needs beside the window


class _Unpacker(Protocol):
    """A decoder of the standard library's kind."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def gzip(supply: Supply) -> Iterator[bytes]:
    """Unpack the members of RFC 1952; zeros may stand behind the last, as for the tool."""
    yield from _member(supply)
    while not supply.skip_zeros():
        if not supply.peek(1):
            return
        yield from _member(supply)
    if supply.peek(1):
        raise CorruptError(f"garbage behind its padding, at byte {supply.place}")


def _member(supply: Supply) -> Iterator[bytes]:
    _skip_member_header(supply)
    crc32 = size = 0
    for block in _inflate(supply):
        crc32, size = isal_zlib.crc32(block, crc32), size + len(block)
        yield block
    place = supply.place
    trailer = supply.exactly(8, "a member's trailer")
    if int.from_bytes(trailer[:4], "little") != crc32:
        raise CorruptError(f"a member has another CRC-32 than its trailer at byte {place} says")
    if int.from_bytes(trailer[4:], "little") != size % 2**32:
        raise CorruptError(f"a member has another size than its trailer at byte {place} says")


def _skip_member_header(supply: Supply) -> None:
    place, what = supply.place, "a member's header"
    if not (start := supply.take(2)) or not b"\x1f\x8b".startswith(start):
        raise CorruptError(f"garbage where a member should begin, at byte {place}")
    method, flags, *_ = supply.exactly(8, what)
    if method != 8 or flags & 0xE0:
        raise CorruptError(f"a member's header is not one of deflate, at byte {place}")
    if flags & 4:  # FEXTRA
        supply.skip(int.from_bytes(supply.exactly(2, what), "little"), what)
    for flag in 8, 16:  # FNAME, FCOMMENT
        if flags & flag:
            supply.skip_past_zero(what)
    if flags & 2:  # FHCRC
        supply.skip(2, what)


def zlib(supply: Supply) -> Iterator[bytes]:
    """Unpack one zlib stream (RFC 1950)."""
    place = supply.place
    method, flags = supply.exactly(2, "the header")
    if not is_zlib(bytes([method, flags])) or flags & 0x20:
        raise CorruptError(f"its header cannot be, or needs a dictionary, at byte {place}")
    adler32 = 1
    for block in _inflate(supply):
        adler32 = isal_zlib.adler32(block, adler32)
        yield block
    place = supply.place
    if int.from_bytes(supply.exactly(4, "the trailer"), "big") != adler32:
        raise CorruptError(f"it has another Adler-32 than its trailer at byte {place} says")
    if supply.peek(1):
        raise CorruptError(f"garbage behind it, at byte {supply.place}")


def is_zlib(start: bytes) -> bool:
    """Say whether a zlib stream may start so: deflate, and a header divisible by 31."""
    return len(start) >= 2 and start[0] & 0x8F == 8 and int.from_bytes(start[:2], "big") % 31 == 0


def _inflate(supply: Supply) -> Iterator[bytes]:
    unpacker = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
    error = igzip_lib.IsalError  # isal's stub has it as an exception, not as a class of them
    return _drive(unpacker, supply, error, "a deflate stream")  # type: ignore[arg-type]


def xz(supply: Supply) -> Iterator[bytes]:
    """Unpack streams (the .xz file format 1.2), and padding between and behind them."""
    while True:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_WINDOW + _DECODER)
        yield from _drive(unpacker, supply, lzma.LZMAError, "a stream")
        place = supply.place
        if supply.skip_zeros() % 4:
            raise CorruptError(f"the padding at byte {place} is not a multiple of four bytes")
        if not supply.peek(1):
            return


def _drive(
    unpacker: _Unpacker, supply: Supply, errors: type[Exception], what: str
) -> Iterator[bytes]:
    """Feed *unpacker* up to the end of its stream, and put back what stands behind that."""
    most, place = _FIRST_STEP, supply.place
    while not unpacker.eof:
        data = b""
        if unpacker.needs_input:
            place = supply.place
            if not (data := supply.some(most)):
                raise supply.ended(what)
            most = min(2 * most, STEP)
        try:
            block = unpacker.decompress(data, STEP)
        except errors as error:
            raise CorruptError(f"{what} is damaged behind byte {place}: {error}") from error
        if block:
            yield block
    supply.put_back(unpacker.unused_data)
