"""What a program measures and misses, told to whoever asks at a socket in the run directory."""

import os
import resource
import select
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from common.answering import Answering
from common.item import to_json
from common.metrics import Family, Registry

ANSWER_WITHIN = 2.0
"""Seconds after which a program that has not answered is hung, or is not there."""
_LIMIT = 16 * 2**20
_MODE = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How a program is, as it sees itself."""

    faults: tuple[str, ...] = ()
    """What is wrong, each in a line; empty where all is well."""
    is_hung: bool = False
    """Only a restart helps: its work stands still."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a program tells when it is asked."""

    state: State
    cpu_seconds: float
    resident_bytes: int
    families: tuple[Family, ...]


def socket_of(run_dir: Path, program: str) -> Path:
    """Say where *program* answers; the name is short, for a socket's path may have 107 bytes."""
    return run_dir / f"{program}.mon"


@contextmanager
def monitored(
    run_dir: Path, program: str, registry: Registry, state: Callable[[], State]
) -> Iterator[None]:
    """Answer for *program* while the block runs, in a thread of its own."""

    def answer(_received: bytes) -> bytes:
        return to_json(report_of(registry, state()))

    path = socket_of(run_dir, program)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mark = _listen(listener, path)
    with Answering(listener, answer):
        yield
        with suppress(OSError):  # another program of that name may answer there by now
            if _mark_of(path) == mark:
                path.unlink()


def report_of(registry: Registry, state: State) -> Report:
    """Read all that this program measures."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Report(
        state=state,
        cpu_seconds=used.ru_utime + used.ru_stime,
        resident_bytes=_resident_bytes(),
        families=tuple(registry.families()),
    )


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _listen(listener: socket.socket, path: Path) -> tuple[int, int]:
    """Listen at *path*, in the place of whatever socket was there: the newest answers."""
    hidden = path.with_name(f".{path.name}")
    hidden.unlink(missing_ok=True)
    listener.bind(str(hidden))
    os.chmod(hidden, _MODE)
    listener.listen()
    mark = _mark_of(hidden)
    os.rename(hidden, path)
    return mark


def _mark_of(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@dataclass(slots=True)
class _Asked:
    """A program that was asked, and what it has said so far."""

    program: str
    socket: socket.socket
    said: bytearray


def ask(
    run_dir: Path, programs: Collection[str], within: float = ANSWER_WITHIN
) -> dict[str, Report]:
    """Ask all *programs* at once; who does not answer *within* so many seconds is left out."""
    asked: dict[int, _Asked] = {}
    reports: dict[str, Report] = {}
    poll, waiting = select.poll(), 0
    deadline = time.monotonic() + within
    try:
        for program in programs:
            one = _Asked(program, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), bytearray())
            asked[one.socket.fileno()] = one
            one.socket.setblocking(False)
            with suppress(OSError):
                one.socket.connect(str(socket_of(run_dir, program)))
                poll.register(one.socket, select.POLLIN)
                waiting += 1
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready = poll.poll(left * 1000)
            for descriptor, _ in ready:
                one = asked[descriptor]
                if _hear(one):
                    continue
                poll.unregister(descriptor)
                waiting -= 1
                with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    reports[one.program] = msgspec.json.decode(one.said, type=Report)
    finally:
        for one in asked.values():
            one.socket.close()
    return reports


def _hear(one: _Asked) -> bool:
    """Take what a program says; False once that is all."""
    try:
        said = one.socket.recv(2**18)
    except BlockingIOError:
        return True
    except OSError:
        return False
    one.said += said
    return bool(said) and len(one.said) <= _LIMIT
