"""What the name of a core says, by the pattern that the kernel wrote it by.

Sources: core(5), "Naming of core dump files"; the kernel's fs/coredump.c, format_corename().
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Self

from common import naming
from common.errors import NamingError
from common.item import Crash

DEFAULT_PATTERN = "core.%e.%p.%h.%t"
MOST_READINGS = 256
_PATTERN_LIMIT = 127  # bytes of a core_pattern: CORENAME_MAX_SIZE, less its NUL
_TEXTS = "efEh"
_NUMBERS = {
    **dict.fromkeys("pPiIugC", (10, naming.MOST_PID)),
    "s": (3, 999),
    "d": (1, 2),
    "c": (20, 2**64 - 1),
    "t": (19, 10**19),
}
"""How many digits a number may have, and how large it may be."""
_FACTS = {
    "p": "pid",
    "P": "host_pid",
    "i": "tid",
    "u": "uid",
    "g": "gid",
    "s": "signal",
    "t": "crashed_at",
    "d": "dumpable",
    "c": "rlimit",
    "f": "comm",  # the file's name, which `%e` goes before
    "e": "comm",
    "E": "exe",
    "h": "hostname",
}
"""The fact that a letter stands for; `%I` and `%C` are none."""
_UNLIMITED = 2**64 - 1
_PLAIN = re.compile(r"core\.(\d{1,7})", re.ASCII)  # the largest pid of any Linux has 7 digits


class _Part(NamedTuple):
    """A part of a pattern: text as it stands, or what a letter stands for."""

    literal: str = ""
    letter: str = ""

    def starts(self, text: str, ends: Sequence[int]) -> set[int]:
        """Give each place where this may begin in *text*, if it must end at one of *ends*."""
        if self.literal:
            starts = (end - len(self.literal) for end in ends)
            return {at for at in starts if at >= 0 and text.startswith(self.literal, at)}
        if self.letter in _TEXTS:
            return set(range(max(ends, default=-1) + 1))
        digits = _NUMBERS[self.letter][0]
        return {
            at
            for end in ends
            for at in range(max(0, end - digits), end)
            if self.is_value(text[at:end])
        }

    def is_value(self, text: str) -> bool:
        """Say whether this can have been written as *text*."""
        if self.literal:
            return text == self.literal
        if self.letter in _TEXTS:
            return True
        digits, most = _NUMBERS[self.letter]
        is_number = text.isascii() and text.isdecimal() and len(text) <= digits
        return is_number and int(text) <= most and (self.letter != "t" or len(text) in {10, 19})


@dataclass(frozen=True, slots=True)
class FilePattern:
    """The last part of a core_pattern that names files."""

    text: str = DEFAULT_PATTERN
    _parts: tuple[_Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", tuple(_parts_of(self.text)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern, or raise ValueError saying what is wrong with it."""
        pattern = cls(text)
        if "/" in text or "\0" in text or text.startswith((".", "|", "@")):
            raise ValueError("expected the name of a file, as in core.%e.%p.%h.%t")
        if len(text.encode(errors="surrogateescape")) > _PATTERN_LIMIT:
            raise ValueError(f"expected at most {_PATTERN_LIMIT} bytes")
        if all(part.letter and part.letter in _TEXTS for part in pattern._parts):
            raise ValueError("expected some text or a number, for else every name is a core's")
        return pattern

    def readings(self, name: str) -> Iterator[Crash]:
        """Give every reading of *name* by this pattern, the likeliest first.

        A program's name often has a number after a dot (``python3.11``) and a host's seldom, so the
        longer a text that stands before others, the likelier it is. Where the pattern has no pid,
        the kernel may have put one behind it (core_uses_pid).
        """
        if all(part.letter != "p" for part in self._parts):
            yield from _readings((*self._parts, _Part("."), _Part(letter="p")), name)
        yield from _readings(self._parts, name)


def is_source_name(name: str, pattern: FilePattern) -> bool:
    """Say whether a file *name* may be a core that the kernel wrote, or crashagent."""
    return naming.is_core_name(name) or (
        not name.startswith(".") and next(pattern.readings(name), None) is not None
    )


def readings_of(name: str, pattern: FilePattern) -> list[Crash]:
    """Give what *name* may mean, the likeliest first; nothing where it says nothing.

    A name that does not follow the *pattern* may be one that crashagent made, or core_uses_pid.
    """
    if by_pattern := list(islice(pattern.readings(name), MOST_READINGS)):
        return by_pattern
    if plain := _PLAIN.fullmatch(name):
        return [Crash(pid=int(plain[1]))]
    try:
        return [
            Crash(
                comm=reading.process,
                pid=reading.pid,
                hostname=reading.host,
                crashed_at=reading.crashed_at,
            )
            for reading in naming.read_source_name(name)
        ]
    except NamingError:
        return []


def choose_reading(readings: Sequence[Crash], pid: int | None, comm: str) -> Crash:
    """Choose the reading that the core's own notes (*pid*, *comm*) agree with most."""
    if not readings:
        return Crash()
    return max(
        readings,
        key=lambda reading: (
            pid is not None and pid in {reading.pid, reading.host_pid},
            reading.comm == comm,
        ),
    )


def _parts_of(text: str) -> Iterator[_Part]:
    literal, letters = "", iter(text)
    for letter in letters:
        if letter != "%":
            literal += letter
            continue
        letter = next(letters, "")
        if letter == "%":
            literal += letter
        elif letter in _NUMBERS or letter in set(_TEXTS):
            if literal:
                yield _Part(literal)
            literal = ""
            yield _Part(letter=letter)
        else:
            raise ValueError(f"expected one of %% and %pPiIugsdtcCefEh, got %{letter}")
    if literal:
        yield _Part(literal)


def _readings(parts: tuple[_Part, ...], name: str) -> Iterator[Crash]:
    # From each of starts[n], the parts from the n-th on can be what the rest of the name is. So no
    # way that is begun below ends nowhere, and the work is bounded however hostile the name is.
    starts: list[set[int]] = [{len(name)}]
    for part in reversed(parts):
        starts.append(part.starts(name, sorted(starts[-1])))
    starts.reverse()
    if 0 in starts[0]:
        for values in _ways(parts, starts, name, 0):
            yield _crash_of({part.letter: value for part, value in zip(parts, values, strict=True)})


def _ways(
    parts: tuple[_Part, ...], starts: Sequence[set[int]], name: str, start: int
) -> Iterator[tuple[str, ...]]:
    """Split *name* from *start* on into *parts*; the longest first part comes first."""
    if not parts:
        yield ()
        return
    for end in sorted((end for end in starts[1] if end >= start), reverse=True):
        if parts[0].is_value(name[start:end]):
            for rest in _ways(parts[1:], starts[1:], name, end):
                yield (name[start:end], *rest)


def _crash_of(values: dict[str, str]) -> Crash:
    facts: dict[str, Any] = {}
    for letter, fact in _FACTS.items():
        if letter not in values:
            continue
        text = values[letter]
        if letter == "t":
            facts[fact] = naming.read_timestamp(text)
        elif letter == "E":
            facts[fact] = naming.decode(text).replace("!", "/")  # as the kernel wrote its slashes
        elif letter in _TEXTS:
            facts[fact] = naming.decode(text)
        elif (number := int(text)) != _UNLIMITED:
            facts[fact] = number
    return Crash(**facts)
