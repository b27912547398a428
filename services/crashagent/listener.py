"""The listening socket that crashes arrive at, and how it outlives the program that serves it.

The bundle opens the socket before anything else and every crashagent inherits it, so that a crash
which arrives while crashagent restarts waits in the backlog instead of being refused.
"""

import os
import socket
from pathlib import Path

from common.errors import ConfigError

BACKLOG = 1024
MODE = 0o600
"""Whoever can connect can hand in a crash: only the owner may."""


def open_listener(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Listen at *path*, clearing away what a dead listener left; raises `ConfigError`."""
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(path, kind)
        umask = os.umask(0o777 & ~MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError([f"cannot listen at {path}: {error.strerror or error}"]) from error
    return listener


def inherited_listener(name: str, descriptor: int) -> socket.socket:
    """Take over the listening socket *descriptor*, which the setting *name* tells of.

    Raises `ConfigError` if it is none.
    """
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError([f"{name}={descriptor}: {error.strerror}"]) from error
    if listener.family != socket.AF_UNIX or not listening:
        listener.close()
        raise ConfigError([f"{name}={descriptor}: expected a listening Unix socket"])
    os.set_inheritable(descriptor, False)
    return listener


def _clear_stale(path: Path, kind: int) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise FileExistsError(None, "another program listens there", str(path))
