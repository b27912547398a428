"""How a core is packed: gzip (RFC 1952) in independent members, each telling its own size.

Any gunzip reads the file. A member holds at most 1 MiB of the core, and its header's extra field
has one subfield, ``IG``, with the size of the whole member in bytes (u32, little endian), as mgzip
and pgzip write it, so that a reader can walk from header to header. Blocks of zeros are members
made once; the holes of a sparse source are never read.
"""

import errno
import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from isal import igzip, igzip_lib, isal_zlib

from common.errors import CorruptError
from common.files import write_all

BLOCK = 2**20
"""Bytes of a core in one member."""
PAGE = 4096
LEVEL = 1

_ZEROS = bytes(BLOCK)
# Magic, deflate and FEXTRA; no time; XFL 4 (fastest); Unix; 8 bytes of extra field: "IG", 4, size.
_HEADER = struct.Struct("<4sIBBH2sHI")
_TRAILER = struct.Struct("<II")


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What packing a source gave."""

    size: int
    """Bytes of the source, holes included."""
    data: int
    """Bytes of it in blocks that were not all zeros."""
    packed: int
    """Bytes written."""
    crc32: int
    """CRC-32 of the bytes written."""
    sha256: str
    """SHA-256 of the bytes written, 64 hex digits."""
    cut: bool = False
    """The source went on, and *max_data* or *max_size* did not."""


def make_member(block: bytes) -> bytes:
    """Pack *block* as one whole gzip member."""
    body = igzip_lib.compress(block, LEVEL, flag=igzip_lib.COMP_DEFLATE, hist_bits=15)
    size = _HEADER.size + len(body) + _TRAILER.size
    header = _HEADER.pack(b"\x1f\x8b\x08\x04", 0, 4, 3, 8, b"IG", 4, size)
    return header + body + _TRAILER.pack(isal_zlib.crc32(block), len(block))


@lru_cache(maxsize=2)
def _zero_member(size: int) -> bytes:
    return make_member(_ZEROS[:size])


def is_zero(block: bytes) -> bool:
    """Say whether *block* is all zeros."""
    return block == (_ZEROS if len(block) == BLOCK else bytes(len(block)))


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the ranges (start, end) of the open file that are no holes, in order."""
    place = 0
    while place < size:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, min(end, size)
        place = end


def _blocks(descriptor: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Give each block's start and length, and how much of it is in no hole."""
    ranges = data_ranges(descriptor, size)
    current = next(ranges, None)
    for start in range(0, size, BLOCK):
        end, data = min(start + BLOCK, size), 0
        while current and current[0] < end:
            data += min(current[1], end) - max(current[0], start)
            if current[1] > end:
                break
            current = next(ranges, None)
        yield start, end - start, data


class _PackedBlock(NamedTuple):
    size: int
    data: int
    member: bytes


class _Output:
    """Writes members in order, and counts and sums what it writes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self.size = self.data = self.packed = self.crc32 = 0

    def add(self, block: _PackedBlock) -> None:
        write_all(self._target, block.member)
        self.crc32 = isal_zlib.crc32(block.member, self.crc32)
        self._digest.update(block.member)
        self.packed += len(block.member)
        self.size += block.size
        self.data += block.data

    def result(self, *, cut: bool) -> Packed:
        return Packed(
            cut=cut,
            size=self.size,
            data=self.data,
            packed=self.packed,
            crc32=self.crc32,
            sha256=self._digest.hexdigest(),
        )


def pack(
    source: int,
    target: int,
    *,
    workers: int = 1,
    max_data: int = 0,
    max_size: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Packed:
    """Pack the open file *source* into the open file *target*, from its place on.

    Memory is bounded by *workers*, whatever the size. A source that grows is packed as long as it
    was; one that shrinks, as long as it still is. The core is cut short before its data (what is
    in no hole) is more than *max_data* bytes, and after *max_size* bytes; 0 is no limit. *check* is
    called before each block, and ends the packing by raising.
    """
    size = os.fstat(source).st_size
    output = _Output(target)
    pending: deque[Future[_PackedBlock]] = deque()
    taken, cut = 0, False
    with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
        try:
            for start, length, data in _blocks(source, size):
                check()
                taken += data
                if (max_data and taken > max_data) or (0 < max_size <= start):
                    cut = True
                    break
                pending.append(
                    pool.submit(_pack_block, source, start, length) if data else _hole(length)
                )
                if len(pending) > 2 * workers:
                    output.add(pending.popleft().result())
            while pending:
                output.add(pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()
    if not output.packed:  # an empty file would be no gzip file, so it is one empty member
        output.add(_PackedBlock(0, 0, make_member(b"")))
    return output.result(cut=cut)


def _pack_block(source: int, start: int, length: int) -> _PackedBlock:
    block = _read_block(source, start, length)
    if is_zero(block):
        return _PackedBlock(len(block), 0, _zero_member(len(block)) if block else b"")
    return _PackedBlock(len(block), len(block), make_member(block))


def _hole(length: int) -> Future[_PackedBlock]:
    done: Future[_PackedBlock] = Future()
    done.set_result(_PackedBlock(length, 0, _zero_member(length)))
    return done


def _read_block(source: int, start: int, length: int) -> bytes:
    block = os.pread(source, length, start)
    while len(block) < length:
        more = os.pread(source, length - len(block), start + len(block))
        if not more:
            break
        block += more
    return block


def checksum(descriptor: int) -> tuple[int, int]:
    """Give the CRC-32 and the size of the open file, as it can be read back."""
    crc, place = 0, 0
    while block := os.pread(descriptor, BLOCK, place):
        crc = isal_zlib.crc32(block, crc)
        place += len(block)
    return crc, place


def unpacked(descriptor: int) -> Iterator[bytes]:
    """Give the content of the open packed file in blocks of at most 1 MiB.

    Any gzip file will do. Raises `CorruptError` where it is not whole.
    """
    if os.fstat(descriptor).st_size == 0:
        raise CorruptError("an empty file")
    place = 0
    with open(os.dup(descriptor), "rb") as raw:
        raw.seek(0)
        file = igzip.IGzipFile(fileobj=raw, mode="rb")  # type: ignore[no-untyped-call]
        try:
            while block := file.read(BLOCK):
                yield block
                place += len(block)
        except (OSError, EOFError, igzip_lib.IsalError) as error:  # type: ignore[misc]
            raise CorruptError(f"damaged after {place} bytes of its content: {error}") from error


def restore(descriptor: int, target: int) -> int:
    """Unpack into the open file *target*, with holes for pages of zeros; give its size.

    Where *target* cannot seek (a pipe), the zeros are written.
    """
    seekable, size = _can_seek(target), 0
    for block in unpacked(descriptor):
        size += len(block)
        if seekable:
            write_sparsely(target, block)
        else:
            write_all(target, block)
    if seekable:
        os.ftruncate(target, size)
    return size


def _can_seek(descriptor: int) -> bool:
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def write_sparsely(target: int, block: bytes) -> int:
    """Write *block* at the file's place, passing over pages of zeros; give the bytes written.

    The caller sets the file's size at the end, in case the last pages were zeros.
    """
    if is_zero(block):
        os.lseek(target, len(block), os.SEEK_CUR)
        return 0
    written, start = 0, 0
    while start < len(block):
        end, zero = start, is_zero(block[start : start + PAGE])
        while end < len(block) and is_zero(block[end : end + PAGE]) == zero:
            end += PAGE
        end = min(end, len(block))
        if zero:
            os.lseek(target, end - start, os.SEEK_CUR)
        else:
            write_all(target, memoryview(block)[start:end])
            written += end - start
        start = end
    return written
