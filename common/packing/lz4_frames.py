"""lz4 in independent frames of one block, each with its content's size and checksum.

Source: lz4/lz4, doc/lz4_Frame_format.md. A reader walks from frame to frame; any lz4 reads all.
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from lz4 import frame

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import Pack, Parts, Units, walked

# Magic, FLG, BD, content size, header checksum, size of the only block.
_HEADER = struct.Struct("<IBBQBI")
_EMPTY_HEADER = struct.Struct("<IBBBI")  # nothing in it: no content size, and the end mark at once
_MAGIC = 0x184D2204
_FLAGS = 0b01_1_0_1_1_0_0  # version 1, independent blocks, content size, content checksum
_EMPTY_FLAGS = 0b01_1_0_0_1_0_0
_STORED = 1 << 31
_TAIL = 8  # the end mark, the content's checksum


class Lz4Frames:
    """Packs with liblz4."""

    name: CodecName = "lz4"
    magic = _MAGIC.to_bytes(4, "little")

    def packer(self) -> Pack:
        """Give what packs a block into a frame."""
        return _pack

    def zeros(self, size: int) -> bytes:
        """Give the frame of *size* zeros."""
        return _zeros(size)

    def trailer(self, units: Units) -> bytes:  # noqa: ARG002  # each frame tells its own size
        """Give nothing: frames need no trailer."""
        return b""

    def units(self, descriptor: int) -> Units:
        """Walk over the headers; raises `CorruptError` where there is none of ours."""
        return walked(self, descriptor)

    def walk(self, descriptor: int) -> Iterator[tuple[int, int]]:
        """Give the sizes of each frame; raises `CorruptError` where there is no header of ours."""
        end, place = os.fstat(descriptor).st_size, 0
        while place < end or not place:
            packed, size = _sizes_in(os.pread(descriptor, _HEADER.size, place), place)
            if place + packed > end:
                raise CorruptError(f"it ends in the middle of the frame at byte {place}")
            yield packed, size
            place += packed

    def unpack(self, unit: bytes, size: int) -> bytes:
        """Give the content of a frame, whose checksum is checked."""
        if _sizes_in(unit[: _HEADER.size], 0) != (len(unit), size):
            raise CorruptError(f"it does not hold {size} bytes")
        try:
            content: bytes = frame.decompress(unit)
        except (RuntimeError, MemoryError) as error:
            raise CorruptError(f"it is damaged: {error}") from error
        if len(content) != size:
            raise CorruptError(f"it holds {len(content)} bytes, not {size}")
        return content


def _pack(block: memoryview) -> Parts:
    return (
        frame.compress(
            block,
            block_size=frame.BLOCKSIZE_MAX1MB,
            block_linked=False,
            content_checksum=True,
            store_size=True,
        ),
    )


@lru_cache(maxsize=2)
def _zeros(size: int) -> bytes:
    return bytes(_pack(memoryview(bytes(size)))[0])


def _sizes_in(header: bytes, place: int) -> tuple[int, int]:
    """Read the packed and the unpacked size of the frame that *header* begins, at *place*."""
    if len(header) == _HEADER.size:
        magic, flags, _, size, _, block = _HEADER.unpack(header)
        if (magic, flags) == (_MAGIC, _FLAGS):
            return _HEADER.size + (block & ~_STORED) + _TAIL, size
    if len(header) >= _EMPTY_HEADER.size:
        magic, flags, _, _, block = _EMPTY_HEADER.unpack_from(header)
        if (magic, flags, block) == (_MAGIC, _EMPTY_FLAGS, 0):
            return _EMPTY_HEADER.size - 4 + _TAIL, 0
    raise CorruptError(f"there is no header of a frame at byte {place}")
