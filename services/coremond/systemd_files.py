r"""What systemd-coredump has stored: ``core.<comm>.<uid>.<boot id>.<pid>.<time>``, and how packed.

Sources: systemd, src/coredump/coredump.c, make_filename() and fix_xattr(); src/basic/escape.c,
xescape(): what is not printable, and ``\``, ``.``, ``/`` and the space, is ``\xHH`` in a name, so
that it splits at its dots. While a file is written it has no name, or begins with ``.#``.
"""

import os
import re
from contextlib import suppress
from dataclasses import replace

from common.errors import NamingError
from common.item import Crash, clean
from common.naming import MOST_PID, is_number
from services.coremond.kinds import OpenSource, Told

_COMM = r"(?:[!-\-0-\[\]-~]|\\x[0-9a-f]{2})*"  # printable, and none of what is escaped
_NAME = re.compile(
    rf"core\.({_COMM})\.(\d{{1,10}})\.[0-9a-f]{{32}}\.(\d{{1,10}})\.(\d{{10,19}})"
    r"(?:\.(?:zst|lz4|xz))?",
    re.ASCII,
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_ATTRIBUTE = "user.coredump."
_MOST_SIGNAL = 64
_UNLIMITED = 2**64 - 1
_NANOSECONDS = {10: 10**9, 16: 10**3, 19: 1}
"""How many a unit is, of a time with so many digits."""


def read_name(name: str) -> Crash:
    """Read a stored core's name; one that is none raises `NamingError`."""
    match = _NAME.fullmatch(name)
    if not match or not (is_number(match[2]) and is_number(match[3])):
        raise NamingError("expected core.<comm>.<uid>.<boot id>.<pid>.<time>")
    comm, uid, pid, time = match.groups()
    return Crash(
        arrived="systemd",
        comm=clean(_ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), comm.encode())),
        uid=int(uid),
        host_pid=int(pid),
        crashed_at=_moment(time) or 0,
    )


class SystemdFiles:
    """The directory of systemd-coredump, in which nobody but root writes."""

    is_linked = True
    is_hidden = may_grow = False

    def is_source(self, name: str) -> bool:
        """Take what is named as systemd-coredump does when it is done."""
        try:
            read_name(name)
        except NamingError:
            return False
        return True

    def tell(self, source: OpenSource) -> Told:
        """Tell what stands in the file's attributes, and else in its name."""
        crash = _with_attributes(read_name(source.name), source.descriptor)
        return Told(seen=crash, owner=crash.uid)


def _with_attributes(named: Crash, descriptor: int) -> Crash:
    return replace(
        named,
        host_pid=_number(descriptor, "pid", MOST_PID, named.host_pid),
        uid=_number(descriptor, "uid", MOST_PID, named.uid),
        gid=_number(descriptor, "gid", MOST_PID),
        signal=_number(descriptor, "signal", _MOST_SIGNAL),
        rlimit=_number(descriptor, "rlimit", _UNLIMITED - 1),
        crashed_at=_moment(_text(descriptor, "timestamp")) or named.crashed_at,
        comm=_text(descriptor, "comm") or named.comm,
        exe=_text(descriptor, "exe"),
        hostname=_text(descriptor, "hostname"),
    )


def _text(descriptor: int, attribute: str) -> str:
    """Read an attribute of the open file; empty without it, or where the disk has none."""
    with suppress(OSError):
        return clean(os.getxattr(descriptor, _ATTRIBUTE + attribute))
    return ""


def _number(descriptor: int, attribute: str, most: int, other: int | None = None) -> int | None:
    text = _text(descriptor, attribute)
    is_plain = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_plain and int(text) <= most else other


def _moment(text: str) -> int | None:
    if text.isascii() and text.isdecimal() and len(text) in _NANOSECONDS:
        moment = int(text) * _NANOSECONDS[len(text)]
        return moment if moment < 2**63 else None
    return None
