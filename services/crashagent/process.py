"""What /proc tells of a process that is being dumped, for as long as it is held.

Sources: proc(5), namespaces(7). All of it but the numbers is chosen by the process: hostile.
"""

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import Any

from common.cgroup import choose_path, read_placement
from common.item import Arrival, Crash, clean
from common.settings import NANOSECONDS

_LIMIT = 64 * 1024  # bytes of a /proc file that are read
_MOST_THREADS = 1024
"""That are looked at, where the main thread has ended."""
_CLONE_NEWUTS = 0x04000000
_STATUS_LINE = re.compile(rb"^(Uid|Gid|NSpid|CoreDumping):\t(.*)$", re.MULTILINE)
_CORE_LIMIT = re.compile(rb"^Max core file size +(\d+) ", re.MULTILINE | re.ASCII)


@dataclass(frozen=True, slots=True)
class _Status:
    """The lines of /proc/<pid>/status that matter."""

    uid: int
    gid: int
    pids: tuple[int, ...]
    """The pid in each pid namespace, from the reader's to the process's own."""
    is_dumping: bool


class Held:
    """A process that is being dumped, for as long as whoever takes its core holds it.

    What is opened through it is that process's, whoever has its number later.
    """

    def __init__(self, directory: int, pid: int, status: _Status) -> None:
        self._directory = directory
        self._pid = pid
        self._status = status

    def close(self) -> None:
        """Let go of its directory."""
        os.close(self._directory)

    def open(self, name: str) -> int:
        """Open a file of its directory in /proc."""
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)

    def read_all(self, name: str) -> bytes:
        """Read such a file to its end."""
        with open(self.open(name), "rb") as file:
            return file.read()

    @property
    def uid(self) -> int:
        """Its real user."""
        return self._status.uid

    def comm(self) -> str:
        """Read the name that it gave itself; empty where that cannot be read."""
        with suppress(OSError):
            return clean(_read(self._directory, "comm").removesuffix(b"\n"))
        return ""

    def hostname(self) -> str:
        """Read the host name in its UTS namespace; empty where that is also ours."""
        with suppress(OSError):
            return _foreign_hostname(self._directory)
        return ""

    def crash(self, arrived: Arrival) -> Crash:
        """Read what tells whose it is, and no more."""
        cgroup: dict[str, Any] = {}
        with suppress(OSError):
            cgroup = _read_cgroup(_read(self._directory, "cgroup"))
        return Crash(arrived=arrived, comm=self.comm(), hostname=self.hostname(), **cgroup)

    def facts(self) -> dict[str, Any]:
        """Read all, by the names that facts have in a `Crash`."""
        facts = {
            "host_pid": self._pid,
            "pid": self._status.pids[-1],
            "uid": self._status.uid,
            "gid": self._status.gid,
            **_read_details(self._directory),
        }
        named = {"comm": self.comm(), "hostname": self.hostname()}
        return facts | {name: value for name, value in named.items() if value}


def hold(pid: int, own_pid: int | None = None) -> Held | None:
    """Find the process *pid*.

    The result is None where it is not one that is being dumped, or not the one whose pid in its own
    namespace is *own_pid*: then the number belongs to someone else.
    """
    try:
        process = _open(pid)
    except (OSError, OverflowError):
        return None
    with suppress(OSError, ValueError, LookupError):
        status = _read_status(process)
        if own_pid in {None, 0, status.pids[-1]}:
            if status.is_dumping:
                return Held(process, pid, status)
            if (thread := _dumping_thread(process)) is not None:
                os.close(process)
                return Held(thread, pid, status)
    os.close(process)
    return None


def _dumping_thread(process: int) -> int | None:
    """Open the directory of a thread with memory, where the main thread has ended before."""
    tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    try:
        for name in os.listdir(tasks)[:_MOST_THREADS]:
            thread = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tasks)
            with suppress(OSError, ValueError, LookupError):
                if _read_status(thread).is_dumping:
                    return thread
            os.close(thread)
    finally:
        os.close(tasks)
    return None


def _open(pid: int) -> int:
    return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _read(process: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        return os.read(descriptor, _LIMIT)
    finally:
        os.close(descriptor)


def _read_status(process: int) -> _Status:
    lines = dict(_STATUS_LINE.findall(_read(process, "status")))
    return _Status(
        uid=int(lines[b"Uid"].split()[0]),
        gid=int(lines[b"Gid"].split()[0]),
        pids=tuple(int(pid) for pid in lines[b"NSpid"].split()),
        is_dumping=lines.get(b"CoreDumping", b"").strip() == b"1",  # since Linux 4.15
    )


def _read_details(process: int) -> dict[str, Any]:
    """Give what may be missing without a harm; what cannot be read is left out."""
    details: dict[str, Any] = {}
    with suppress(OSError):
        details["exe"] = clean(os.readlink(b"exe", dir_fd=process))
    with suppress(OSError):
        details["cmdline"] = clean(_read(process, "cmdline").rstrip(b"\0").replace(b"\0", b" "))
    with suppress(OSError, ValueError):
        if soft := _CORE_LIMIT.search(_read(process, "limits")):
            details["rlimit"] = int(soft[1])
    with suppress(OSError, ValueError, LookupError, StopIteration):
        details["started_at"] = _started_at(_read(process, "stat"))
    with suppress(OSError):
        details.update(_read_cgroup(_read(process, "cgroup")))
    return details


def _started_at(stat: bytes) -> int:
    # The name stands in parentheses and may hold any byte, parentheses too: count from the last.
    ticks = int(stat.rpartition(b")")[2].split()[19])
    return _booted_at() * NANOSECONDS + ticks * NANOSECONDS // os.sysconf("SC_CLK_TCK")


@lru_cache(maxsize=1)
def _booted_at() -> int:
    """Read when the machine started, seconds since the epoch."""
    with open("/proc/stat", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"btime "))


def _read_cgroup(text: bytes) -> dict[str, str]:
    """Give the cgroup that tells most of the process, and the container that it stands for."""
    path = choose_path(text)
    return {"cgroup": path, "container_id": read_placement(path).container_id} if path else {}


def _foreign_hostname(process: int) -> str:
    """Give the host name in the process's UTS namespace; empty where that is also ours."""
    namespace = os.open("ns/uts", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        if os.path.sameopenfile(namespace, _own_uts()):
            return ""
        return _hostname_in(namespace)
    finally:
        os.close(namespace)


def _own_uts() -> int:
    if not _own_uts_cache:
        _own_uts_cache.append(os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC))
    return _own_uts_cache[0]


_own_uts_cache: list[int] = []


def _hostname_in(namespace: int) -> str:
    """Enter *namespace* in a thread that ends at once, for a thread may have its own."""
    found: list[str] = []

    def look() -> None:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWUTS) == 0:
            found.append(clean(os.fsencode(os.uname().nodename)))

    thread = Thread(target=look)
    thread.start()
    thread.join()
    return found[0] if found else ""
