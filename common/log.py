"""The log line: its fields, their order, and the escaping that no value can break out of.

"ts"="2025-03-23 14:01:36.906"|"l"="info"|"m"="coremond started"|"lt"="A"|…|"ct"="…"|"v"="1.0"
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import localtime, strftime
from typing import TextIO

CONTAINER = "f5-coremond"
FORMAT_VERSION = "1.0"
LINE_LIMIT = 4096
"""Bytes of a line with its newline: PIPE_BUF, so that a pipe never tears it (pipe(7))."""

_NAMED_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CUT = "…"
_UNIT = re.compile(r"\\(?:x..|u.{4}|U.{8}|.)|.", re.DOTALL)


def escape(value: str) -> str:
    """Make *value* safe between the quotes of a field: printable, one line, no bare quote."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return "".join(_escape_character(character) for character in value)


def _escape_character(character: str) -> str:
    named = _NAMED_ESCAPES.get(character)
    if named is not None:
        return named
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as os.fsdecode() shows it
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def text_of(value: object) -> str:
    """Show a fact's value as the text of a field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def render(fields: Mapping[str, object], limit: int = LINE_LIMIT) -> str:
    """Write *fields* as one line of at most *limit* bytes; the longest values give way."""
    values = {key: escape(text_of(value)[:limit]) for key, value in fields.items()}
    line = _join(values)
    while len(line.encode()) > limit - 1 and any(value != _CUT for value in values.values()):
        longest = max(values, key=lambda key: len(values[key]))
        values[longest] = _shorten(values[longest], len(line.encode()) - limit + 1)
        line = _join(values)
    return line


def _join(values: Mapping[str, str]) -> str:
    return "|".join(f'"{key}"="{value}"' for key, value in values.items())


def _shorten(value: str, excess: int) -> str:
    """Cut at least *excess* bytes off an escaped *value*, and no escape in two."""
    units = _UNIT.findall(value.removesuffix(_CUT))
    excess += len(_CUT.encode())
    while units and excess > 0:
        excess -= len(units.pop().encode())
    return "".join(units) + _CUT


def log_moment(seconds: float) -> str:
    """Show a moment (seconds since the epoch) as it stands in lines: local time, whole seconds."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(seconds))


class _Formatter(logging.Formatter):
    def __init__(self, bound: dict[str, object]) -> None:
        super().__init__()
        self.bound = bound

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, object] = dict(getattr(record, "facts", {}))
        if record.exc_info and record.exc_info[1]:
            # Kept as text too, because a record from a worker process arrives without exc_info.
            record.exc_text = "".join(traceback.format_exception(record.exc_info[1]))
        if record.exc_text:
            facts["trace"] = record.exc_text
        return render(
            {
                "ts": f"{log_moment(record.created)}.{int(record.msecs):03d}",
                "l": record.levelname.lower(),
                "m": record.getMessage(),
                "lt": "A",
                **self.bound,
                **facts,
                "ct": CONTAINER,
                "v": FORMAT_VERSION,
            }
        )


class Logger:
    """Write events: a short fixed text, and the facts of this one as keywords."""

    def __init__(self, facts: Mapping[str, object] | None = None) -> None:
        self._facts = dict(facts or {})

    def bind(self, **facts: object) -> "Logger":
        """Give a logger that adds *facts* to each of its lines."""
        return Logger({**self._facts, **facts})

    def debug(self, text: str, **facts: object) -> None:
        """Say what only someone who looks for it wants to know."""
        self._write(logging.DEBUG, text, facts)

    def info(self, text: str, **facts: object) -> None:
        """Say what happened as it should."""
        self._write(logging.INFO, text, facts)

    def warning(self, text: str, **facts: object) -> None:
        """Say what went another way; add ``reason=`` and ``effect=``."""
        self._write(logging.WARNING, text, facts)

    def error(self, text: str, **facts: object) -> None:
        """Say what failed; add ``reason=`` and ``effect=``."""
        self._write(logging.ERROR, text, facts)

    def critical(self, text: str, **facts: object) -> None:
        """Say why the program ends."""
        self._write(logging.CRITICAL, text, facts)

    def exception(self, text: str, **facts: object) -> None:
        """Say what failed, with the traceback of the exception being handled."""
        self._write(logging.ERROR, text, facts, with_trace=True)

    def _write(
        self, level: int, text: str, facts: dict[str, object], *, with_trace: bool = False
    ) -> None:
        logging.getLogger().log(
            level, "%s", text, extra={"facts": {**self._facts, **facts}}, exc_info=with_trace
        )


_bound: dict[str, object] = {}


def configure(*, proc: str = "", stream: TextIO | None = None) -> None:
    """Send this program's lines to *stream* (standard output), at level info and above.

    *proc* names the program in each line, where it is to be named.
    """
    _bound.clear()
    if proc:
        name_program(proc)
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_Formatter(_bound))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def name_program(proc: str) -> None:
    """Write ``proc`` in every line from here on."""
    _bound["proc"] = proc


@contextmanager
def carried_children() -> Iterator[None]:
    """Let processes forked in the block write through this program's one handler.

    Entered before the first worker is started and not sooner: it costs a thread that wakes five
    times a second. Left after the last has ended: what they said is written by then.
    """
    from multiprocessing_logging import install_mp_handler, uninstall_mp_handler

    install_mp_handler()
    try:
        yield
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        uninstall_mp_handler()
