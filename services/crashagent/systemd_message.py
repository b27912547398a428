"""What a sender at systemd-coredump's socket says of a crash: fields, all of them hostile.

Each is a datagram ``COREDUMP_<NAME>=<value>``; a value may be any bytes but NUL. What is missing or
broken loses that fact and nothing else: which fields there are differs with the sender's version.
Source: systemd, src/coredump/coredump.c, gather_pid_metadata() and send_iovec(), from 229 to 256;
later coredump-context.c, coredump-send.c and coredump-receive.c.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common.cgroup import read_placement
from common.item import clean

FIELD_SIZE = 16 * 1024
"""Bytes of a field that are read; of a longer one (all its mappings, say), no more is needed."""
MOST_FIELDS = 256
MOST_BYTES = 256 * 1024
"""Of all fields that are kept of one sender."""
MOST_PROBLEMS = 8

_PREFIX = b"COREDUMP_"
_NUMBERS = {
    "PID": (1, 2**31 - 1),
    "UID": (0, 2**32 - 2),
    "GID": (0, 2**32 - 2),
    "SIGNAL": (1, 255),
    "RLIMIT": (0, 2**64 - 1),
    "DUMPABLE": (0, 2),
    "TID": (1, 2**31 - 1),
}
_UNLIMITED = 2**64 - 1
_TEXTS = {"COMM": 64, "HOSTNAME": 256, "EXE": 4096, "CMDLINE": 4096, "CGROUP": 4096}
_OTHERS = {"FORWARDED", "PROC_STATUS"}
_DETAILS = (
    *("TIMESTAMP", "SIGNAL_NAME", "UNIT", "USER_UNIT", "SLICE", "SESSION", "OWNER_UID"),
    *("CWD", "ROOT", "CONTAINER_CMDLINE", "THREAD_NAME", "CODE", "FORWARDED"),
)
"""They go into the record as they were told. The environment does not: it holds secrets."""
_DETAIL_SIZE = 1024
_WANTED = {*_NUMBERS, *_TEXTS, *_OTHERS, *_DETAILS}

_OWN_PID = re.compile(rb"^NSpid:(?:[ \t]+\d{1,10})*[ \t]+(\d{1,10})$", re.MULTILINE | re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemdCrash:
    """What a sender said, by the names that facts have in a `Crash`."""

    pid: int | None = None
    host_pid: int | None = None
    tid: int | None = None
    uid: int | None = None
    gid: int | None = None
    signal: int | None = None
    rlimit: int | None = None
    dumpable: int | None = None
    comm: str = ""
    exe: str = ""
    cmdline: str = ""
    hostname: str = ""
    cgroup: str = ""
    container_id: str = ""
    details: dict[str, str] | None = None

    def facts(self) -> dict[str, Any]:
        """Give what was told, and nothing that was not."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in told.items() if value not in (None, "")}


@dataclass(slots=True)
class Fields:
    """Gathers what one sender says, as far as it is of use."""

    number: int = 0
    """Of all fields that came."""
    problems: list[str] = field(default_factory=list)
    """What was passed over, and why."""
    _values: dict[str, bytes] = field(default_factory=dict)
    _size: int = 0

    def add(self, datagram: bytes) -> None:
        """Take one field in, of which no more than `FIELD_SIZE` bytes are given."""
        self.number += 1
        if self.number > MOST_FIELDS:
            self.complain(f"more than {MOST_FIELDS} fields")
            return
        label, equals, value = datagram.partition(b"=")
        name = label.removeprefix(_PREFIX).decode("ascii", "replace")
        if not equals:
            self.complain(f"expected <name>=<value>, got {datagram[:32]!r}")
        elif name not in _WANTED or not label.startswith(_PREFIX):
            return  # MESSAGE_ID and PRIORITY, for one, are for systemd's journal
        elif name in self._values:
            self.complain(f"a second {name}")
        elif b"\0" in value:
            self.complain(f"a NUL in {name}")
        elif self._size + len(value) > MOST_BYTES:
            self.complain(f"more than {MOST_BYTES} bytes of fields")
        else:
            self._values[name] = value
            self._size += len(value)

    def complain(self, problem: str) -> None:
        """Note a *problem* once, of the first few."""
        if problem not in self.problems and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)

    def crash(self) -> SystemdCrash:
        """Understand what was said; what cannot be read is a problem, and not a fact."""
        numbers = {name: self._read(name, _number(name)) for name in _NUMBERS}
        texts = {name.lower(): self._read(name, _text(most)) or "" for name, most in _TEXTS.items()}
        pid, rlimit = numbers["PID"], numbers["RLIMIT"]
        own_pid = self._own_pid()
        return SystemdCrash(
            host_pid=pid,
            pid=own_pid,
            # It is numbered where the sender is: its own number is the same only in that namespace.
            tid=numbers["TID"] if pid == own_pid else None,
            uid=numbers["UID"],
            gid=numbers["GID"],
            signal=numbers["SIGNAL"],
            rlimit=None if rlimit == _UNLIMITED else rlimit,
            dumpable=numbers["DUMPABLE"],
            container_id=read_placement(texts["cgroup"]).container_id,
            details=self._details() or None,
            **texts,
        )

    def _own_pid(self) -> int | None:
        """Give the pid in the process's own namespace, which is the sender's where it forwards."""
        if found := _OWN_PID.search(self._values.get("PROC_STATUS", b"")):
            return _number("PID")(found[1]) if 0 < int(found[1]) < 2**31 else None
        return self._read("PID", _number("PID")) if self._values.get("FORWARDED") == b"1" else None

    def _details(self) -> dict[str, str]:
        told = {name: self._values[name] for name in _DETAILS if self._values.get(name)}
        return {_PREFIX.decode() + name: clean(value, _DETAIL_SIZE) for name, value in told.items()}

    def _read(self, name: str, parse: Callable[[bytes], T]) -> T | None:
        value = self._values.get(name, b"")
        if not value:
            return None
        try:
            return parse(value)
        except ValueError as error:
            self.complain(f"{name}: {error}")
            return None


def _number(name: str) -> Callable[[bytes], int]:
    least, most = _NUMBERS[name]

    def parse(value: bytes) -> int:
        if not (value.isdigit() and len(value) <= 20 and least <= int(value) <= most):
            raise ValueError(f"expected a number from {least} to {most}, got {value[:32]!r}")
        return int(value)

    return parse


def _text(most: int) -> Callable[[bytes], str]:
    return lambda value: clean(value, most)
