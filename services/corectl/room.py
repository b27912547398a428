"""How much room is left for cores, and how much is in it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.record import CrashRecord

FULL_BELOW_PERCENT = 1.0
FULL_BELOW_BYTES = 64 * 2**20
"""A disk with less than both of these left is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """The disk that a directory is on."""

    path: str
    total: int = 0
    available: int = 0
    is_full: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """The records, counted by their state."""

    stored: int = 0
    held: int = 0
    removed: int = 0
    bytes: int = 0
    """What the stored cores take up."""


def is_full(total: int, available: int) -> bool:
    """Say whether a disk of *total* bytes is full."""
    return available < min(FULL_BELOW_BYTES, total * FULL_BELOW_PERCENT / 100)


def look_at_disk(path: Path) -> Disk:
    """Ask the system how full the disk of the directory *path* is."""
    found = os.statvfs(path)
    total, available = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return Disk(path=str(path), total=total, available=available, is_full=is_full(total, available))


def count_waiting(crash_dir: Path) -> int:
    """Count the files in the crash directory, less those still being written under a dot."""
    with os.scandir(crash_dir) as entries:
        return sum(
            not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
            for entry in entries
        )


def tally(records: Iterable[CrashRecord]) -> Tally:
    """Count *records*."""
    counts = {"stored": 0, "held": 0, "removed": 0}
    size = 0
    for record in records:
        counts[record.state] += 1
        size += record.packed if record.state == "stored" else 0
    return Tally(**counts, bytes=size)
