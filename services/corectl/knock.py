"""Whether somebody answers at a socket."""

import errno
import os
import re
import socket
from pathlib import Path

_ANYWHERE = {"", "0.0.0.0", "[::]", "*"}  # noqa: S104  # read, not bound
SOCKETS = Path("/proc/net/unix")
# __SO_ACCEPTCON among the flags: Linux, net/unix/af_unix.c, unix_seq_show().
_LISTENING = re.compile(r"\S+ \S+ \S+ 00010000 \S+ \S+ +\d+ (.+)", re.ASCII)


def knock_unix(path: Path, timeout: float) -> None:
    """Connect to the Unix socket *path* and leave at once; OSError where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(timeout)
        door.connect(str(path))


def knock_tcp(address: str, timeout: float) -> None:
    """Connect to where a server bound to *address* answers on this host, and leave at once."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout).close()
    except OSError:
        if host in _ANYWHERE:
            raise
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()


def is_listed(path: Path, sockets: Path = SOCKETS) -> bool:
    """Say whether the kernel's table of *sockets* has one that listens at the Unix socket *path*.

    It has those of one network namespace.
    """
    try:
        lines = sockets.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return False
    found = (line[1] for line in map(_LISTENING.fullmatch, lines) if line)
    # Whoever listens may have come to the directory by a link.
    return any(
        os.path.basename(name) == path.name and os.path.realpath(name) == os.path.realpath(path)
        for name in found
    )


def look_unix(path: Path, beside: Path, timeout: float, sockets: Path = SOCKETS) -> bool:
    """Say whether somebody listens at the Unix socket *path*, to which nobody may connect.

    False where that cannot be seen from here: *beside*, which the same program listens at, answers,
    and is not to be seen either. An OSError where nobody listens.
    """
    if is_listed(path, sockets):
        return True
    os.stat(path)
    if not is_listed(beside, sockets):
        knock_unix(beside, timeout)
        return False
    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
