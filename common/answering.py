"""Answer whoever connects to a socket, where nobody who is slow or silent is waited for."""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Self

from common.log import Logger

log = Logger()

MOST = 64
"""Connections at once; the oldest goes for a further one."""
PATIENCE = 10.0
"""Seconds that a connection may last, whatever is slow about it."""
_LAST_WORDS = 1.0
"""Seconds that a peer has to close its end, once it was answered."""
_RECEIVED_AT_ONCE = 16 * 1024
_STARVED_FOR = 0.2
"""Seconds until connections are accepted again, where there were no descriptors left."""

Answer = Callable[[bytes], bytes | None]
"""Takes all that was received so far, at first nothing; None where more must come."""


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    deadline: float
    received: bytes = b""
    reply: memoryview = field(default_factory=lambda: memoryview(b""))
    is_answered: bool = False
    is_done: bool = False
    """All was sent, and the other end is to close; a close of ours could cut our words off."""


class Answering:
    """Owns *listener* and the thread that *answer* is called in, until the ``with`` block ends."""

    def __init__(
        self,
        listener: socket.socket,
        answer: Answer,
        *,
        most: int = MOST,
        patience: float = PATIENCE,
    ) -> None:
        self._listener = listener
        self._answer = answer
        self._most = most
        self._patience = patience
        self._connections: dict[int, _Connection] = {}
        self._poll = select.poll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_stopped = False
        listener.setblocking(False)
        self._thread = Thread(target=self._run, name="answering", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        os.eventfd_write(self._stop, 1)
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():  # else a disk that hangs holds it: it ends with the program
            os.close(self._stop)

    def _run(self) -> None:
        self._poll.register(self._stop, select.POLLIN)
        while not self._is_stopped:
            self._poll.register(self._listener, select.POLLIN)
            ready = {descriptor for descriptor, _ in self._poll.poll(self._wait())}
            for descriptor in ready & self._connections.keys():
                self._go_on(self._connections[descriptor])
            if self._listener.fileno() in ready:
                self._accept()
            self._drop_overdue()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._listener.close()

    def _wait(self) -> float | None:
        """Say how many milliseconds nobody has to be looked after."""
        if not self._connections:
            return None
        first = min(connection.deadline for connection in self._connections.values())
        return max(0.0, first - time.monotonic()) * 1000 + 1

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # no descriptors: whoever waits is accepted in a moment
            self._poll.unregister(self._listener)
            time.sleep(_STARVED_FOR)
            return
        if len(self._connections) >= self._most:
            self._drop(min(self._connections.values(), key=lambda other: other.deadline))
        accepted.setblocking(False)
        connection = _Connection(accepted, time.monotonic() + self._patience)
        self._connections[accepted.fileno()] = connection
        self._try_answer(connection)

    def _go_on(self, connection: _Connection) -> None:
        try:
            if connection.is_answered and not connection.is_done:
                self._send(connection)
                return
            received = connection.socket.recv(_RECEIVED_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        if not received:
            self._drop(connection)
        elif not connection.is_done:
            connection.received += received
            self._try_answer(connection)

    def _try_answer(self, connection: _Connection) -> None:
        try:
            reply = self._answer(connection.received)
        except Exception as error:
            log.exception("cannot answer", reason=repr(error), effect="the connection is closed")
            self._drop(connection)
            return
        if reply is None:
            self._poll.register(connection.socket, select.POLLIN)
            return
        connection.reply, connection.is_answered = memoryview(reply), True
        try:
            self._send(connection)
        except OSError:
            self._drop(connection)

    def _send(self, connection: _Connection) -> None:
        """Send what goes without waiting; at the end, the peer has a moment to close."""
        try:
            while connection.reply:
                connection.reply = connection.reply[connection.socket.send(connection.reply) :]
        except BlockingIOError:
            self._poll.register(connection.socket, select.POLLOUT)
            return
        connection.socket.shutdown(socket.SHUT_WR)
        connection.is_done = True
        connection.deadline = min(connection.deadline, time.monotonic() + _LAST_WORDS)
        self._poll.register(connection.socket, select.POLLIN)

    def _drop_overdue(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if now >= connection.deadline:
                self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        del self._connections[descriptor]
        with suppress(KeyError):  # it was not waited for yet
            self._poll.unregister(descriptor)
        connection.socket.close()
