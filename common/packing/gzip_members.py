"""gzip (RFC 1952) in independent members, each telling its own size.

A member's header has an extra field with one subfield, ``IG``: the size of the whole member in
bytes (u32, little endian), as mgzip and pgzip write it, so that a reader walks from header to
header. What does not pack is recognised by a probe, and stored (RFC 1951, 3.2.4).
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from isal import igzip_lib, isal_zlib

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import Buffer, Pack, Parts, Units, walked

LEVEL = 1

# Magic, deflate and FEXTRA; no time; XFL 4 (fastest); Unix; 8 bytes of extra field: "IG", 4, size.
_HEADER = struct.Struct("<4sIBBH2sHI")
_START = b"\x1f\x8b\x08\x04"
_TRAILER = struct.Struct("<II")
_AROUND = _HEADER.size + _TRAILER.size

_STORED = struct.Struct("<BHH")
_MOST_STORED = 2**16 - 1
_SAMPLE = 4096
_SAMPLES = 4
_PACKED_PARTS = 3
"""Parts of a member that is not stored: header, deflate stream, trailer."""
_WORTH_IT = 0.96
"""What packs to more than this part of its size is stored."""


class GzipMembers:
    """Packs with ISA-L."""

    name: CodecName = "gzip"
    magic = b"\x1f\x8b"

    def packer(self) -> Pack:
        """Give what packs a block into a member; it probes while blocks turn out not to pack."""
        is_probing = False

        def pack(block: memoryview) -> Parts:
            nonlocal is_probing
            member = make_member(block, is_probing=is_probing)
            is_probing = len(member) > _PACKED_PARTS
            return member

        return pack

    def zeros(self, size: int) -> bytes:
        """Give the member of *size* zeros."""
        return _zeros(size)

    def trailer(self, units: Units) -> bytes:  # noqa: ARG002  # each member tells its own size
        """Give nothing: members need no trailer."""
        return b""

    def units(self, descriptor: int) -> Units:
        """Walk over the headers; raises `CorruptError` where there is none of ours."""
        return walked(self, descriptor)

    def walk(self, descriptor: int) -> Iterator[tuple[int, int]]:
        """Give the sizes of each member: at each step one's end and the next one's header are read.

        Raises `CorruptError` where there is no header of ours.
        """
        end, place = os.fstat(descriptor).st_size, 0
        header = os.pread(descriptor, _HEADER.size, 0)
        while place < end or not place:
            packed = _size_in(header, place)
            place += packed
            tail = os.pread(descriptor, _AROUND, place - _TRAILER.size)
            if len(tail) < _TRAILER.size:
                raise CorruptError(f"it ends in the middle of the member at byte {place - packed}")
            yield packed, _TRAILER.unpack_from(tail)[1]
            header = tail[_TRAILER.size :]

    def unpack(self, unit: bytes, size: int) -> bytes:
        """Give the content of a member, whose CRC-32 is checked."""
        body = memoryview(unit)[_HEADER.size : -_TRAILER.size]
        unpacker = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
        try:
            content: bytes = unpacker.decompress(body, size + 1)
        except igzip_lib.IsalError as error:  # type: ignore[misc]
            raise CorruptError(f"its deflate stream is damaged: {error}") from error
        crc32, length = _TRAILER.unpack_from(unit, len(unit) - _TRAILER.size)
        if len(content) != size or length != size or not unpacker.eof or unpacker.unused_data:
            raise CorruptError(f"it does not hold {size} bytes")
        if isal_zlib.crc32(content) != crc32:
            raise CorruptError("its CRC-32 is another")
        return content


def make_member(block: Buffer, *, is_probing: bool = False) -> Parts:
    """Pack *block* as one whole gzip member, stored where a probe or the packing shows no gain."""
    view = memoryview(block)
    is_random = is_probing and _is_random(view)
    body: Parts = () if is_random else (igzip_lib.compress(view, LEVEL),)
    if not body or len(body[0]) > len(view) * _WORTH_IT:
        body = _stored(view)
    size = _AROUND + sum(map(len, body))
    header = _HEADER.pack(_START, 0, 4, 3, 8, b"IG", 4, size)
    return (header, *body, _TRAILER.pack(isal_zlib.crc32(view), len(view)))


@lru_cache(maxsize=2)
def _zeros(size: int) -> bytes:
    return b"".join(make_member(bytes(size)))


def _size_in(header: bytes, place: int) -> int:
    """Read the size of the member that *header* begins; it stands at *place*."""
    if len(header) == _HEADER.size:
        start, _, _, _, extra, name, length, size = _HEADER.unpack(header)
        if (start, extra, name, length) == (_START, 8, b"IG", 4) and size >= _AROUND:
            return int(size)
    raise CorruptError(f"there is no header of a member at byte {place}")


def _is_random(block: memoryview) -> bool:
    """Say whether *block* would not pack, by samples taken evenly from it."""
    step = len(block) // _SAMPLES
    if step < _SAMPLE:
        return False
    sample = b"".join(block[place : place + _SAMPLE] for place in range(0, step * _SAMPLES, step))
    return len(igzip_lib.compress(sample, LEVEL)) > len(sample) * _WORTH_IT


def _stored(block: memoryview) -> Parts:
    """Write *block* as deflate blocks that are not packed; the last is marked."""
    parts: list[Buffer] = []
    for start in range(0, max(1, len(block)), _MOST_STORED):
        piece = block[start : start + _MOST_STORED]
        is_last = start + len(piece) == len(block)
        parts += _STORED.pack(is_last, len(piece), len(piece) ^ 0xFFFF), piece
    return tuple(parts)
