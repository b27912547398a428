"""What a file is known again by: its size, its CRC-32, its SHA-256."""

import hashlib
import os
from dataclasses import dataclass

from isal import isal_zlib

_AT_ONCE = 2**20
_AHEAD = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Of a whole file."""

    size: int
    crc32: int
    sha256: str
    """64 hex digits."""


def crc32_of(descriptor: int) -> int:
    """Read the open file whole, from its beginning, for its CRC-32."""
    crc32 = place = 0
    while block := os.pread(descriptor, _AT_ONCE, place):
        crc32, place = isal_zlib.crc32(block, crc32), place + len(block)
    return crc32


def sums_of(descriptor: int) -> Sums:
    """Read the open file whole, from its beginning, and sum it up; the disk reads ahead of that."""
    crc32, size, digest, asked = 0, 0, hashlib.sha256(), 0
    while block := os.pread(descriptor, _AT_ONCE, size):
        if size + _AHEAD > asked:
            os.posix_fadvise(descriptor, asked, 2 * _AHEAD, os.POSIX_FADV_WILLNEED)
            asked += 2 * _AHEAD
        crc32 = isal_zlib.crc32(block, crc32)
        digest.update(block)
        size += len(block)
    return Sums(size=size, crc32=crc32, sha256=digest.hexdigest())
