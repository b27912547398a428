"""Which devices are read without waiting for anybody: a mapped file may be one that nobody serves.

A file system in user space (FUSE) answers when it likes, and anybody may mount one in a user
namespace of his own; a network's server may be gone. Source: proc_pid_mountinfo(5).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from services.crashagent.process import Held

_LOCAL = frozenset(
    b"ext2 ext3 ext4 xfs btrfs f2fs zfs bcachefs jfs vfat exfat tmpfs ramfs devtmpfs hugetlbfs "
    b"squashfs erofs iso9660".split()
)
_OVERLAY = b"overlay"
"""Local only where it is the host's: who mounts his own may lay it over anything."""
_NO_FILE = "00:00"


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a process's files are on, as far as they are local."""

    local: frozenset[str]

    @classmethod
    def seen_by(cls, held: Held) -> Self:
        """Read the mounts that *held* sees; OSError where they cannot be read."""
        hosts = frozenset[str]()
        with suppress(OSError), open("/proc/1/mountinfo", "rb") as file:
            hosts = _of_kinds(file.read(), _LOCAL | {_OVERLAY})
        own = _of_kinds(held.read_all("mountinfo"), _LOCAL)
        return cls(own | hosts | _kernels_own() | {_NO_FILE})

    def is_local(self, device: str) -> bool:
        """Say whether the files of *device*, ``major:minor`` in hexadecimal, are there at once."""
        return device in self.local


def _of_kinds(mountinfo: bytes, kinds: frozenset[bytes]) -> frozenset[str]:
    found = set()
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        if after and after.split()[0] in kinds:
            major, _, minor = before.split()[2].partition(b":")
            found.add(_shown(int(major), int(minor)))
    return frozenset(found)


@lru_cache(maxsize=1)
def _kernels_own() -> frozenset[str]:
    """Give the devices of shared memory that has no file, which are mounted nowhere."""
    found = set()
    for flags in (0, 0x4):  # MFD_HUGETLB
        with suppress(OSError):
            descriptor = os.memfd_create("of-this-device", flags | os.MFD_CLOEXEC)
            device = os.fstat(descriptor).st_dev
            os.close(descriptor)
            found.add(_shown(os.major(device), os.minor(device)))
    return frozenset(found)


def _shown(major: int, minor: int) -> str:
    """Write a device as /proc/<pid>/maps does."""
    return f"{major:02x}:{minor:02x}"
