"""systemd-coredump's socket: its helper, or a host that forwards, hands a crash in.

One connection is one crash; its sender waits for no answer. Who may connect is whoever owns the
socket (0600), as with systemd's own.
"""

import os
import select
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass

from common.daemon import Stop
from common.item import Crash, CrashItem
from common.log import Logger
from services.crashagent.intakes import Begun, Intakes
from services.crashagent.listener import PERIOD, STARVED, accepted
from services.crashagent.measures import Measures
from services.crashagent.pidfd import pid_of
from services.crashagent.process import Held, hold
from services.crashagent.spool import Spool
from services.crashagent.systemd_connection import Connection
from services.crashagent.systemd_message import SystemdCrash
from services.crashagent.turned_away import TurnedAway

log = Logger()

MOST_WAITING = 128
"""Connections whose core has not come; the oldest goes for a further one."""
LAST_WORDS = 1.0
"""Seconds that senders have to end once crashagent is asked to stop."""


@dataclass(frozen=True, slots=True)
class _Handed:
    """A core that was handed in, and what was said of its process."""

    core: int
    pidfd: int | None
    said: SystemdCrash

    def hold(self) -> Held | None:
        """Find the process, which the pipe holds; None where the number is somebody else's."""
        pid = self.said.host_pid if self.pidfd is None else pid_of(self.pidfd)
        if pid is None or pid <= 0 or (held := hold(pid, self.said.pid)) is None:
            return None
        if not self._is_it(held, pid):
            held.close()
            return None
        return held

    def _is_it(self, held: Held, pid: int) -> bool:
        if self.pidfd is not None:  # asked once more, now that what is read of it stays its own
            return pid_of(self.pidfd) == pid
        return self.said.uid in {None, held.uid}

    def begin(self) -> None:
        """Do nothing: the kernel has begun."""

    def close(self) -> None:
        """Let go of the core, and of the process."""
        os.close(self.core)
        if self.pidfd is not None:
            os.close(self.pidfd)


class SystemdServer:
    """Owns the connections at *listener*; each may take *idle_timeout* until its core is there."""

    def __init__(
        self,
        listener: socket.socket,
        spool: Spool,
        intakes: Intakes,
        turned_away: TurnedAway,
        measures: Measures,
        *,
        idle_timeout: float,
    ) -> None:
        self._listener = listener
        self._spool = spool
        self._intakes = intakes
        self._turned_away = turned_away
        self._measures = measures
        self._idle_timeout = idle_timeout
        self._waiting: dict[int, Connection] = {}
        self._poll = select.poll()
        listener.setblocking(False)

    def serve(self, stop: Stop) -> None:
        """Take crashes in until *stop*."""
        self._poll.register(stop, select.POLLIN)
        self._poll.register(self._listener, select.POLLIN)
        while not stop.is_set():
            # Whoever cannot be served for want of descriptors is not joined by others.
            is_starved = any(connection.is_starved for connection in self._waiting.values())
            self._poll.modify(self._listener, 0 if is_starved else select.POLLIN)
            if self._listener.fileno() in self._listen():
                self._accept_waiting(stop)
        self._poll.unregister(stop)
        self._poll.unregister(self._listener)
        end = time.monotonic() + LAST_WORDS
        while self._waiting and time.monotonic() < end:
            self._listen()
        for connection in list(self._waiting.values()):
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        """Take what came, as no more will."""
        try:
            self._take(connection)
        except OSError as error:
            self._lose(connection, f"nothing of it can be written: {error.strerror}")

    def _listen(self) -> set[int]:
        """Hear those who have something to say, and look after those who have not."""
        patience = PERIOD * 1000 if self._waiting else None
        ready = {descriptor for descriptor, _ in self._poll.poll(patience)}
        for descriptor, connection in list(self._waiting.items()):
            is_due = connection.is_starved or connection.is_overdue() or connection.is_complete()
            if descriptor in ready or is_due:
                self._hear(connection)
        return ready

    def _accept_waiting(self, stop: Stop) -> None:
        for opened in accepted(self._listener, stop):
            if len(self._waiting) >= MOST_WAITING:
                oldest = min(self._waiting.values(), key=lambda other: other.deadline)
                self._drop(oldest, "too many others wait")
            connection = Connection(opened, time.monotonic() + self._idle_timeout)
            self._waiting[connection.fileno()] = connection
            self._hear(connection)

    def _hear(self, connection: Connection) -> None:
        """Read what a sender says, and take the crash in once that is all."""
        try:
            connection.read()
            if connection.is_complete():
                self._take(connection)
                return
        except OSError as error:
            if error.errno not in STARVED:
                self._lose(connection, f"nothing of it can be written: {error.strerror}")
                return
            connection.is_starved = True
        if connection.is_overdue():
            if connection.is_starved:
                self._lose(connection, "out of file descriptors")
            else:
                self._drop(connection, f"no core within {self._idle_timeout:g} s")
        elif connection.is_starved:  # it would be ready all the time
            self._ignore(connection)
        else:
            self._poll.register(connection, select.POLLIN)

    def _ignore(self, connection: Connection) -> None:
        with suppress(KeyError):
            self._poll.unregister(connection)

    def _forget(self, connection: Connection) -> None:
        """Close what is still the connection's."""
        self._ignore(connection)
        del self._waiting[connection.fileno()]
        connection.close()

    def _lose(self, connection: Connection, reason: str) -> None:
        self._measures.lost("systemd")
        log.error("crash lost", reason=reason, effect="its core is not taken")
        self._forget(connection)

    def _drop(self, connection: Connection, reason: str) -> None:
        self._measures.refused("systemd")
        log.warning("sender said nothing", reason=reason, effect="the connection is closed")
        self._forget(connection)

    def _take(self, connection: Connection) -> None:
        """Note the crash on disk, and leave its core to a thread; OSError where that fails."""
        if connection.core is None or not _is_core(connection.core):
            if connection.core is not None or connection.fields.number:
                self._measures.refused("systemd")
            _say_no_core(connection)
            self._forget(connection)
            return
        said = connection.fields.crash()
        handed = _Handed(connection.core, connection.pidfd, said)
        if self._is_turned_away(handed):
            self._forget(connection)
            return
        item = CrashItem(
            path="/",
            arrived="systemd",
            crashed_at=self._spool.moment(),
            truncated=True,
            **said.facts(),
        )
        begun = Begun(self._spool.begin(item, pipe=os.fstat(handed.core).st_ino), handed)
        _say_problems(connection)
        connection.give_away()
        self._forget(connection)
        self._intakes.submit(begun)

    def _is_turned_away(self, handed: _Handed) -> bool:
        """Count the crash where nobody would keep its core."""
        if not self._turned_away.may_be():
            return False
        said, held = handed.said, handed.hold()
        try:
            seen = held.crash("systemd") if held else Crash()
            crash = Crash(
                arrived="systemd",
                comm=seen.comm or said.comm,
                hostname=seen.hostname or said.hostname,
                cgroup=seen.cgroup or said.cgroup,
                container_id=seen.container_id or said.container_id,
            )
            return bool(crash.comm) and self._turned_away.count(
                crash, lambda: said.facts() | (held.facts() if held else {})
            )
        finally:
            if held:
                held.close()


def _is_core(descriptor: int) -> bool:
    kind = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind)


def _say_no_core(connection: Connection) -> None:
    if connection.core is None and not connection.fields.number:
        log.debug("connection without a message")
        return
    log.warning(
        "coredump message refused",
        reason="its descriptor is no pipe and no file"
        if connection.core is not None
        else f"{connection.fields.number} fields came, and no core",
        effect="the connection is closed",
    )


def _say_problems(connection: Connection) -> None:
    if connection.fields.problems:
        log.warning(
            "coredump message malformed",
            reason="; ".join(connection.fields.problems),
            effect="the core is kept without what was wrong",
        )
