"""What a sender at the Apport socket says: words, descriptors and credentials, all hostile.

One message is ``<pid> <signal> <rlimit> <dump mode>`` (ASCII; three words from the hosts of 2016)
with one SCM_RIGHTS descriptor, the kernel's core pipe, and usually SCM_CREDENTIALS with the
process's pid, in either order.
Source: canonical/apport, data/apport, forward_crash_to_container() and
receive_arguments_via_socket(), from 2.20 to 2.36.

`corectl intake`, where it is the kernel's pipe helper, sends ``coremond/1 `` and a JSON object of
what it was told instead.
"""

import array
import socket
import struct
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from common.errors import MessageError
from common.item import Pid

MESSAGE_SIZE = 4096
ANCILLARY_SIZE = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12)  # SCM_MAX_FD, and a ucred
CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid: struct ucred of unix(7)."""

_HELPER = b"coremond/1 "
_UNLIMITED = 2**64 - 1

Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forwarded:
    """What a sender said, by the names that facts have in a `Crash`."""

    pid: Pid | None = None
    host_pid: Pid | None = None
    tid: Pid | None = None
    uid: int | None = None
    gid: int | None = None
    signal: Annotated[int, msgspec.Meta(gt=0, lt=256)] | None = None
    rlimit: int | None = None
    dumpable: Annotated[int, msgspec.Meta(ge=0, le=2)] | None = None
    hostname: str = ""
    exe: str = ""


def parse_message(message: bytes) -> Forwarded:
    """Read a *message*, or raise `MessageError` saying what differs."""
    if message.startswith(_HELPER):
        return _parse_helpers(message.removeprefix(_HELPER))
    words = message.split()
    if len(words) not in {3, 4}:
        raise MessageError(f"expected 3 or 4 numbers, got {len(words)} words: {message[:64]!r}")
    if not all(word.isdigit() and len(word) <= 20 for word in words):
        raise MessageError(f"expected numbers only, got {message[:64]!r}")
    pid, number, rlimit = (int(word) for word in words[:3])
    dumpable = int(words[3]) if len(words) == 4 else None
    if not (0 < pid < 2**31 and 0 < number < 256 and rlimit <= _UNLIMITED):
        raise MessageError(f"a number out of its range in {message[:64]!r}")
    if dumpable is not None and dumpable > 2:
        raise MessageError(f"expected a dump mode of 0, 1 or 2, got {dumpable}")
    return Forwarded(
        pid=pid,
        signal=number,
        rlimit=None if rlimit == _UNLIMITED else rlimit,
        dumpable=dumpable,
    )


def is_from_helper(message: bytes) -> bool:
    """Say whether *message* is from `corectl intake`."""
    return message.startswith(_HELPER)


def _parse_helpers(body: bytes) -> Forwarded:
    try:
        said = msgspec.json.decode(body, type=Forwarded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not what corectl intake says: {error}") from error
    return replace(said, rlimit=None) if said.rlimit == _UNLIMITED else said


def read_descriptors(ancillary: Ancillary) -> list[int]:
    """Give every descriptor that came; the caller owns them all."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return list(found)


def read_credentials(ancillary: Ancillary) -> int | None:
    """Give the pid of the credentials that came; None without, or if it is not seen from here."""
    for level, kind, data in ancillary:
        is_ours = (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        if is_ours and len(data) >= CREDENTIALS.size:
            return int(CREDENTIALS.unpack_from(data)[0]) or None
    return None
