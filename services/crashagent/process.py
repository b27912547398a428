"""What /proc tells of a process that is being dumped, for as long as it is held.

Sources: proc(5), namespaces(7). All of it but the numbers is chosen by the process: hostile.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

from common.item import clean
from common.settings import NANOSECONDS

_LIMIT = 64 * 1024  # bytes of a /proc file that are read
_CLONE_NEWUTS = 0x04000000
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Status:
    """The lines of /proc/<pid>/status that matter."""

    uid: int
    gid: int
    pids: tuple[int, ...]
    """The pid in each pid namespace, from the reader's to the process's own."""
    is_dumping: bool


def read_process(pid: int, own_pid: int | None) -> dict[str, Any]:
    """Give the facts of the process *pid*, by the names they have in a `Crash`.

    Nothing is given where it is not a process that is being dumped, or not the one whose pid in
    its own namespace is *own_pid*: then the number belongs to someone else.
    """
    try:
        with _opened(pid) as process:
            status = _read_status(process)
            if not status.is_dumping or (own_pid and status.pids[-1] != own_pid):
                return {}
            facts = {
                "host_pid": pid,
                "pid": status.pids[-1],
                "uid": status.uid,
                "gid": status.gid,
                **_read_details(process),
            }
    except (OSError, ValueError, LookupError):
        return {}
    return facts


@contextmanager
def _opened(pid: int) -> Iterator[int]:
    descriptor = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(process: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        return os.read(descriptor, _LIMIT)
    finally:
        os.close(descriptor)


def _read_status(process: int) -> _Status:
    lines = dict(
        line.split(b":\t", 1) for line in _read(process, "status").split(b"\n") if b":\t" in line
    )
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
        details["comm"] = clean(_read(process, "comm").removesuffix(b"\n"))
    with suppress(OSError):
        details["exe"] = clean(os.readlink(b"exe", dir_fd=process))
    with suppress(OSError):
        details["cmdline"] = clean(_read(process, "cmdline").rstrip(b"\0").replace(b"\0", b" "))
    with suppress(OSError, ValueError, LookupError, StopIteration):
        details["started_at"] = _started_at(_read(process, "stat"))
    with suppress(OSError):
        details.update(_read_cgroup(_read(process, "cgroup")))
    with suppress(OSError):
        hostname = _foreign_hostname(process)
        if hostname:
            details["hostname"] = hostname
    return details


def _started_at(stat: bytes) -> int:
    # The name stands in parentheses and may hold any byte, parentheses too: count from the last.
    ticks = int(stat.rpartition(b")")[2].split()[19])
    with open("/proc/stat", "rb") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    return booted * NANOSECONDS + ticks * NANOSECONDS // os.sysconf("SC_CLK_TCK")


def _read_cgroup(text: bytes) -> dict[str, str]:
    """Give the cgroup path, of version 2 or else the longest, and the container id in any.

    On a host with both versions, that of version 2 may be the root, which tells nothing.
    """
    lines = [line.split(b":", 2) for line in text.split(b"\n") if line.count(b":") >= 2]
    if not lines:
        return {}
    paths = [clean(path) for _, _, path in lines]
    unified = [clean(path) for number, _, path in lines if number == b"0" and path != b"/"]
    found = [match[-1] for path in paths if (match := _CONTAINER_ID.findall(path))]
    return {
        "cgroup": unified[0] if unified else max(paths, key=len),
        "container_id": found[0] if found else "",
    }


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
