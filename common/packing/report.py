"""What an Apport crash report (``/var/crash/*.crash``) holds.

Sources: Apport's problem_report.py and doc/data-format.tex. A report is lines: ``Key: value``,
further lines of a value behind one space each, and for bytes ``Key: base64`` with lines that are
each padded base64 of their own. Lines are read in pieces, so each may be as long as it likes.
"""

import binascii
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from common.errors import CorruptError
from common.packing import frames, streams
from common.packing.supply import Supply, named

MOST_TEXT = 4 * 2**20
"""Bytes of text that a report may have, in all values, each counted as far as it is kept."""
MOST_VALUE = 256 * 2**10
"""Bytes of one value that are kept."""
MOST_LOOKED = 128 * 2**20
"""Bytes of a report in which its texts, and where its core begins, are looked for; the core itself
is the last that Apport writes. A report that somebody makes up may be as long as he likes."""
MOST_KEYS = 1024
MOST_KEY = 128

_PIECE = 2**16
_KEY = re.compile(rb"([A-Za-z0-9_-][A-Za-z0-9._-]{0,%d}):" % (MOST_KEY - 1))
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")


def begins_report(head: bytes) -> bool:
    """Say whether a file that begins with *head* begins with the line of a key."""
    key = _KEY.match(head)
    return key is not None and head[key.end() : key.end() + 1] in {b" ", b"\r", b"\n"}


def read_report(descriptor: int) -> dict[str, str]:
    """Read the text values of the open report; bytes are passed over.

    Names are letters, digits and ``._-``, and begin with no dot; they are never to be used as
    paths. Of a name that comes twice the last value counts, as for Apport. Of each value the first
    `MOST_VALUE` bytes are kept; what is not UTF-8 in them is replaced. Raises `CorruptError` where
    a line is no report's, or more than `MOST_TEXT` bytes or `MOST_KEYS` names would be kept. What
    stands behind `MOST_LOOKED` bytes is not looked at.
    """
    texts = _Texts()
    for line in _lines(descriptor):
        if line.place >= MOST_LOOKED:
            break
        texts.add(line)
    return {key.decode(): bytes(value).decode(errors="replace") for key, value in texts.all.items()}


def core_of_report(descriptor: int) -> Iterator[bytes]:
    """Give the content of the first CoreDump in the open report, in blocks of at most 1 MiB.

    It is packed as gzip, as zstd (taken over from systemd-coredump) or, by old Apports, as zlib.
    What else is in the report is not looked at. Raises `CorruptError` as `incoming.content` does.
    """
    return named("apport-report", _core(descriptor))


class _Line(NamedTuple):
    """A line, or a piece of one that is long."""

    place: int
    """In the file."""
    text: bytes
    """With its newline, if that is in it."""
    begins: bool

    def value(self) -> bytes | None:
        """Give what stands behind the key; None where no key begins here."""
        key = _KEY.match(self.text) if self.begins else None
        return self.text[key.end() :] if key else None

    def key(self) -> bytes:
        return self.text.partition(b":")[0]

    def is_binary(self) -> bool:
        """Say whether base64 follows."""
        value = self.value()
        return value is not None and value.endswith(b"\n") and value.strip() == b"base64"


class _Bytes(io.RawIOBase):
    """Reads the open file at a place of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = os.preadv(self._descriptor, [buffer], self._place)
        self._place += size
        return size


def _lines(descriptor: int) -> Iterator[_Line]:
    file, place, begins = io.BufferedReader(_Bytes(descriptor), _PIECE), 0, True
    while text := file.readline(_PIECE):
        yield _Line(place, text, begins)
        place += len(text)
        begins = text.endswith(b"\n")


class _Texts:
    """The text values that were met so far."""

    def __init__(self) -> None:
        self.all: dict[bytes, bytearray] = {}
        self._value: bytearray | None = None  # None where bytes are passed over
        self._has_begun = False
        self._size = 0

    def add(self, line: _Line) -> None:
        text = line.text.rstrip(b"\r\n")
        if not line.begins:
            self._append(text, line.place)
        elif text.startswith(b" ") and self._has_begun:
            self._append(b"\n" + text[1:] if self._value else text[1:], line.place)
        elif text:
            self._begin(line)

    def _begin(self, line: _Line) -> None:
        value = line.value()
        if value is None:
            raise CorruptError(f"damaged apport-report: no key's line at byte {line.place}")
        self._has_begun, self._value = True, None
        if not line.is_binary():
            self._value = self.all[line.key()] = bytearray()
            self._append(value.strip(), line.place)
        if len(self.all) > MOST_KEYS:
            raise CorruptError(f"an apport-report of more than {MOST_KEYS} keys")

    def _append(self, text: bytes, place: int) -> None:
        if self._value is None:
            return
        text = text[: MOST_VALUE - len(self._value)]
        self._value += text
        self._size += len(text)
        if self._size > MOST_TEXT:
            raise CorruptError(
                f"an apport-report of more than {MOST_TEXT} bytes of text, up to byte {place}"
            )


def _core(descriptor: int) -> Iterator[bytes]:
    lines = _lines(descriptor)
    _find_core(lines)
    supply = Supply(_decoded(lines))
    yield from _unpacker_for(supply)(supply)


def _find_core(lines: Iterator[_Line]) -> None:
    """Go on to the line behind which the CoreDump stands."""
    end = 0
    for line in lines:
        if line.place >= MOST_LOOKED:
            break
        end = line.place + len(line.text)
        if line.value() is not None and line.key() == b"CoreDump":
            if not line.is_binary():
                raise CorruptError(f"its CoreDump is not base64, at byte {line.place}")
            return
    raise CorruptError(f"there is no CoreDump in it, up to byte {end}")


def _unpacker_for(supply: Supply) -> Callable[[Supply], Iterator[bytes]]:
    start = supply.peek(4)
    if start.startswith(b"\x1f\x8b"):
        return streams.gzip
    if start == b"\x28\xb5\x2f\xfd":
        return frames.zstd
    if streams.is_zlib(start):
        return streams.zlib
    what = "packed in no known way" if start else "empty"
    raise CorruptError(f"its CoreDump is {what}, at byte {supply.place}")


def _decoded(lines: Iterator[_Line]) -> Iterator[tuple[int, bytes]]:
    """Decode lines as long as they begin with a space, each by itself; give places too."""
    rest, place, is_over = b"", 0, False
    for line in lines:
        if line.begins:
            if not line.text.startswith(b" "):
                break
            rest, place, is_over = b"", line.place + 1, False
        text = rest + line.text[line.begins :]
        if line.text.endswith(b"\n"):
            text, rest = text.rstrip(b"\r\n"), b""
        else:
            whole = len(text) // 4 * 4
            text, rest = text[:whole], text[whole:]
        if is_over and text:
            raise CorruptError(f"base64 behind its padding, at byte {place}")
        yield from _decode(place, text)
        place, is_over = place + len(text), text.endswith(b"=")
    yield from _decode(place, rest)


def _decode(place: int, text: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        yield place, binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        good = len(_BASE64.match(text)[0]) // 4 * 4  # type: ignore[index]  # it matches everything
        yield place, binascii.a2b_base64(text[:good])
        raise CorruptError(f"its base64 is damaged at byte {place + good}: {error}") from error
