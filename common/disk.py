"""How much of a disk cores may take: the settings that intake and store share."""

import os
from dataclasses import dataclass, field

from common.settings import EnvReader, Floor, floor, size

MOST_HOLES = 64
"""So many times its data a core may be long, before it is cut short."""
FULL_BELOW_PERCENT = 1.0
FULL_BELOW_BYTES = 64 * 2**20
"""A disk with less than both of these left is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskLimits:
    """The limits, in bytes."""

    max_core: int = 32 * 2**30
    """COREMON_MAX_CORE: a core with more data than this is cut short, and marked so; 0 = off."""

    keep_free: Floor = field(default_factory=lambda: Floor(percent=5))
    """COREMON_KEEP_FREE: what stays free on a disk, in bytes or percent; 0 = off."""

    @property
    def max_size(self) -> int:
        """How long a core may be with its holes, which cost a little too; 0 = no limit."""
        return MOST_HOLES * self.max_core

    def lacking(self, descriptor: int) -> int:
        """Say how many bytes are missing for the disk of *descriptor* to be free enough."""
        disk = os.fstatvfs(descriptor)
        wanted = self.keep_free.of(disk.f_blocks * disk.f_frsize)
        return max(0, wanted - disk.f_bavail * disk.f_frsize)


def is_full(total: int, available: int) -> bool:
    """Say whether a disk of *total* bytes is full."""
    return available < min(FULL_BELOW_BYTES, total * FULL_BELOW_PERCENT / 100)


def read_disk_limits(reader: EnvReader) -> DiskLimits:
    """Read the limits from the environment."""
    default = DiskLimits()
    return DiskLimits(
        max_core=reader.read("COREMON_MAX_CORE", size, default.max_core),
        keep_free=reader.read("COREMON_KEEP_FREE", floor, default.keep_free),
    )
