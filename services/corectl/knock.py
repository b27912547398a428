"""Whether somebody answers at a socket."""

import socket
from pathlib import Path

_ANYWHERE = {"", "0.0.0.0", "[::]", "*"}  # noqa: S104  # read, not bound


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
