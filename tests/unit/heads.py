"""Heads of cores, made up: of memory that is really there, or of none."""

import ctypes
import mmap
import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from common.packing.sparse import PAGE
from services.crashagent.process import Held, _read_status

LOAD, NOTE = 1, 4
SEGMENT = struct.Struct("=IIQQQQQQ")
_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_PROT_NONE = 0
_LITTLE = struct.pack("=H", 1) == b"\1\0"

Range = tuple[int, int]
"""Addresses in memory: start, end."""


def header(**fields: Any) -> bytes:
    """Build the header of a 64-bit core of this machine, with *fields* that are its own."""
    ordinary: dict[str, Any] = {
        "ident": b"\x7fELF\x02" + (b"\x01" if _LITTLE else b"\x02"),
        "kind": 4,
        "machine": 62,
        "version": 1,
        "entry": 0,
        "place": _HEADER.size,
        "sections": 0,
        "flags": 0,
        "own_size": _HEADER.size,
        "width": SEGMENT.size,
        "number": 0,
        "section_width": 0,
        "section_number": 0,
        "names": 0,
    }
    return _HEADER.pack(*{**ordinary, **fields}.values())


def segment(kind: int, offset: int, address: int, size: int) -> bytes:
    """Build a program header."""
    return SEGMENT.pack(kind, 4, offset, address, 0, size, size, PAGE)


def head_of(ranges: Sequence[Range], notes: bytes = b"notes" * 99) -> bytes:
    """Build the head of a core of the memory in *ranges*, up to where that begins."""
    at = _HEADER.size + (len(ranges) + 1) * SEGMENT.size
    place = -(-(at + len(notes)) // PAGE) * PAGE
    table = [segment(NOTE, at, 0, len(notes))]
    for start, end in ranges:
        table.append(segment(LOAD, place, start, end - start))
        place += end - start
    head = header(number=len(table)) + b"".join(table) + notes
    return head + bytes(-len(head) % PAGE)


def hold_process(pid: int) -> Held:
    """Hold a process that is not being dumped, as if it were."""
    directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    return Held(directory, pid, _read_status(directory))


def writable_ranges(pid: int) -> list[Range]:
    """Give where a process has memory that it may write to."""
    text = Path(f"/proc/{pid}/maps").read_text()
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", text, re.MULTILINE)
    return [(int(start, 16), int(end, 16)) for start, end in found]


def read_memory(pid: int, ranges: Sequence[Range]) -> bytes:
    """Read what is in *ranges* of a process that stands still."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        return b"".join(os.pread(file.fileno(), end - start, start) for start, end in ranges)


class Area:
    """Memory of ours with *count* pages, which no other mapping touches."""

    def __init__(self, count: int, *, flags: int = mmap.MAP_PRIVATE) -> None:
        size = count * PAGE
        self._mapped = mmap.mmap(-1, size + 2 * PAGE, flags | mmap.MAP_ANONYMOUS)
        self._mapped.madvise(mmap.MADV_NOHUGEPAGE)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._mapped))
        self.start, self.end = first + PAGE, first + PAGE + size
        for address in (first, self.end):
            if ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), PAGE, _PROT_NONE) != 0:
                raise MemoryError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._mapped.close()

    def touch(self, pages: Iterable[int]) -> Self:
        """Write something into each of *pages*."""
        for page in pages:
            self._mapped[(page + 1) * PAGE + page % PAGE] = 1 + page % 255
        return self

    def content(self) -> bytes:
        """Give all that is in it."""
        return self._mapped[PAGE:-PAGE]
