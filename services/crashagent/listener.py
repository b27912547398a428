"""The listening socket that crashes arrive at, and how it outlives the program that serves it.

The bundle opens the socket before anything else and every crashagent inherits it, so that a crash
which arrives while crashagent restarts waits in the backlog instead of being refused.
"""

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from common.daemon import Stop
from common.errors import ConfigError
from common.log import Logger

log = Logger()

BACKLOG = 1024
STARVED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""Errors of who has no descriptor or no memory left, but may have some in a moment."""
PERIOD = 0.2
"""Seconds until they try again."""
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


def accepted(listener: socket.socket, stop: Stop) -> Iterator[socket.socket]:
    """Accept whoever waits at *listener*; neither it nor the connections block.

    Out of descriptors or memory, they go on waiting in the backlog.
    """
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.error(
                "cannot accept",
                reason=error.strerror,
                effect="crashes wait until intakes under way are done",
            )
            time.sleep(PERIOD)
            return
        connection.setblocking(False)
        yield connection


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
