"""What a core file says of itself: the ELF headers and the first notes, read with suspicion.

Sources: elf(5); the kernel's fs/binfmt_elf.c for which notes come first; <sys/procfs.h> for the
layout of NT_PRSTATUS and NT_PRPSINFO.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from common.item import clean

_CORE = 4  # e_type of a core
_LOAD, _NOTE = 1, 4  # p_type
_PRSTATUS, _PRPSINFO = 1, 3  # n_type, of the owner "CORE"
_MANY = 0xFFFF  # PN_XNUM: the real number of segments stands in section 0

_NOTES_LIMIT = 64 * 1024  # the crashing thread's notes and the process's own come first
_SEGMENTS_LIMIT = 2**20
_SIZE_LIMIT = 2**63  # no file is larger, whatever a segment says
_SEGMENTS_AT_ONCE = 4096


Read = Callable[[int, int], bytes]
"""Reads a core: at most so many bytes, at an offset."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand in a file of one class (32 or 64 bit) and byte order."""

    order: str
    wide: bool

    @property
    def segment(self) -> struct.Struct:
        """A program header, as (type, offset, filesz) after `_pick`."""
        return struct.Struct(self.order + ("IIQQQQQQ" if self.wide else "IIIIIIII"))

    def pick(self, fields: tuple[int, ...]) -> tuple[int, int, int]:
        return (fields[0], fields[2], fields[5]) if self.wide else (fields[0], fields[1], fields[4])


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


def read_notes(read: Read) -> CoreNotes | None:
    """Read the notes of a core, of which *read* gives so many bytes at a place; None if it is none.

    Every byte is taken as hostile: what cannot be is passed over, and what is read is bounded.
    """
    try:
        return _read(read)
    except (struct.error, OSError, OverflowError, ValueError):
        return None


def _read(read: Read) -> CoreNotes | None:
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

    expected, notes, left = table + count * entry, CoreNotes(), _NOTES_LIMIT
    for segment_type, offset, filesz in _segments(read, layout, table, count):
        if segment_type in {_LOAD, _NOTE} and filesz and offset + filesz < _SIZE_LIMIT:
            expected = max(expected, offset + filesz)
            if segment_type == _NOTE and left > 0 and notes.pid is None:
                blob = read(min(filesz, left), offset)
                left -= len(blob)
                notes = _read_note_segment(blob, layout)
    return replace(notes, expected_size=expected)


def _many_segments(read: Read, layout: _Layout, sections: int) -> int:
    info = 44 if layout.wide else 28  # sh_info of the first section header
    blob = read(4, sections + info)
    # Cut off before it, the file has at least as many as the header could not hold.
    return int(struct.unpack(layout.order + "I", blob)[0]) if len(blob) == 4 else _MANY


def _segments(
    read: Read, layout: _Layout, table: int, count: int
) -> Iterator[tuple[int, int, int]]:
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
    return CoreNotes(**found)  # type: ignore[arg-type]  # the keys are its fields


def _read_status(body: bytes, layout: _Layout) -> dict[str, int | str]:
    return {
        "signal": struct.unpack_from(layout.order + "H", body, 12)[0],
        "tid": struct.unpack_from(layout.order + "I", body, 32 if layout.wide else 24)[0],
    }


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
