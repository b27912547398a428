"""Put together what is known of a crash: from who saw it, its core's notes, its file and name."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from common.elf import CoreNotes
from common.item import Crash
from services.coremond.file_pattern import choose_reading

C = TypeVar("C", bound=Crash)


def gather(
    seen: Crash,
    readings: Sequence[Crash],
    notes: CoreNotes | None,
    status: os.stat_result,
    now: int,
) -> Crash:
    """Put the facts together: what was *seen* goes before the notes, these before the name.

    *readings* are what the name may mean.
    """
    told = notes or CoreNotes()
    named = choose_reading(readings, told.pid, told.comm)
    return replace(
        seen,
        pid=_first(seen.pid, told.pid, named.pid, seen.host_pid, named.host_pid),
        host_pid=_first(seen.host_pid, named.host_pid),
        tid=_first(seen.tid, told.tid, named.tid),
        uid=_first(seen.uid, told.uid, named.uid),
        gid=_first(seen.gid, told.gid, named.gid),
        signal=_first(seen.signal, told.signal, named.signal),
        comm=seen.comm or told.comm or named.comm,
        exe=seen.exe or named.exe,
        cmdline=seen.cmdline or told.cmdline,
        hostname=seen.hostname or named.hostname,
        rlimit=_first(seen.rlimit, named.rlimit),
        dumpable=_first(seen.dumpable, named.dumpable),
        crashed_at=_crashed_at(seen.crashed_at or named.crashed_at, status, now),
    )


def find_missing(crash: C, notes: CoreNotes | None, size: int) -> C:
    """Mark *crash* truncated if its core of *size* bytes is shorter than its own headers say."""
    missing = notes.expected_size - size if notes else 0
    if missing <= 0:
        return crash
    why = crash.truncated_why or f"{missing} bytes of it are missing"
    return replace(crash, truncated=True, truncated_why=why)


def _crashed_at(told: int, status: os.stat_result, now: int) -> int:
    """Give the moment that is told; the file's own may be anything, so it is bounded."""
    return min(now, told or max(0, status.st_mtime_ns))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
