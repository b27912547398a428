"""The Apport forward socket: Apport on the host hands the crash of a container in.

One connection is one crash; its sender shuts its end down at once, and reads nothing.
"""

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from common.daemon import Stop
from common.errors import MessageError
from common.item import CrashItem
from common.log import Logger
from services.crashagent.apport_message import (
    ANCILLARY_SIZE,
    CREDENTIALS,
    MESSAGE_SIZE,
    Ancillary,
    Forwarded,
    parse_message,
    read_credentials,
    read_descriptors,
)
from services.crashagent.process import read_process
from services.crashagent.receive import Limits, receive
from services.crashagent.spool import Intake, Spool

log = Logger()

STOP_GRACE = 20.0
"""Seconds that cores on their way have to arrive once crashagent is asked to stop."""

MOST_WAITING = 256
"""Connections without a message; the oldest goes for a further one."""

_PERIOD = 0.2  # seconds until those who want descriptors are tried again
_STARVED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class ApportServer:
    """Owns the listening socket, and the threads that take cores in from it."""

    def __init__(
        self,
        listener: socket.socket,
        spool: Spool,
        limits: Limits,
        *,
        max_intakes: int,
        tell: Callable[[CrashItem], None],
        calm: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._spool = spool
        self._limits = limits
        self._tell = tell
        self._pool = ThreadPoolExecutor(max_intakes, "intake", initializer=calm)
        self._out_of_time = Event()
        self._under_way: set[Future[None]] = set()
        self._waiting: dict[int, _Waiting] = {}
        self._poll = select.poll()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def serve(self, stop: Stop) -> None:
        """Take crashes in until *stop*; then let those on their way arrive, for a while."""
        self._poll.register(stop, select.POLLIN)
        while not stop.is_set():
            # Whoever cannot be served for want of descriptors is not joined by others.
            if any(waiting.is_starved for waiting in self._waiting.values()):
                self._poll.register(self._listener, 0)
            else:
                self._poll.register(self._listener, select.POLLIN)
            patience = _PERIOD * 1000 if self._waiting else None
            ready = {descriptor for descriptor, _ in self._poll.poll(patience)}
            self._try_waiting(ready)
            if self._listener.fileno() in ready:
                self._accept_waiting(stop)
        self._finish()

    def _finish(self) -> None:
        for waiting in self._waiting.values():
            waiting.connection.close()
        wait(set(self._under_way), timeout=STOP_GRACE)
        self._out_of_time.set()
        self._pool.shutdown(wait=True)

    def _submit(self, begun: "_Begun | None") -> None:
        if begun:
            future = self._pool.submit(self._run, begun)
            self._under_way.add(future)
            future.add_done_callback(self._under_way.discard)

    def _accept_waiting(self, stop: Stop) -> None:
        while not stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors or memory: those who wait go on waiting in the backlog.
                log.error(
                    "cannot accept",
                    reason=error.strerror,
                    effect="crashes wait until intakes under way are done",
                )
                time.sleep(_PERIOD)
                return
            connection.setblocking(False)
            self._take(_Waiting(connection, time.monotonic() + self._limits.idle_timeout))

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
            if error.errno in _STARVED:
                self._let_wait(replace(waiting, is_starved=True))
                return
            log.error("crash lost", reason=error.strerror, effect="nothing of it can be written")
            waiting.connection.close()
        else:
            self._submit(begun)

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
        log.error("crash lost", reason="out of file descriptors", effect="its core is not taken")
        waiting.connection.close()

    def _drop(self, waiting: "_Waiting") -> None:
        self._forget(waiting)
        waiting.connection.close()
        log.warning(
            "sender said nothing",
            reason=f"no message within {self._limits.idle_timeout:g} s, or too many others wait",
            effect="the connection is closed",
        )

    def _begin(self, connection: socket.socket) -> "_Begun | None":
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
            _say_no_core(message)
            return None
        try:
            begun = self._note(message, ancillary, peer, descriptors[0])
        except BaseException:
            os.close(descriptors[0])
            raise
        connection.close()
        return begun

    def _note(
        self, message: bytes, ancillary: Ancillary, peer: bytes, core: int
    ) -> "_Begun | None":
        status = os.fstat(core)
        kind = status.st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)):
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
        host_pid = read_credentials(ancillary)
        # Credentials that the sender did not write are its own: the kernel fills them in.
        if host_pid is None or host_pid == CREDENTIALS.unpack(peer)[0]:
            host_pid = said.pid
        item = CrashItem(
            path="/",
            arrived="apport",
            crashed_at=self._spool.moment(),
            pid=said.pid,
            signal=said.signal,
            rlimit=said.rlimit,
            dumpable=said.dumpable,
            truncated=True,
        )
        return _Begun(self._spool.begin(item, pipe=status.st_ino), core, host_pid)

    def _run(self, begun: "_Begun") -> None:
        try:
            self._take_in(begun)
        except Exception as error:
            log.exception("intake failed", reason=repr(error), effect="taken up at the next start")

    def _take_in(self, begun: "_Begun") -> None:
        intake = begun.intake
        started = time.monotonic()
        try:
            try:
                facts = self._read_process(begun)
                packed, why = receive(
                    begun.core, intake.part, self._limits, self._out_of_time.is_set
                )
            finally:
                os.close(begun.core)
            intake.item = replace(
                intake.item, packed=packed, truncated=bool(why), truncated_why=why, **facts
            )
            size = os.fstat(intake.part.descriptor).st_size
            item = self._spool.finish(intake)
        finally:
            intake.close()
        if why:
            log.warning(
                "core came in partly", file=item.path, reason=why, effect="it is kept so, marked"
            )
        log.debug("crash taken in", file=item.path, size=size, seconds=time.monotonic() - started)
        self._tell(item)

    def _read_process(self, begun: "_Begun") -> dict[str, Any]:
        """Read /proc while the core pipe, still unread, holds the process."""
        if begun.host_pid is None:
            return {}
        return read_process(begun.host_pid, begun.intake.item.pid)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A connection that cannot be served yet, and until when it may wait (monotonic seconds)."""

    connection: socket.socket
    deadline: float
    is_starved: bool = False


@dataclass(frozen=True, slots=True)
class _Begun:
    """A crash that is noted on disk, and the descriptor that its core comes from."""

    intake: Intake
    core: int
    host_pid: int | None


def _say_no_core(message: bytes) -> None:
    if message:
        log.warning(
            "apport message refused",
            reason=f"no descriptor came with {message[:64]!r}",
            effect="the connection is closed",
        )
    else:
        log.debug("connection without a message")
