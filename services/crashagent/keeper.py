"""The second pair of hands: a connection that crashagent has accepted outlives crashagent.

Between accepting a connection and noting its crash on disk, only crashagent's descriptors know of
the crash; a SIGKILL there would lose it. So a second process shares crashagent's table of
descriptors (clone(2), CLONE_FILES), sleeps until crashagent is gone, hands each connection that is
open and not noted once more to the listening socket, for the next crashagent, and ends.
"""

import ctypes
import os
import platform
import select
import signal
import socket
import stat
import time
from contextlib import suppress

from common import naming
from common.daemon import Stop
from common.errors import CollectorError
from common.files import opened_directory, read_limited
from common.item import MESSAGE_LIMIT
from common.log import Logger
from services.crashagent.apport_message import ANCILLARY_SIZE, MESSAGE_SIZE, read_descriptors
from services.crashagent.settings import CrashagentSettings
from services.crashagent.spool import IntakeNote

log = Logger()

_CLONE_FILES = 0x00000400
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_PATIENCE = 5.0
"""Seconds that a sender has to say what it had not said yet."""


def start() -> int | None:
    """Start the keeper of this process, which must not have threads yet; None if it cannot be.

    The result is a descriptor that is readable once the keeper has ended.
    """
    number = _SYS_CLONE.get(platform.machine())
    if number is None:
        return None
    crashagent = os.pidfd_open(os.getpid())
    keeper = ctypes.CDLL(None).syscall(number, _CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
    if keeper == 0:
        # Nothing may be closed here as long as crashagent lives: its descriptors are ours.
        try:
            _keep(crashagent)
        finally:
            os._exit(0)
    return os.pidfd_open(keeper) if keeper > 0 else None


class KeeperWatch:
    """Has crashagent stop when its *keeper* ends: only one that starts can have another."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper
        self.has_ended = False

    def serve(self, stop: Stop) -> None:
        """Watch until *stop*, or until the keeper has ended.

        One that ended at once would do so the next time, too: it is done without.
        """
        if select.select([self._keeper], [], [], 0)[0]:
            log.error("keeper ended", reason="it failed at once", effect="crashagent has none")
            select.select([stop.fileno()], [], [])
            return
        select.select([self._keeper, stop.fileno()], [], [])
        if not stop.is_set():
            self.has_ended = True
            log.error(
                "keeper ended",
                reason="somebody killed it",
                effect="crashagent starts afresh, once what is on its way has come in",
            )


def _keep(crashagent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    waiting = select.poll()
    waiting.register(crashagent, select.POLLIN)
    waiting.poll()
    rescue(CrashagentSettings.from_env())


def rescue(settings: CrashagentSettings) -> int:
    """Hand each open connection that is not noted to the listening socket; say how many."""
    deadline = time.monotonic() + _PATIENCE
    path = str(settings.apport_socket)
    return sum(
        _hand_over(descriptor, settings, deadline)
        for descriptor in map(int, os.listdir("/proc/self/fd"))
        if _is_connection(descriptor, path)
    )


def _is_connection(descriptor: int, path: str) -> bool:
    """Say whether *descriptor* is a connection that was accepted at *path*."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            listening = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return not listening and connection.getsockname() == path
    except OSError:
        return False


def _hand_over(descriptor: int, settings: CrashagentSettings, deadline: float) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            message, ancillary, _, _ = connection.recvmsg(MESSAGE_SIZE, ANCILLARY_SIZE)
        except OSError:
            return False
    descriptors = read_descriptors(ancillary)
    if not descriptors or _is_noted(os.fstat(descriptors[0]).st_ino, settings):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as again:
        again.connect(str(settings.apport_socket))
        # As the sender said it: its descriptors, and the credentials if it gave any.
        again.sendmsg([message], ancillary)
    return True


def _is_noted(pipe: int, settings: CrashagentSettings) -> bool:
    """Say whether the crash whose core comes from *pipe* is on disk already."""
    with suppress(OSError), opened_directory(settings.crash_dir / naming.SPOOL) as spool:
        return any(
            name.startswith(naming.INTAKE_PREFIX)
            and name.endswith(naming.SIDECAR_SUFFIX)
            and _pipe_of(spool, name) == pipe
            for name in os.listdir(spool)
        )
    return False


def _pipe_of(spool: int, name: str) -> int | None:
    try:
        return IntakeNote.from_json(read_limited(spool, name, MESSAGE_LIMIT)).pipe
    except (CollectorError, FileNotFoundError):
        return None
