"""What a core file says of itself: headers, first notes and environment, read with suspicion.

Sources: elf(5); the kernel's fs/binfmt_elf.c for which notes come first, and for where a program's
strings are; <sys/procfs.h> for the layout of NT_PRSTATUS and NT_PRPSINFO; getauxval(3).
"""

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from common.item import clean

_CORE = 4  # e_type of a core
_LOAD, _NOTE = 1, 4  # p_type
_PRSTATUS, _PRPSINFO, _AUXV = 1, 3, 6  # n_type, of the owner "CORE"
_EXECFN = 31  # a_type: where the name stands by which the program was started
_MANY = 0xFFFF  # PN_XNUM: the real number of segments stands in section 0

_NOTES_LIMIT = 64 * 1024  # the crashing thread's notes and the process's own come first
_SEGMENTS_LIMIT = 2**20
_SIZE_LIMIT = 2**63  # no file is larger, whatever a segment says
_SEGMENTS_AT_ONCE = 4096
_ENVIRON_LIMIT = 256 * 1024
_VARIABLE = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL | re.ASCII)

Read = Callable[[int, int], bytes]
"""Reads a core: at most so many bytes, at an offset."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand in a file of one class (32 or 64 bit) and byte order."""

    order: str
    wide: bool

    @property
    def segment(self) -> struct.Struct:
        """A program header, as it stands."""
        return struct.Struct(self.order + ("IIQQQQQQ" if self.wide else "IIIIIIII"))

    def pick(self, fields: tuple[int, ...]) -> "_Segment":
        kind, *rest = fields
        if self.wide:  # p_flags comes second, and not second to last
            return _Segment(kind, offset=rest[1], address=rest[2], size=rest[4])
        return _Segment(kind, offset=rest[0], address=rest[1], size=rest[3])


class _Segment(NamedTuple):
    """A program header: what it is of, and where that stands in the file and stood in memory."""

    kind: int
    offset: int
    address: int
    size: int
    """Bytes of it in the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreNotes:
    """What the notes and headers tell; None or empty where they do not."""

    pid: int | None = None
    tid: int | None = None
    uid: int | None = None
    gid: int | None = None
    signal: int | None = None
    comm: str = ""
    cmdline: str = ""
    expected_size: int = 0
    """Bytes the file should have by its own headers; fewer mean that it is truncated."""
    name_address: int = 0
    """Where in memory the name stood by which the program was started, behind its environment."""


def read_notes(read: Read) -> CoreNotes | None:
    """Read the notes of a core, of which *read* gives so many bytes at a place; None if it is none.

    Every byte is taken as hostile: what cannot be is passed over, and what is read is bounded.
    """
    try:
        return _read(read)
    except (struct.error, OSError, OverflowError, ValueError):
        return None


def read_environ(read: Read, notes: CoreNotes) -> list[tuple[str, str]]:
    """Read the environment that the program was started with, from the core that has these *notes*.

    What cannot be read, or was written over since, is left out.
    """
    try:
        return _read_environ(read, notes.name_address)
    except (struct.error, OSError, OverflowError, ValueError):
        return []


def _read_environ(read: Read, end: int) -> list[tuple[str, str]]:
    """Read the strings that end at the address *end*, as far back as they are variables."""
    headers = _read_headers(read) if end else None
    for kind, offset, address, size in _segments(read, *headers) if headers else ():
        if kind == _LOAD and address < end <= address + size and offset + size < _SIZE_LIMIT:
            length = min(end - address, _ENVIRON_LIMIT)
            strings = read(length, offset + (end - address) - length).split(b"\0")
            is_cut = length < end - address  # then the first is not whole
            found = []
            for string in reversed(strings[is_cut:-1]):
                if not (match := _VARIABLE.fullmatch(string)):
                    break
                found.append((match[1].decode(), clean(match[2])))
            return found[::-1]
    return []


def _read_headers(read: Read) -> tuple[_Layout, int, int] | None:
    """Read how the file is laid out, where its segments' headers are, and how many."""
    ident = read(16, 0)
    if (
        len(ident) < 16
        or ident[:4] != b"\x7fELF"
        or ident[4] not in {1, 2}
        or ident[5] not in {1, 2}
    ):
        return None
    layout = _Layout(order="<" if ident[5] == 1 else ">", wide=ident[4] == 2)
    header = struct.Struct(layout.order + ("HHIQQQIHHHHHH" if layout.wide else "HHIIIIIHHHHHH"))
    fields = header.unpack(read(header.size, 16))
    kind, table, sections, entry, count = fields[0], fields[4], fields[5], fields[8], fields[9]
    if kind != _CORE or entry != layout.segment.size:
        return None
    if count == _MANY:
        count = _many_segments(read, layout, sections)
    return layout, table, count


def _read(read: Read) -> CoreNotes | None:
    headers = _read_headers(read)
    if headers is None:
        return None
    layout, table, count = headers

    notes, left = CoreNotes(), _NOTES_LIMIT
    expected = table + count * layout.segment.size
    for kind, offset, _, size in _segments(read, layout, table, count):
        if kind in {_LOAD, _NOTE} and size and offset + size < _SIZE_LIMIT:
            expected = max(expected, offset + size)
            if kind == _NOTE and left > 0 and notes.pid is None:
                blob = read(min(size, left), offset)
                left -= len(blob)
                notes = _read_note_segment(blob, layout)
    return replace(notes, expected_size=expected)


def _many_segments(read: Read, layout: _Layout, sections: int) -> int:
    info = 44 if layout.wide else 28  # sh_info of the first section header
    blob = read(4, sections + info)
    # Cut off before it, the file has at least as many as the header could not hold.
    return int(struct.unpack(layout.order + "I", blob)[0]) if len(blob) == 4 else _MANY


def _segments(read: Read, layout: _Layout, table: int, count: int) -> Iterator[_Segment]:
    size = layout.segment.size
    for first in range(0, min(count, _SEGMENTS_LIMIT), _SEGMENTS_AT_ONCE):
        number = min(count - first, _SEGMENTS_AT_ONCE)
        blob = read(number * size, table + first * size)
        for fields in layout.segment.iter_unpack(blob[: len(blob) // size * size]):
            yield layout.pick(fields)


def _read_note_segment(blob: bytes, layout: _Layout) -> CoreNotes:
    found: dict[str, int | str] = {}
    for note_type, body in _notes(blob, layout.order):
        with suppress(struct.error):  # a note that is cut short tells nothing
            if note_type == _PRSTATUS and "tid" not in found:
                found.update(_read_status(body, layout))
            elif note_type == _PRPSINFO and "pid" not in found:
                found.update(_read_psinfo(body, layout))
            elif note_type == _AUXV and "name_address" not in found:
                found["name_address"] = _read_auxv(body, layout)
    return CoreNotes(**found)  # type: ignore[arg-type]  # the keys are its fields


def _read_status(body: bytes, layout: _Layout) -> dict[str, int | str]:
    return {
        "signal": struct.unpack_from(layout.order + "H", body, 12)[0],
        "tid": struct.unpack_from(layout.order + "I", body, 32 if layout.wide else 24)[0],
    }


def _read_auxv(body: bytes, layout: _Layout) -> int:
    pair = struct.Struct(layout.order + ("QQ" if layout.wide else "II"))
    pairs = pair.iter_unpack(body[: len(body) // pair.size * pair.size])
    return next((value for key, value in pairs if key == _EXECFN), 0)


def _read_psinfo(body: bytes, layout: _Layout) -> dict[str, int | str]:
    if layout.wide:
        ids, place, names = "II", 16, 40
    elif len(body) == 124:  # 16-bit ids, as on i386 and arm
        ids, place, names = "HH", 8, 28
    else:
        ids, place, names = "II", 8, 32
    uid, gid, pid = struct.unpack_from(layout.order + ids + "I", body, place)
    return {
        "uid": uid,
        "gid": gid,
        "pid": pid,
        "comm": clean(body[names : names + 16].partition(b"\0")[0]),
        "cmdline": clean(body[names + 16 : names + 96].partition(b"\0")[0].rstrip(b" ")),
    }


def _notes(blob: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 12 <= len(blob):
        name_size, size, note_type = struct.unpack_from(order + "III", blob, place)
        start = place + 12 + (name_size + 3) // 4 * 4
        if blob[place + 12 : place + 12 + name_size].rstrip(b"\0") == b"CORE":
            yield note_type, blob[start : start + size]
        place = start + (size + 3) // 4 * 4
