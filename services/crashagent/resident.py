"""Take a core from the process's own memory: only what is there, and as fast as it is read.

The kernel streams every page that was ever mapped, as zeros where nobody touched it, and holds the
process for as long as that takes. But its stream begins with the ELF headers and the notes; they
say where each segment of memory stands in the core. So only they are read from the stream. The
pages come from /proc/<pid>/mem, as far as the page tables have any, while the kernel waits for its
stream to be read on.

Sources: elf(5); proc_pid_mem(5), proc_pid_pagemap(5), proc_pid_maps(5); the kernel's
Documentation/admin-guide/mm/pagemap.rst for PAGEMAP_SCAN, and fs/coredump.c for what it leaves out.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple, Self

from common.errors import CollectorError, TruncatedError
from common.packing.sources import Allowance, RangeSource
from common.packing.sparse import PAGE
from services.crashagent.devices import Devices
from services.crashagent.process import Held

_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("=IIQQQQQQ")
_IDENT = b"\x7fELF\x02" + (b"\x01" if struct.pack("=H", 1) == b"\1\0" else b"\x02")
_CORE, _LOAD, _NOTE, _MANY = 4, 1, 4, 0xFFFF
_MOST_HEAD = 16 * 2**20
"""Bytes of headers and notes; a core with more is taken as it streams."""
_BUFFERED = 4 * 2**20
"""A core that is shorter may be in the stream whole, though its process has ended."""
_HIGHEST = 2**63
"""Addresses from here on cannot be read: [vsyscall], which no longer has anything to read."""

_PAGEMAP_SCAN = 0xC0606610
_PRESENT, _SWAPPED, _PFNZERO = 1 << 3, 1 << 4, 1 << 5
_REGIONS = 1024
_JOINED = 16 * PAGE
"""Ranges with less than this between them are read at once."""
_ENTRIES = 8192
_IS_THERE = 3 << 62  # present, or swapped

_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (.{4}) [0-9a-f]+ (\S+) (\d+) *(.*)")


class CaptureError(CollectorError):
    """Memory cannot be taken so. Nothing of the stream is lost: it is read on."""


class _Segment(NamedTuple):
    """A PT_LOAD of the core: *size* bytes at *offset* are the memory from *address* on."""

    offset: int
    address: int
    size: int


class Head(NamedTuple):
    """What comes first in a core's stream, and the segments it tells of."""

    data: bytes
    segments: tuple[_Segment, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole core."""
        return max(segment.offset + segment.size for segment in self.segments)


class Stream:
    """Reads the beginning of a stream, and gives it again to who reads the stream itself."""

    def __init__(self, read: Callable[[memoryview], int]) -> None:
        self._read = read
        self._taken = bytearray()
        self._given = 0

    def take(self, size: int) -> bytes:
        """Give the stream's first *size* bytes; raises `CaptureError` where it is shorter."""
        while len(self._taken) < size:
            piece = bytearray(min(size - len(self._taken), 2**20))
            got = self._read(memoryview(piece))
            if not got:
                raise CaptureError("the stream ends in its headers")
            self._taken += piece[:got]
        return bytes(self._taken[:size])

    def read(self, view: memoryview) -> int:
        """Read on, from the beginning: what was taken comes once more."""
        left = memoryview(self._taken)[self._given :]
        if not left:
            return self._read(view)
        piece = left[: len(view)]
        view[: len(piece)] = piece
        self._given += len(piece)
        return len(piece)


def read_head(stream: Stream) -> Head:
    """Read headers and notes; raises `CaptureError` where they are not as this kernel's are."""
    header = stream.take(_HEADER.size)
    ident, kind, _, _, _, place, *_, width, number, _, _, _ = _HEADER.unpack(header)
    if not ident.startswith(_IDENT) or kind != _CORE or width != _SEGMENT.size:
        raise CaptureError("it is no core of a 64-bit process")
    if number == _MANY or place != _HEADER.size:
        raise CaptureError("its headers are not where they are looked for")
    table = stream.take(place + number * width)[place:]
    loads, end = [], len(table) + place
    for kind, _, offset, address, _, size, _, _ in _SEGMENT.iter_unpack(table):
        if kind == _NOTE:
            end = max(end, offset + size)
        elif kind == _LOAD and size:
            loads.append(_Segment(offset, address, size))
    _check(loads, end)
    return Head(stream.take(end), tuple(loads))


def _check(loads: list[_Segment], end: int) -> None:
    if not loads or end > _MOST_HEAD:
        raise CaptureError(f"its headers tell of {len(loads)} segments behind {end} bytes")
    for segment in loads:
        if segment.offset < end or segment.offset % PAGE or segment.address % PAGE:
            raise CaptureError(f"its segment at byte {segment.offset} cannot be there")
        end = segment.offset + segment.size


class Memory:
    """Owns the descriptors by which the memory of a held process is read."""

    def __init__(self, held: Held, head: Head) -> None:
        """Open them; raises `CaptureError` where that is not allowed, or the layout is another."""
        self._head = head
        self._places = [segment.offset for segment in head.segments]
        with ExitStack() as stack:
            try:
                self._mem = held.open("mem")
                stack.callback(os.close, self._mem)
                self._pagemap = held.open("pagemap")
                stack.callback(os.close, self._pagemap)
                mappings = read_mappings(held.read_all("maps"))
                devices = Devices.seen_by(held)
            except OSError as error:
                raise CaptureError(f"its memory cannot be opened: {error.strerror}") from error
            self._untouched = {start for start, mapping in mappings.items() if mapping.is_anonymous}
            for segment in head.segments:
                mapping = mappings.get(segment.address)
                if mapping is None or mapping.end < segment.address + segment.size:
                    raise CaptureError(f"there is no mapping at {segment.address:#x}")
                if not devices.is_local(mapping.device):
                    raise CaptureError(f"what is at {segment.address:#x} may take for ever to read")
                if segment.address >= _HIGHEST and mapping.is_readable:
                    raise CaptureError(f"what is at {segment.address:#x} cannot be read")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def source(self, allowance: Allowance) -> RangeSource:
        """Give the core as a source; reading it raises `CaptureError` once the process is gone."""
        return RangeSource(self._head.size, self._ranges(), self._read, allowance)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        yield 0, len(self._head.data)
        for segment in self._head.segments:
            if segment.address >= _HIGHEST:
                continue
            first, end = segment.address, segment.address + segment.size
            there: Iterable[tuple[int, int]] = [(first, end)]
            if first in self._untouched:
                there = _joined(present(self._pagemap, first, end))
            for start, stop in there:
                yield start - first + segment.offset, stop - first + segment.offset

    def _read(self, view: memoryview, start: int) -> int:
        number = bisect_right(self._places, start) - 1
        if number < 0:
            piece = self._head.data[start : start + len(view)]
            view[: len(piece)] = piece
            return len(piece)
        segment = self._head.segments[number]
        address = segment.address + start - segment.offset
        try:
            got = os.preadv(self._mem, [view], address)
        except OSError as error:
            if error.errno not in {errno.EIO, errno.EFAULT}:
                raise CaptureError(f"its memory cannot be read: {error.strerror}") from error
            # A page that nobody can read: the kernel has zeros in its place, too.
            size = min(len(view), PAGE - address % PAGE)
            view[:size] = bytes(size)
            return size
        if not got and start < _BUFFERED:
            raise CaptureError("the process was gone before its memory was read")
        if not got:
            raise TruncatedError("the process was killed while its memory was read")
        return got


class Mapping(NamedTuple):
    """A line of /proc/<pid>/maps."""

    end: int
    is_readable: bool
    is_anonymous: bool
    """Whether a page that was never touched is zeros: it is private, and of no file."""
    device: str
    """Of its file, as ``major:minor``; ``00:00`` without one."""


def read_mappings(text: bytes) -> dict[int, Mapping]:
    """Read /proc/<pid>/maps; each mapping stands under its first address."""
    mappings = {}
    for line in text.split(b"\n"):
        if found := _MAPPING.fullmatch(line):
            start, end, allowed, device, inode, name = found.groups()
            is_plain = not name or name == b"[heap]" or name.startswith((b"[stack", b"[anon:"))
            is_anonymous = inode == b"0" and allowed[3:] == b"p" and is_plain
            mappings[int(start, 16)] = Mapping(
                int(end, 16), allowed[:1] == b"r", is_anonymous, device.decode()
            )
    return mappings


def present(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of addresses between *start* and *end* that have pages, in memory or swap.

    Pages that were only ever read are all the one page of zeros, and are passed over where the
    kernel tells.
    """
    try:
        yield from _scanned(pagemap, start, end)
    except OSError as error:
        if error.errno not in {errno.ENOTTY, errno.EINVAL}:
            raise CaptureError(f"its page tables cannot be read: {error.strerror}") from error
        yield from _listed(pagemap, start, end)  # before Linux 6.7


def _scanned(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    regions = (ctypes.c_uint64 * (3 * _REGIONS))()
    while start < end:
        # struct pm_scan_arg: size, flags, start, end, where it ended, vec, vec_len, max_pages, and
        # the categories: which are inverted, all wanted, any wanted, told of.
        target = ctypes.addressof(regions)
        argument = array("Q", (96, 0, start, end, 0, target, _REGIONS, 0))
        argument.extend((_PFNZERO, _PFNZERO, _PRESENT | _SWAPPED, _PRESENT))
        found = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument)
        for number in range(found):
            yield regions[3 * number], regions[3 * number + 1]
        if argument[4] <= start:
            raise CaptureError("its page tables cannot be walked")
        start = argument[4]


def _listed(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        wanted = min(_ENTRIES, (end - start) // PAGE)
        entries = array("Q", os.pread(pagemap, wanted * 8, start // PAGE * 8))
        if not entries:
            raise CaptureError("its page tables end too soon")
        if any(entries):
            for number, entry in enumerate(entries):
                if entry & _IS_THERE:
                    yield start + number * PAGE, start + (number + 1) * PAGE
        start += len(entries) * PAGE


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join ranges that are near each other, so that they are read at once."""
    first = last = -1
    for start, end in ranges:
        if first >= 0 and start - last < _JOINED:
            last = end
            continue
        if first >= 0:
            yield first, last
        first, last = start, end
    if first >= 0:
        yield first, last
