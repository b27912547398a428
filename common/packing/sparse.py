"""Zeros and holes: how they are found, and how they are written again."""

import errno
import os
from collections.abc import Iterator

from common.packing.codec import BLOCK, Buffer

PAGE = 4096

ZEROS = bytes(BLOCK)


def is_zero(block: Buffer) -> bool:
    """Say whether *block*, at most `BLOCK` bytes, is all zeros."""
    return ZEROS.startswith(block)  # several GB/s faster than comparing memoryviews


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
        if start >= size:
            return
        try:
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # the file has shrunk meanwhile
                return
            raise
        yield start, min(end, size)
        place = end


def can_seek(descriptor: int) -> bool:
    """Say whether the open file has places, so that there can be holes in it."""
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def write_data(target: int, block: Buffer, place: int) -> int:
    """Write *block* at *place* of the open file, passing over pages of zeros; give what it wrote.

    The caller sets the file's size at the end, in case the last pages were zeros.
    """
    view = memoryview(block)
    if is_zero(view):
        return 0
    written, start = 0, 0
    while start < len(view):
        end, zero = start, is_zero(view[start : start + PAGE])
        while end < len(view) and is_zero(view[end : end + PAGE]) == zero:
            end += PAGE
        end = min(end, len(view))
        if not zero:
            _write_all(target, view[start:end], place + start)
            written += end - start
        start = end
    return written


def _write_all(target: int, view: memoryview, place: int) -> None:
    while view:
        written = os.pwrite(target, view, place)
        view, place = view[written:], place + written
