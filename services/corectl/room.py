"""How much room is left for cores, and how much is in it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.disk import is_full
from common.naming import is_core_name
from common.record import CrashRecord, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """The disk that a directory is on."""

    path: str
    total: int = 0
    available: int = 0
    is_full: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The cores that wait in the crash directory."""

    number: int = 0
    oldest: float = 0.0
    """Seconds since the oldest was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """The records, counted by their state."""

    stored: int = 0
    held: int = 0
    removed: int = 0
    bytes: int = 0
    """What the stored cores take up."""


def look_at_disk(path: Path) -> Disk:
    """Ask the system how full the disk of the directory *path* is."""
    found = os.statvfs(path)
    total, available = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return Disk(path=str(path), total=total, available=available, is_full=is_full(total, available))


def look_at_waiting(crash_dir: Path, records: Iterable[CrashRecord], now: float) -> Waiting:
    """Look for cores in the crash directory that none of the *records* has taken in."""
    known = {source.key for record in records for source in record.sources}
    ages = []
    with os.scandir(crash_dir) as entries:
        for entry in entries:
            if is_core_name(entry.name) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if Source.of(entry.name, status).key not in known:
                    ages.append(now - status.st_ctime)
    return Waiting(number=len(ages), oldest=max(ages, default=0.0))


def tally(records: Iterable[CrashRecord]) -> Tally:
    """Count *records*."""
    counts = {"stored": 0, "held": 0, "removed": 0}
    size = 0
    for record in records:
        counts[record.state] += 1
        size += record.occupied if record.state == "stored" else 0
    return Tally(**counts, bytes=size)
