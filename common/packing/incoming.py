"""What a core is that somebody else packed, whatever with: its first bytes say it.

All of it is hostile. What is held at once is a few MiB, and what the format asks the decoder to
remember: at most `MOST_WINDOW` bytes for zstd and xz, where only the pages that were filled count.
Work grows with the bytes packed and the bytes that come out, and with nothing else. How many come
out is bounded by the caller, who stops asking.
"""

import os
from collections.abc import Callable, Iterator
from typing import Literal

from common.packing import frames, streams
from common.packing.codec import BLOCK
from common.packing.report import begins_report, core_of_report
from common.packing.supply import Supply, named

Format = Literal["raw", "gzip", "zstd", "lz4", "xz", "apport-report"]

_MAGICS: dict[bytes, Format] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",  # the legacy frame; it is refused by name
    b"\xfd7zXZ\0": "xz",
}
UNPACKERS: dict[Format, Callable[[Supply], Iterator[bytes]]] = {
    "gzip": streams.gzip,
    "zstd": frames.zstd,
    "lz4": frames.lz4,
    "xz": streams.xz,
}
_HEAD = 256
_SKIPPABLE = b"\x2a\x4d\x18"
_MOST_SKIPPABLE = 64


def format_of(descriptor: int) -> Format:
    """Say by its first bytes how the open file is packed; what is none of them is raw.

    Skippable frames are common to zstd and lz4: the first frame that is none decides (of the first
    64), and a file of nothing else is zstd. Sources: RFC 1952, 2.3.1; RFC 8878, 3.1; the LZ4 frame
    format description, "General Structure of LZ4 Frame format"; the .xz file format, 2.1.1.1;
    Apport's doc/data-format.tex.
    """
    place = 0
    for _ in range(_MOST_SKIPPABLE):
        head = os.pread(descriptor, _HEAD, place)
        if not (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
            break
        place += 8 + int.from_bytes(head[4:8], "little")
    for magic, name in _MAGICS.items():
        if head.startswith(magic) and (not place or name in {"zstd", "lz4"}):
            return name
    if place:
        return "zstd"
    return "apport-report" if begins_report(head) else "raw"


def content(descriptor: int) -> Iterator[bytes]:
    """Give what is packed in the open file, in blocks of at most `BLOCK` bytes, none of them empty.

    The file's place is neither used nor moved. Raises `CorruptError` where the input is damaged or
    ends early, after having given what could be decoded before it; it names the format, what is
    wrong, the byte of the packed file at or just before which that was found, and how many bytes of
    content came out before. An error of the disk is an OSError.
    """
    name = format_of(descriptor)
    if name == "raw":
        return _raw(descriptor)
    if name == "apport-report":
        return core_of_report(descriptor)
    return named(name, UNPACKERS[name](Supply.of_file(descriptor)))


def _raw(descriptor: int) -> Iterator[bytes]:
    place = 0
    while block := os.pread(descriptor, BLOCK, place):
        yield block
        place += len(block)
