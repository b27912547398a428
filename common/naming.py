"""Names of core files: how they are written, and every way one can be read.

Stored:  ``core.<pod>.<container>.<process>.<pid>.<timestamp>.gz`` (or .zst, .lz4), each part
percent-encoded, dots included, so that the name splits at its dots.
Sources: ``core.<process>.<pid>.<host>.<timestamp>`` (core(5): ``core.%e.%p.%h.%t``), where the
kernel leaves dots as they are, so that one name can have several readings.
Timestamps are nanoseconds (19 digits); seconds (10 digits) are read too.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from common.errors import NamingError
from common.item import CodecName, clean
from common.settings import NANOSECONDS

MOST_PID = 2**32 - 1
PREFIX = "core."
SIDECAR_SUFFIX = ".item"
SPOOL = ".spool"
"""The directory in the crash directory that crashagent has for itself, mode 0700."""
INTAKE_PREFIX = ".intake."
PART_SUFFIX = ".part"
CORE_SUFFIXES: dict[CodecName, str] = {"gzip": ".gz", "zstd": ".zst", "lz4": ".lz4"}
CHECKSUM_SUFFIX = ".crc"
"""What the core's whole name is followed by."""
RECORD_SUFFIX = ".json"
LOG_SUFFIX = ".log"
"""Of the end of the container's log."""

# The parts share the 205 bytes that the rest of the longest name leaves of NAME_MAX (255).
_POD_LIMIT, _CONTAINER_LIMIT, _PROCESS_LIMIT = 96, 63, 46
_HOST_LIMIT = 128


def encode(text: str, limit: int = 255) -> str:
    """Write *text* so that it can be a part of a file name: at most *limit* ASCII characters.

    What is cut off is whole ``%XX`` triplets.
    """
    encoded = quote(text, safe="", errors="surrogateescape").replace(".", "%2E")
    if len(encoded) <= limit:
        return encoded
    cut = encoded[:limit]
    broken = cut.rfind("%", limit - 2)
    return cut if broken < 0 else cut[:broken]


def decode(part: str) -> str:
    """Read what `encode` wrote."""
    return clean(unquote_to_bytes(part.encode("utf-8", "surrogateescape")))


def encode_name(name: str) -> str:
    """Write a whole file *name* as plain text: as `encode`, but its dots stay."""
    return encode(name, limit=3 * 255).replace("%2E", ".")


def decode_name(text: str) -> str:
    """Read what `encode_name` wrote, as the file system has it."""
    return os.fsdecode(unquote_to_bytes(text))


def is_number(text: str) -> bool:
    """Say whether *text* is an unsigned ASCII number of a pid's size."""
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MOST_PID


def read_timestamp(text: str) -> int:
    """Read a moment as names have it, as nanoseconds since the epoch; raises `NamingError`."""
    if text.isascii() and text.isdecimal():
        if len(text) == 19:
            return int(text)
        if len(text) == 10:
            return int(text) * NANOSECONDS
    raise NamingError(f"expected a timestamp of 10 or 19 digits, got {text[:64]!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreName:
    """The name of a stored core, without its suffix."""

    pod: str
    container: str
    process: str
    pid: int
    crashed_at: int
    """Nanoseconds since the epoch."""

    def __str__(self) -> str:
        return (
            f"{PREFIX}{encode(self.pod, _POD_LIMIT)}.{encode(self.container, _CONTAINER_LIMIT)}."
            f"{encode(self.process, _PROCESS_LIMIT)}.{self.pid}.{self.crashed_at:019d}"
        )

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a stored core's name, without its suffix; raises `NamingError`."""
        match name.split("."):
            case ["core", pod, container, process, pid, timestamp] if is_number(pid):
                return cls(
                    pod=decode(pod),
                    container=decode(container),
                    process=decode(process),
                    pid=int(pid),
                    crashed_at=read_timestamp(timestamp),
                )
            case _:
                raise NamingError(f"expected {PREFIX}<pod>.<container>.<process>.<pid>.<time>")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceName:
    """One reading of a source's name."""

    process: str
    pid: int
    host: str
    crashed_at: int
    """Nanoseconds since the epoch."""

    def __str__(self) -> str:
        return (
            f"{PREFIX}{encode(self.process, _PROCESS_LIMIT)}.{self.pid}."
            f"{encode(self.host, _HOST_LIMIT)}.{self.crashed_at:019d}"
        )


def is_core_name(name: str) -> bool:
    """Say whether a file of this *name* in a crash directory is taken for a core."""
    return name == "core" or name.startswith(PREFIX)


def read_source_name(name: str) -> list[SourceName]:
    """Give every reading of a source's *name*, the likeliest first; none raises `NamingError`.

    A program's name often has a number after a dot (``python3.11``) and a host's seldom, so the
    later a number stands, the likelier it is the pid.
    """
    match name.split("."):
        case ["core", *middle, timestamp] if middle:
            crashed_at = read_timestamp(timestamp)
        case _:
            raise NamingError(f"expected {PREFIX}<process>.<pid>.<host>.<time>")
    readings = [
        SourceName(
            process=decode(".".join(middle[:place])),
            pid=int(part),
            host=decode(".".join(middle[place + 1 :])),
            crashed_at=crashed_at,
        )
        for place, part in enumerate(middle)
        if is_number(part) and 0 < place < len(middle) - 1
    ]
    if not readings:
        raise NamingError(f"expected a pid between process and host in {name[:255]!r}")
    return readings[::-1]


def choose_reading(readings: list[SourceName], pid: int | None, comm: str) -> SourceName:
    """Choose the reading that the core's own notes (*pid*, *comm*) agree with most."""
    return max(
        readings,
        key=lambda reading: (reading.pid == pid, reading.process == comm, -readings.index(reading)),
    )


def sidecar_name(source: str) -> str:
    """Name the file of the spool in which crashagent leaves the item of *source*."""
    return f".{source}{SIDECAR_SUFFIX}"


def source_of_sidecar(name: str) -> str:
    """Give the name of the source whose sidecar *name* is; empty if it is none."""
    if name.startswith("." + PREFIX) and name.endswith(SIDECAR_SUFFIX):
        return name.removeprefix(".").removesuffix(SIDECAR_SUFFIX)
    return ""


def moment_of(source: str) -> int | None:
    """Give the moment (ns) that the name of a *source* of crashagent's ends in; None without."""
    text = source.rpartition(".")[2]
    return int(text) if len(text) == 19 and text.isascii() and text.isdecimal() else None


def part_name(crashed_at: int) -> str:
    """Name the file of the spool in which a core comes in; *crashed_at* is its crash's alone."""
    return f"{INTAKE_PREFIX}{crashed_at:019d}{PART_SUFFIX}"


def short_id(core_name: str) -> str:
    """Give the id of the crash whose core is called *core_name* (no suffix): 12 hex digits."""
    return hashlib.sha256(core_name.encode()).hexdigest()[:12]
