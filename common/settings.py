"""Read typed settings from the environment, and report every mistake at once."""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from common.errors import ConfigError

T = TypeVar("T")

NANOSECONDS = 10**9
SOCKET_PATH_LIMIT = 107
"""Bytes a Unix socket's path may have (sun_path, less its NUL): unix(7)."""

MOST_THREADS = 256

_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5, the micro sign
    "μs": 1e-6,  # U+03BC, the Greek letter
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|[µμ]s|ms|s|m|h|d)", re.ASCII)
_LONGEST = 2**63 / NANOSECONDS  # seconds: what Go's Duration, nanoseconds in an int64, can hold
_SIZE = re.compile(r"(\d+)(?:([KMGT])(?:i?B)?)?", re.ASCII)
_SIZE_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%", re.ASCII)


class EnvReader:
    """Read values from *env*, gathering the mistakes so that one start shows them all."""

    known: ClassVar[set[str]] = set()
    """Every name that any reader was asked for."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._problems: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Give the value of *name*, or *default* where it is unset or empty."""
        self.known.add(name)
        text = self._env.get(name, "")
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self._problems.append(f"{name}={text!r}: {error}")
            return default

    def require(self, holds: bool, problem: str) -> None:
        """Record *problem* unless the settings agree with each other."""
        if not holds:
            self._problems.append(problem)

    def finish(self) -> None:
        """Raise `ConfigError` with every mistake seen, if there was one."""
        if self._problems:
            raise ConfigError(self._problems)


def environment(env_file: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """Give the process's environment, over which the settings of *env_file* are laid.

    The second result is what is wrong with the file, so that a reader's own mistakes join it.
    """
    env, problems = _settings_in(env_file) if env_file else ({}, [])
    return {**os.environ, **env}, problems


def read_env_file(env_file: Path) -> dict[str, str]:
    """Read the settings of *env_file*.

    It has ``NAME=value`` lines as a shell reads them, and ``#`` comments. Raises `ConfigError`
    where a line is neither.
    """
    env, problems = _settings_in(env_file)
    if problems:
        raise ConfigError(problems)
    return env


def _settings_in(env_file: Path) -> tuple[dict[str, str], list[str]]:
    """Give what *env_file* sets as far as it can be read, and what is wrong with the rest."""
    env: dict[str, str] = {}
    problems = []
    try:
        lines = env_file.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        return {}, [f"{env_file}: {reason}"]
    for number, line in enumerate(lines, 1):
        try:
            for word in _words(line):
                name, equals, value = word.partition("=")
                if equals and name.isidentifier():
                    env[name] = value
                elif word != "export":
                    problems.append(
                        f"{env_file}:{number}: expected NAME=value, got {word!r}; "
                        "a value with spaces needs quotes round it"
                    )
        except ValueError as error:
            problems.append(f"{env_file}:{number}: {error}")
    return env, problems


def _words(line: str) -> Iterator[str]:
    """Split *line* as a shell does, up to a comment: ``#`` where a word would begin."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    for word in lexer:
        if word.startswith("#"):
            return
        yield word


@dataclass(frozen=True, slots=True)
class Floor:
    """An amount of a disk: so many bytes, or so many percent of its size."""

    bytes: int = 0
    percent: float = 0.0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.percent > 0

    def of(self, total: int) -> int:
        """Say how many bytes that is on a disk of *total* bytes."""
        return max(self.bytes, min(total, int(total * self.percent / 100)))


def duration(text: str) -> float:
    """Read a Go duration (``0``, ``90s``, ``5m``, ``1h30m``, and days: ``2d``) as seconds.

    Source: the Go standard library's time.ParseDuration; a sign makes no sense here.
    """
    if text == "0":
        return 0.0
    total, position = 0.0, 0
    while match := _DURATION_PART.match(text, position):
        total += float(match[1]) * _DURATION_UNITS[match[2]]
        position = match.end()
    if position == 0 or position != len(text):
        raise ValueError("expected a duration such as 0, 90s, 5m, 1h30m or 2d")
    if total >= _LONGEST:
        raise ValueError("expected a duration of less than 292 years")
    return total


def size(text: str) -> int:
    """Read a size such as ``512M`` or ``8GiB`` as bytes; the units are powers of 1024."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("expected a size such as 0, 512M or 8G")
    return int(match[1]) * _SIZE_UNITS.get(match[2], 1)


def floor(text: str) -> Floor:
    """Read an amount of a disk: a size, or a percentage such as ``15%``."""
    match = _PERCENT.fullmatch(text)
    if match and float(match[1]) <= 100:
        return Floor(percent=float(match[1]))
    try:
        return Floor(bytes=size(text))
    except ValueError:
        raise ValueError("expected a size such as 2G, or a percentage such as 15%") from None


def boolean(text: str) -> bool:
    """Read ``true`` or ``false``, and what Go's strconv.ParseBool also takes."""
    if text.lower() in {"true", "t", "1"}:
        return True
    if text.lower() in {"false", "f", "0"}:
        return False
    raise ValueError("expected true or false")


def count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("expected a whole number such as 0 or 3")
    return int(text)


def threads(text: str) -> int:
    """Read a number of threads, 0 to 256."""
    number = count(text)
    if number > MOST_THREADS:
        raise ValueError(f"expected a whole number of at most {MOST_THREADS}")
    return number


def positive(text: str) -> int:
    """Read a whole number, 1 or more."""
    if count(text) == 0:
        raise ValueError("expected a whole number such as 1 or 16")
    return int(text)


def path(text: str) -> Path:
    """Read an absolute path."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("expected an absolute path")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected a path that is UTF-8") from None
    return Path(text)


def socket_path(text: str) -> Path:
    """Read an absolute path that is short enough to be a Unix socket's."""
    found = path(text)
    if len(os.fsencode(text)) > SOCKET_PATH_LIMIT:
        raise ValueError(f"expected a path of at most {SOCKET_PATH_LIMIT} bytes: it names a socket")
    return found


def path_or_off(text: str) -> Path | None:
    """Read an absolute path, or ``off``."""
    return None if text == "off" else path(text)


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise ValueError("expected names with commas between them")
    return found


def directory_name(text: str) -> str:
    """Read a name that can be a directory's: not empty, no slash, not ``.`` or ``..``."""
    if text in {".", ".."} or "/" in text or "\0" in text or len(os.fsencode(text)) > 255:
        raise ValueError("expected a name without a slash")
    return text


def address(text: str) -> str:
    """Read ``host:port``, as in ``0.0.0.0:19891``, ``[::]:19891`` or ``localhost:0``."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ValueError("expected host:port, such as 0.0.0.0:19891")
    return text


def address_or_off(text: str) -> str | None:
    """Read ``host:port``, or ``off``."""
    return None if text == "off" else address(text)
