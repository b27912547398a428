"""The Apport forward socket: Apport on the host hands the crash of a container in.

One connection is one crash; its sender shuts its end down at once, and reads nothing.
"""

import errno
import os
import select
import socket
import stat
import time
from dataclasses import asdict, dataclass, replace

from common.daemon import Stop
from common.errors import MessageError
from common.item import Arrival, CrashItem
from common.log import Logger
from services.crashagent.apport_message import (
    ANCILLARY_SIZE,
    CREDENTIALS,
    MESSAGE_SIZE,
    Ancillary,
    Forwarded,
    is_from_helper,
    parse_message,
    read_credentials,
    read_descriptors,
)
from services.crashagent.intakes import Begun, Intakes
from services.crashagent.listener import PERIOD, STARVED, accepted
from services.crashagent.measures import Measures
from services.crashagent.process import Held, hold
from services.crashagent.spool import Spool
from services.crashagent.turned_away import TurnedAway

log = Logger()

MOST_WAITING = 256
"""Connections without a message; the oldest goes for a further one."""


class ApportServer:
    """Owns the connections at *listener*; one without a message may stay so for *idle_timeout*."""

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
        self._waiting: dict[int, _Waiting] = {}
        self._poll = select.poll()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def serve(self, stop: Stop) -> None:
        """Take crashes in until *stop*."""
        self._poll.register(stop, select.POLLIN)
        while not stop.is_set():
            # Whoever cannot be served for want of descriptors is not joined by others.
            if any(waiting.is_starved for waiting in self._waiting.values()):
                self._poll.register(self._listener, 0)
            else:
                self._poll.register(self._listener, select.POLLIN)
            patience = PERIOD * 1000 if self._waiting else None
            ready = {descriptor for descriptor, _ in self._poll.poll(patience)}
            self._try_waiting(ready)
            if self._listener.fileno() in ready:
                self._accept_waiting(stop)
        for waiting in self._waiting.values():
            waiting.connection.close()

    def _accept_waiting(self, stop: Stop) -> None:
        for connection in accepted(self._listener, stop):
            self._take(_Waiting(connection, time.monotonic() + self._idle_timeout))

    def _take(self, waiting: "_Waiting") -> None:
        """Note the crash on disk before anything else, and leave its core to a thread.

        The message is nearly always there by the time its sender is accepted. A connection whose
        message is not, or for which there is no descriptor, waits.
        """
        try:
            begun = self._begin(waiting.connection)
        except BlockingIOError:
            self._let_wait(replace(waiting, is_starved=False))
        except OSError as error:
            if error.errno in STARVED:
                self._let_wait(replace(waiting, is_starved=True))
                return
            self._measures.lost("apport")
            log.error("crash lost", reason=error.strerror, effect="nothing of it can be written")
            waiting.connection.close()
        else:
            if begun:
                self._intakes.submit(begun)

    def _let_wait(self, waiting: "_Waiting") -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._drop(min(self._waiting.values(), key=lambda other: other.deadline))
        descriptor = waiting.connection.fileno()
        self._waiting[descriptor] = waiting
        if not waiting.is_starved:  # it would be ready all the time
            self._poll.register(descriptor, select.POLLIN)

    def _try_waiting(self, ready: set[int]) -> None:
        """Take those whose message has come, or who wanted descriptors; drop who is overdue."""
        now = time.monotonic()
        for descriptor, waiting in list(self._waiting.items()):
            if descriptor in ready or waiting.is_starved:
                self._forget(waiting)
                if waiting.is_starved and now >= waiting.deadline:
                    self._lose(waiting)
                else:
                    self._take(waiting)
            elif now >= waiting.deadline:
                self._drop(waiting)

    def _forget(self, waiting: "_Waiting") -> None:
        del self._waiting[waiting.connection.fileno()]
        if not waiting.is_starved:
            self._poll.unregister(waiting.connection)

    def _lose(self, waiting: "_Waiting") -> None:
        self._measures.lost("apport")
        log.error("crash lost", reason="out of file descriptors", effect="its core is not taken")
        waiting.connection.close()

    def _drop(self, waiting: "_Waiting") -> None:
        self._forget(waiting)
        waiting.connection.close()
        self._measures.refused("apport")
        log.warning(
            "sender said nothing",
            reason=f"no message within {self._idle_timeout:g} s, or too many others wait",
            effect="the connection is closed",
        )

    def _begin(self, connection: socket.socket) -> Begun | None:
        """Read the message and note the crash; None where there is no core in it.

        The message stays in the connection until the crash is noted: see `keeper`. Raises
        BlockingIOError if the message is not there yet, and OSError (EMFILE) if there is no room
        for its descriptor.
        """
        try:
            message, ancillary, flags, _ = connection.recvmsg(
                MESSAGE_SIZE, ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC | socket.MSG_PEEK
            )
        except ConnectionError:
            message, ancillary, flags = b"", [], 0
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        descriptors = read_descriptors(ancillary)
        for surplus in descriptors[1:]:
            os.close(surplus)
        if not descriptors:
            if flags & socket.MSG_CTRUNC:  # there was no room for it; the message is still there
                raise OSError(errno.EMFILE, "its descriptor did not fit")
            connection.close()
            if message:  # without one, somebody looked whether we listen
                self._measures.refused("apport")
            _say_no_core(message)
            return None
        try:
            begun = self._note(message, ancillary, peer, descriptors[0])
        except BaseException:
            os.close(descriptors[0])
            raise
        connection.close()
        return begun

    def _note(self, message: bytes, ancillary: Ancillary, peer: bytes, core: int) -> Begun | None:
        status = os.fstat(core)
        kind = status.st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)):
            self._measures.refused("apport")
            log.warning(
                "apport message refused",
                reason="its descriptor is no pipe and no file",
                effect="it is closed",
            )
            os.close(core)
            return None
        try:
            said = parse_message(message)
        except MessageError as error:
            log.warning(
                "apport message malformed",
                reason=str(error),
                effect="the core is kept without what the message says",
            )
            said = Forwarded()
        is_helper = is_from_helper(message)
        host_pid = said.host_pid if is_helper else read_credentials(ancillary)
        # Credentials that the sender did not write are its own: the kernel fills them in.
        if host_pid is None or host_pid == CREDENTIALS.unpack(peer)[0]:
            host_pid = said.pid
        arrived: Arrival = "pipe" if is_helper else "apport"
        incoming = _Forwarding(core, host_pid, said.pid)
        if self._is_turned_away(incoming, arrived, said):
            incoming.close()
            return None
        item = CrashItem(
            path="/",
            arrived=arrived,
            crashed_at=self._spool.moment(),
            truncated=True,
            **asdict(said),
        )
        intake = self._spool.begin(item, pipe=status.st_ino)
        return Begun(intake, incoming)

    def _is_turned_away(self, incoming: "_Forwarding", arrived: Arrival, said: Forwarded) -> bool:
        if not self._turned_away.may_be() or (held := incoming.hold()) is None:
            return False
        try:
            crash = held.crash(arrived)
            crash = replace(crash, hostname=crash.hostname or said.hostname)
            return self._turned_away.count(crash, lambda: asdict(said) | held.facts())
        finally:
            held.close()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A connection that cannot be served yet, and until when it may wait (monotonic seconds)."""

    connection: socket.socket
    deadline: float
    is_starved: bool = False


@dataclass(frozen=True, slots=True)
class _Forwarding:
    """A core that comes through a pipe, or is in a file."""

    core: int
    pid: int | None
    """In our pid namespace."""
    own_pid: int | None

    def hold(self) -> Held | None:
        """Find the process, which the pipe holds as long as it is not read."""
        return None if self.pid is None else hold(self.pid, self.own_pid)

    def begin(self) -> None:
        """Do nothing: the kernel has begun."""

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.core)


def _say_no_core(message: bytes) -> None:
    if message:
        log.warning(
            "apport message refused",
            reason=f"no descriptor came with {message[:64]!r}",
            effect="the connection is closed",
        )
    else:
        log.debug("connection without a message")
