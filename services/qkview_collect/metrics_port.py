"""The port that metrics are served at, which is waited for where somebody else has it."""

import socket
from threading import Event, Thread
from typing import Self

from common.answering import Answer, Answering
from common.log import Logger

log = Logger()

RETRY = 5.0
"""Seconds from one attempt to get the port to the next."""
_BACKLOG = 128


class MetricsPort:
    """Owns the port at *address*, and has *answer* answer there, while the block runs."""

    def __init__(self, address: str, answer: Answer, *, retry: float = RETRY) -> None:
        self._address = address
        self._answer = answer
        self._retry = retry
        self._is_stopped = Event()
        self._answering: Answering | None = None
        self._thread = Thread(target=self._run, name="metrics-port", daemon=True)

    def __enter__(self) -> Self:
        if not self._open(is_first=True):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._answering:
            self._answering.__exit__()

    def _run(self) -> None:
        while not self._is_stopped.wait(self._retry):
            if self._open(is_first=False):
                return

    def _open(self, *, is_first: bool) -> bool:
        """Try to have the port; say whether it is had."""
        try:
            listener = listen(self._address)
        except (OSError, UnicodeError) as error:
            if is_first:
                log.error(
                    "metrics not served",
                    address=self._address,
                    reason=getattr(error, "strerror", None) or str(error),
                    effect=f"it is tried again every {self._retry:g} s",
                )
            return False
        port = listener.getsockname()[1]
        self._answering = Answering(listener, self._answer).__enter__()
        host = self._address.rpartition(":")[0]
        log.debug("metrics are served", address=f"{host}:{port}")
        return True


def listen(address: str) -> socket.socket:
    """Listen at *address*, ``host:port``; an `OSError` where that cannot be."""
    host, _, port = address.rpartition(":")
    family, kind, proto, _, place = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # `[::]` is everywhere, as it is for gRPC
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
