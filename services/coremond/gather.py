"""Put together what is known of a crash: from its item, its core's notes, its file and its name."""

import os
from dataclasses import fields, replace
from typing import TypeVar

from common import naming
from common.elf import CoreNotes
from common.errors import NamingError
from common.item import Crash, CrashItem
from common.naming import SourceName

C = TypeVar("C", bound=Crash)


def gather(
    name: str, item: CrashItem | None, notes: CoreNotes | None, status: os.stat_result, now: int
) -> Crash:
    """Put the facts together: what intake saw goes before the notes, these before the name."""
    told = notes or CoreNotes()
    named = _reading(name, told)
    crash = _crash_of(item) if item else Crash()
    return replace(
        crash,
        pid=_first(crash.pid, told.pid, named.pid if named else None),
        tid=_first(crash.tid, told.tid),
        uid=_first(crash.uid, told.uid),
        gid=_first(crash.gid, told.gid),
        signal=_first(crash.signal, told.signal),
        comm=crash.comm or told.comm or (named.process if named else ""),
        cmdline=crash.cmdline or told.cmdline,
        hostname=crash.hostname or (named.host if named else ""),
        crashed_at=_crashed_at(crash, named, status, now),
    )


def find_missing(crash: C, notes: CoreNotes | None, size: int) -> C:
    """Mark *crash* truncated if its core of *size* bytes is shorter than its own headers say."""
    missing = notes.expected_size - size if notes else 0
    if missing <= 0:
        return crash
    why = crash.truncated_why or f"{missing} bytes of it are missing"
    return replace(crash, truncated=True, truncated_why=why)


def _crashed_at(crash: Crash, named: SourceName | None, status: os.stat_result, now: int) -> int:
    """Give the moment that is told first; a file's own may be anything, so it is bounded."""
    told = crash.crashed_at or (named.crashed_at if named else 0)
    return min(now, told or max(0, status.st_mtime_ns))


def _reading(name: str, notes: CoreNotes) -> SourceName | None:
    try:
        readings = naming.read_source_name(name)
    except NamingError:
        return None
    return naming.choose_reading(readings, notes.pid, notes.comm)


def _crash_of(item: CrashItem) -> Crash:
    return Crash(**{field.name: getattr(item, field.name) for field in fields(Crash)})


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
