"""How much of the machine packing may take: the settings that intake and store share."""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum

from common.cpus import available_cpus
from common.settings import EnvReader, count, threads

MOST_UNASKED = 16
"""Threads there are at most where nobody set their number: more would wait for the disk."""

MOST_NICE = 19

_IOPRIO_WHO_PROCESS = 1  # which is a thread, as everywhere in Linux's scheduling; 0 = the caller
_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_CLASS_MASK = 7
_SYS_IOPRIO = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""ioprio_set and ioprio_get, for which the C library has no functions."""

_BEST_EFFORT = re.compile("best-effort:([0-7])")


class IoClass(IntEnum):
    """How the kernel's I/O schedulers sort threads: ioprio_set(2)."""

    NONE = 0
    """What a thread has that was never given one: best-effort, by its niceness."""

    BEST_EFFORT = 2
    IDLE = 3


@dataclass(frozen=True, slots=True)
class IoPriority:
    """A class, and within best-effort a level from 0 (high) to 7."""

    io_class: IoClass = IoClass.NONE
    level: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How many threads pack, and how far they stand back for others."""

    workers: int = 0
    """COREMON_WORKERS: threads that pack; 0 = one for each CPU that the affinity and the quotas of
    the cgroups leave, at most 16."""

    nice: int = 10
    """COREMON_NICE: the niceness of threads that pack, 0 to 19; a higher one they have stays."""

    io_priority: IoPriority = field(default_factory=lambda: IoPriority(IoClass.BEST_EFFORT, 7))
    """COREMON_IO_PRIORITY: their I/O priority: `idle`, `best-effort:0` (high) to `best-effort:7`,
    or `none` to leave it as it is; what is idle stays so."""

    @property
    def threads(self) -> int:
        """How many threads pack."""
        return self.workers or min(available_cpus(), MOST_UNASKED)

    def calm(self) -> None:
        """Give the calling thread its niceness and its I/O priority.

        What the thread starts from now on inherits both. A thread that is nicer, or idle, stays so;
        and where the system refuses, it stays as it was.
        """
        with suppress(OSError):
            nice = max(self.nice, os.getpriority(os.PRIO_PROCESS, 0))
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        _stand_back(self.io_priority)


def _stand_back(priority: IoPriority) -> None:
    """Give the calling thread *priority*, unless it is idle already."""
    machine = platform.machine() if sys.maxsize > 2**32 else ""  # 32 bits have other numbers
    if priority.io_class == IoClass.NONE or machine not in _SYS_IOPRIO:
        return
    ioprio_set, ioprio_get = _SYS_IOPRIO[machine]
    syscall = ctypes.CDLL(None).syscall
    now = syscall(ioprio_get, _IOPRIO_WHO_PROCESS, 0)  # -1, which is no class, where it is refused
    if now >> _IOPRIO_CLASS_SHIFT & _IOPRIO_CLASS_MASK != IoClass.IDLE:
        wanted = priority.io_class << _IOPRIO_CLASS_SHIFT | priority.level
        syscall(ioprio_set, _IOPRIO_WHO_PROCESS, 0, wanted)


def niceness(text: str) -> int:
    """Read a niceness that anyone may take, 0 to 19."""
    number = count(text)
    if number > MOST_NICE:
        raise ValueError(f"expected a whole number of at most {MOST_NICE}")
    return number


def io_priority(text: str) -> IoPriority:
    """Read ``idle``, ``none``, or ``best-effort:`` with a level from 0 to 7."""
    if text in {"idle", "none"}:
        return IoPriority(IoClass[text.upper()])
    match = _BEST_EFFORT.fullmatch(text)
    if not match:
        raise ValueError("expected idle, none, or best-effort:0 to best-effort:7")
    return IoPriority(IoClass.BEST_EFFORT, int(match[1]))


def read_effort(reader: EnvReader) -> Effort:
    """Read the effort from the environment."""
    default = Effort()
    return Effort(
        workers=reader.read("COREMON_WORKERS", threads, default.workers),
        nice=reader.read("COREMON_NICE", niceness, default.nice),
        io_priority=reader.read("COREMON_IO_PRIORITY", io_priority, default.io_priority),
    )
