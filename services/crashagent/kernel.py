"""The kernel's own coredump socket: it hands a crash in by itself, with nothing else on the host.

That the socket is its owner's alone (0600, in a directory of 0700) is what makes a connection the
kernel's. Beyond that, each must be of a process that is being dumped, as far as that can be seen
from our pid namespace, and each process has one.
"""

import os
import select
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Self

from common.daemon import Stop
from common.errors import TruncatedError
from common.item import CrashItem
from common.log import Logger
from services.crashagent import coredump_socket
from services.crashagent.intakes import Begun, Intakes
from services.crashagent.listener import PERIOD, STARVED, accepted
from services.crashagent.measures import Measures
from services.crashagent.pidfd import PidfdInfo, inode_of, peer_pidfd, pid_of, read_pidfd
from services.crashagent.process import Held, hold
from services.crashagent.spool import Spool
from services.crashagent.turned_away import TurnedAway

log = Logger()

_REMEMBERED = 65536
"""Processes that were dumped, so that none is twice."""
_SHORT = 1.0
"""Seconds that the kernel has to hear that it is turned away."""


@dataclass(frozen=True, slots=True)
class _Dump:
    """A process that is being dumped into *connection*."""

    connection: socket.socket
    pidfd: int
    pid: int
    """In our pid namespace; 0 where it cannot be seen from there."""

    @classmethod
    def of(cls, connection: socket.socket) -> tuple[Self, PidfdInfo]:
        """Find out who connected; OSError where that is not told."""
        pidfd = peer_pidfd(connection)
        try:
            info = read_pidfd(pidfd)
        except OSError:
            os.close(pidfd)
            raise
        return cls(connection, pidfd, info.pid), info

    @property
    def core(self) -> int:
        """The connection, as what the core is read from."""
        return self.connection.fileno()

    def hold(self) -> Held | None:
        """Find the process; None where the number is no longer its own."""
        held = hold(self.pid) if self.pid else None
        if held and pid_of(self.pidfd) != self.pid:
            held.close()
            return None
        return held

    def begin(self) -> None:
        """Answer the kernel, if it asks."""
        request = coredump_socket.read_request(self.connection)
        if request:
            coredump_socket.ask_for_core(self.connection, request)

    def close(self) -> None:
        """Let the process go."""
        self.connection.close()
        os.close(self.pidfd)


class KernelServer:
    """Takes the connections at *listener*."""

    def __init__(
        self,
        listener: socket.socket,
        spool: Spool,
        intakes: Intakes,
        turned_away: TurnedAway,
        measures: Measures,
    ) -> None:
        self._listener = listener
        self._spool = spool
        self._intakes = intakes
        self._turned_away = turned_away
        self._measures = measures
        self._seen = OrderedDict[int, None]()
        listener.setblocking(False)

    def serve(self, stop: Stop) -> None:
        """Take crashes in until *stop*."""
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        while not stop.is_set():
            poll.poll()
            self._accept_waiting(stop)

    def _accept_waiting(self, stop: Stop) -> None:
        """Take in whoever waits; out of descriptors or memory, they go on waiting."""
        for connection in accepted(self._listener, stop):
            self._take(connection, stop)

    def _take(self, connection: socket.socket, stop: Stop) -> None:
        while True:
            try:
                self._begin(connection)
                return
            except OSError as error:
                if error.errno in STARVED and not stop.is_set():
                    time.sleep(PERIOD)
                    continue
                self._measures.lost("kernel-socket")
                log.error("crash lost", reason=error.strerror, effect="nothing of it can be taken")
                connection.close()
                return

    def _begin(self, connection: socket.socket) -> None:
        dump, info = _Dump.of(connection)
        try:
            if self._is_refused(dump, info) or self._is_turned_away(dump, info):
                dump.close()
                return
            item = CrashItem(
                path="/",
                arrived="kernel-socket",
                crashed_at=self._spool.moment(),
                signal=info.signal,
                dumpable=info.dumpable,
                host_pid=dump.pid or None,
                pid=dump.pid or None,
                truncated=True,
            )
            intake = self._spool.begin(item)
        except OSError:
            os.close(dump.pidfd)
            raise
        self._remember(dump)
        self._intakes.submit(Begun(intake, dump))

    def _is_refused(self, dump: _Dump, info: PidfdInfo) -> bool:
        """Say whether the connection is none of the kernel's."""
        reason = ""
        if info.is_dumped is False:
            reason = f"the process {dump.pid}, which connected, is not being dumped"
        elif inode_of(dump.pidfd) in self._seen:
            reason = f"the process {dump.pid} was dumped already"
        if reason:
            self._measures.refused("kernel-socket")
            log.warning(
                "coredump connection refused", reason=reason, effect="the connection is closed"
            )
        return bool(reason)

    def _remember(self, dump: _Dump) -> None:
        self._seen[inode_of(dump.pidfd)] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _is_turned_away(self, dump: _Dump, info: PidfdInfo) -> bool:
        """Turn the crash away, and count it, where nobody would keep its core."""
        if not self._turned_away.may_be() or (held := dump.hold()) is None:
            return False
        try:
            known = {"signal": info.signal, "dumpable": info.dumpable}
            counted = self._turned_away.count(
                held.crash("kernel-socket"), lambda: known | held.facts()
            )
        finally:
            held.close()
        if counted:
            try:
                request = coredump_socket.read_request(dump.connection, _SHORT)
                coredump_socket.reject(dump.connection, request)
            except TruncatedError as error:
                log.debug("kernel not told", reason=str(error))
            self._remember(dump)
        return counted
