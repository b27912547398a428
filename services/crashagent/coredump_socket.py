"""The kernel's coredump socket: what is said on one connection before the core comes.

With a pattern of ``@/path`` (Linux 6.16) the ELF comes at once. With ``@@/path`` (6.17) the kernel
first sends what it can do, and waits for what it shall do; it answers with a mark, 0 for well.
All numbers are native. Source: include/uapi/linux/coredump.h, and coredump_socket() in
fs/coredump.c.
"""

import select
import socket
import struct
import time
from typing import NamedTuple

from common.errors import TruncatedError

PATIENCE = 10.0
"""Seconds that the kernel may take to say its part."""

_REQUEST = struct.Struct("=IIQ")  # struct coredump_req: size, size_ack, mask
_ACK = struct.Struct("=IIQ")  # struct coredump_ack: size, spare, mask
_MARK = struct.Struct("=I")
_MOST_REQUEST = 4096
_MOMENT = 0.01
_KERNEL, _REJECT, _WAIT = 1 << 0, 1 << 2, 1 << 3
_ELF = b"\x7fELF"


class Request(NamedTuple):
    """What the kernel offers: the longest answer it reads, and the flags it knows."""

    size_ack: int
    mask: int


def read_request(connection: socket.socket, patience: float = PATIENCE) -> Request | None:
    """Read the kernel's request; None where the core comes at once.

    Nothing of the core is taken from the connection. Raises `TruncatedError` where neither comes.
    """
    deadline = time.monotonic() + patience
    start = _peek(connection, len(_ELF), deadline)
    if start == _ELF:
        return None
    (size,) = struct.unpack("=I", start)
    if not _REQUEST.size <= size < _MOST_REQUEST:
        raise TruncatedError(f"the kernel's request cannot have {size} bytes")
    request = _receive(connection, size, deadline)
    _, size_ack, mask = _REQUEST.unpack_from(request)
    if size_ack < _ACK.size:
        raise TruncatedError(f"the kernel's answer cannot have {size_ack} bytes")
    return Request(size_ack, mask)


def ask_for_core(connection: socket.socket, request: Request, patience: float = PATIENCE) -> None:
    """Have the kernel send the core, and wait for us to close; `TruncatedError` if it will not."""
    deadline = time.monotonic() + patience
    _answer(connection, _KERNEL | (_WAIT & request.mask))
    (mark,) = _MARK.unpack(_receive(connection, _MARK.size, deadline))
    if mark != 0:
        raise TruncatedError(f"the kernel did not take the answer: mark {mark:#x}")


def reject(connection: socket.socket, request: Request | None) -> None:
    """Have the kernel send nothing; whoever closes the connection lets the process go.

    Its mark is not waited for: whether or not it took the answer, there will be no core.
    """
    if request:
        _answer(connection, _REJECT)


def _answer(connection: socket.socket, flags: int) -> None:
    try:
        connection.send(_ACK.pack(_ACK.size, 0, flags), socket.MSG_NOSIGNAL)
    except OSError as error:
        raise TruncatedError(f"the kernel went away: {error.strerror}") from error


def _peek(connection: socket.socket, size: int, deadline: float) -> bytes:
    """See the next *size* bytes, which stay there; who has said fewer is asked in a moment."""
    while True:
        is_ended = bool(_wait(connection, deadline) & select.POLLRDHUP)
        data = _some(connection, size, socket.MSG_PEEK)
        if len(data) == size:
            return data
        if is_ended:
            raise TruncatedError(f"the kernel said {len(data)} of {size} bytes and ended")
        time.sleep(_MOMENT)


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Receive exactly *size* bytes until *deadline* (monotonic)."""
    data = b""
    while len(data) < size:
        is_ended = bool(_wait(connection, deadline) & select.POLLRDHUP)
        piece = _some(connection, size - len(data))
        if is_ended and not piece:
            raise TruncatedError(f"the kernel said {len(data)} of {size} bytes and ended")
        data += piece
    return data


def _wait(connection: socket.socket, deadline: float) -> int:
    """Wait until something was said, or nothing more will be; give the events."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLRDHUP)
    left = deadline - time.monotonic()
    if left <= 0 or not (ready := poll.poll(left * 1000)):
        raise TruncatedError("the kernel did not say its part in time")
    [(_, events)] = ready
    return events


def _some(connection: socket.socket, most: int, flags: int = 0) -> bytes:
    """Receive at most *most* bytes of what is there."""
    try:
        return connection.recv(most, flags | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""
    except OSError as error:
        raise TruncatedError(f"the kernel went away: {error.strerror}") from error
