"""The Apport forward socket: Apport on the host hands the crash of a container in.

One connection is one crash; its sender shuts its end down at once, and reads nothing.
"""

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

_ACCEPT_PAUSE = 0.1


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
    ) -> None:
        self._listener = listener
        self._spool = spool
        self._limits = limits
        self._tell = tell
        self._pool = ThreadPoolExecutor(max_intakes, thread_name_prefix="intake")
        self._out_of_time = Event()
        self._under_way: set[Future[None]] = set()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def serve(self, stop: Stop) -> None:
        """Take crashes in until *stop*; then let those on their way arrive, for a while."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while not stop.is_set():
            poll.poll()
            self._accept_waiting(stop)
        self._finish()

    def _finish(self) -> None:
        wait(set(self._under_way), timeout=STOP_GRACE)
        self._out_of_time.set()
        self._pool.shutdown(wait=True)

    def _submit(self, begin: "Callable[[], _Begun | None]") -> None:
        future = self._pool.submit(self._run, begin)
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
                time.sleep(_ACCEPT_PAUSE)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        """Note the crash on disk before anything else, and leave the rest to a thread.

        The message is nearly always there by the time its sender is accepted. Until the note is
        made, nothing but this process knows of the crash, so no thread is waited for.
        """
        connection.setblocking(False)
        try:
            begun = self._begin(connection)
        except BlockingIOError:
            self._submit(lambda: self._wait_and_begin(connection))
        except OSError as error:
            log.error("crash lost", reason=error.strerror, effect="nothing of it can be written")
            connection.close()
        else:
            self._submit(lambda: begun)

    def _wait_and_begin(self, connection: socket.socket) -> "_Begun | None":
        connection.settimeout(self._limits.idle_timeout)
        try:
            return self._begin(connection)
        except TimeoutError:
            log.warning(
                "sender said nothing",
                reason=f"no message within {self._limits.idle_timeout:g} s",
                effect="the connection is closed",
            )
            connection.close()
            return None

    def _begin(self, connection: socket.socket) -> "_Begun | None":
        """Read the message and note the crash; None where there is no core in it.

        The message stays in the connection until the crash is noted: see `keeper`. Raises
        BlockingIOError or TimeoutError if the message is not there yet.
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
            connection.close()
            _say_no_core(message, flags)
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
        if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
            log.warning(
                "apport message refused",
                reason="its descriptor is no pipe, socket or file",
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

    def _run(self, begin: "Callable[[], _Begun | None]") -> None:
        try:
            begun = begin()
            if begun:
                self._take_in(begun)
        except Exception as error:
            log.exception("intake failed", reason=repr(error), effect="taken up at the next start")

    def _take_in(self, begun: "_Begun") -> None:
        intake = begun.intake
        started = time.monotonic()
        try:
            try:
                facts = self._read_process(begun)
                why = receive(begun.core, intake.part, self._limits, self._out_of_time.is_set)
            finally:
                os.close(begun.core)
            intake.item = replace(intake.item, truncated=bool(why), truncated_why=why, **facts)
            size = os.fstat(intake.part).st_size
            item = self._spool.finish(intake)
        finally:
            os.close(intake.part)
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
class _Begun:
    """A crash that is noted on disk, and the descriptor that its core comes from."""

    intake: Intake
    core: int
    host_pid: int | None


def _say_no_core(message: bytes, flags: int) -> None:
    if flags & socket.MSG_CTRUNC:
        log.error(
            "crash lost",
            reason="its descriptor did not arrive (MSG_CTRUNC): out of file descriptors",
            effect="the core is lost",
        )
    elif message:
        log.warning(
            "apport message refused",
            reason=f"no descriptor came with {message[:64]!r}",
            effect="the connection is closed",
        )
    else:
        log.debug("connection without a message")
