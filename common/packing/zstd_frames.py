"""zstd (RFC 8878) in independent frames, with the seek table of the zstd seekable format.

Sources: facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md. Each frame has
its content's size and checksum; the table is a skippable frame at the end, so any zstd reads the
file.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from functools import lru_cache

import zstandard

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import (
    BLOCK,
    MOST_PACKED,
    MOST_UNITS,
    Pack,
    Parts,
    Units,
    gathered,
    read_exactly,
)

LEVEL = 1

_SKIPPABLE = struct.Struct("<II")
_TABLE_MAGIC = 0x184D2A5E
_FOOTER = struct.Struct("<IBI")
_SEEKABLE_MAGIC = 0x8F92EAB1
_CHECKSUMS = 0x80
_RESERVED = 0x7C
_LEAST_PACKED = 9  # magic, header, an empty block's header


class ZstdFrames:
    """Packs with libzstd."""

    name: CodecName = "zstd"
    magic = b"\x28\xb5\x2f\xfd"

    def packer(self) -> Pack:
        """Give what packs a block into a frame; it keeps its working memory."""
        compress = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress

        def pack(block: memoryview) -> Parts:
            return (compress(block),)

        return pack

    def zeros(self, size: int) -> bytes:
        """Give the frame of *size* zeros."""
        return _zeros(size)

    def trailer(self, units: Units) -> bytes:
        """Give the seek table: packed and unpacked size of each frame, u32, little endian."""
        entries = array("I", [0]) * (2 * len(units))
        entries[::2] = units.packed
        entries[1::2] = array("I", (unit.size for unit in units))
        table = entries.tobytes()
        return (
            _SKIPPABLE.pack(_TABLE_MAGIC, len(table) + _FOOTER.size)
            + table
            + _FOOTER.pack(len(units), 0, _SEEKABLE_MAGIC)
        )

    def units(self, descriptor: int) -> Units:
        """Read the seek table; `CorruptError` where there is none, or not this file's."""
        end = os.fstat(descriptor).st_size
        footer = os.pread(descriptor, _FOOTER.size, max(0, end - _FOOTER.size))
        if len(footer) < _FOOTER.size or _FOOTER.unpack(footer)[2] != _SEEKABLE_MAGIC:
            raise CorruptError(f"there is no seek table at its end, byte {end}")
        number, flags, _ = _FOOTER.unpack(footer)
        width = 12 if flags & _CHECKSUMS else 8
        length = number * width + _FOOTER.size
        start = end - length - _SKIPPABLE.size
        if flags & _RESERVED or number > MOST_UNITS or start < number * _LEAST_PACKED:
            raise CorruptError(f"there cannot be {number} frames before byte {end}")
        if os.pread(descriptor, 8, start) != _SKIPPABLE.pack(_TABLE_MAGIC, length):
            raise CorruptError(f"there is no seek table of {number} frames at byte {start}")
        table = array("I", read_exactly(descriptor, number * width, start + _SKIPPABLE.size))
        units = gathered(zip(table[:: width // 4], table[1 :: width // 4], strict=True))
        if units.end != start:
            raise CorruptError(f"the seek table at byte {start} tells of {units.end} bytes")
        return units

    def walk(self, descriptor: int) -> Iterator[tuple[int, int]]:
        """Give the sizes of each frame, found by unpacking one after the other."""
        place = 0
        while data := os.pread(descriptor, MOST_PACKED, place):
            unpacker = _unpacker().decompressobj()
            try:
                size = zstandard.frame_content_size(data)
                if not 0 <= size <= BLOCK:
                    raise CorruptError(f"the frame at byte {place} is none of ours")
                unpacker.decompress(data)
            except zstandard.ZstdError as error:
                raise CorruptError(f"the frame at byte {place} is damaged: {error}") from error
            if not unpacker.eof:
                raise CorruptError(f"it ends in the middle of the frame at byte {place}")
            packed = len(data) - len(unpacker.unused_data)
            yield packed, size
            place += packed

    def unpack(self, unit: bytes, size: int) -> bytes:
        """Give the content of a frame, whose checksum is checked."""
        try:
            found = zstandard.frame_content_size(unit)
            # Nothing may be left, such as a checksum of which a damaged header does not tell.
            content = _unpacker().decompress(unit, allow_extra_data=False) if found == size else b""
        except zstandard.ZstdError as error:
            raise CorruptError(f"it is damaged: {error}") from error
        if len(content) != size:
            raise CorruptError(f"it does not hold {size} bytes")
        return content


@lru_cache(maxsize=2)
def _zeros(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(bytes(size))


def _unpacker() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=2 * BLOCK)
