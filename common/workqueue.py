"""The two wires between the programs, over ZeroMQ: items to do, and events to hear.

The file on disk is the record; a message only says "look there". A lost message costs seconds,
never a crash. Endpoints are ``ipc://`` in the run directory (mode 0700), never TCP.
"""

from pathlib import Path
from typing import Self

import zmq

from common.acknowledgement import ACKNOWLEDGEMENT_VERSION, Acknowledgement
from common.errors import MessageError
from common.item import CoreEvent, CrashItem
from common.log import Logger

Context = zmq.Context[zmq.Socket[bytes]]

HIGH_WATER_MARK = 1000
LINGER = 500
"""Milliseconds that closing may wait for messages on their way."""
_FRAME_LIMIT = 16 * 2**20  # a peer that sends more is cut off by ZeroMQ itself

log = Logger()


def items_endpoint(run_dir: Path) -> str:
    """Where coremond takes work items."""
    return f"ipc://{run_dir}/items.sock"


def events_endpoint(run_dir: Path) -> str:
    """Where coremond tells what became of cores."""
    return f"ipc://{run_dir}/events.sock"


class _Endpoint:
    """Owns one socket, in the thread that made it, until the ``with`` block ends."""

    def __init__(self, context: Context, kind: int) -> None:
        self._socket = context.socket(kind)
        self._socket.linger = LINGER
        self._socket.maxmsgsize = _FRAME_LIMIT
        self._socket.sndhwm = self._socket.rcvhwm = HIGH_WATER_MARK

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def register(self, poller: zmq.Poller) -> None:
        """Let *poller* wait for this end, beside other things."""
        poller.register(self._socket, zmq.POLLIN)

    def _receive(self) -> list[bytes] | None:
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None


class ItemSender(_Endpoint):
    """The end that hands items to coremond, and what operators have to say."""

    def __init__(self, context: Context, endpoint: str, *, wait_ms: int = 0) -> None:
        super().__init__(context, zmq.PUSH)
        self._socket.immediate = True  # queue only for a coremond that is really there
        self._socket.sndtimeo = wait_ms
        self._socket.connect(endpoint)

    def send(self, item: CrashItem | Acknowledgement) -> bool:
        """Hand *item* over; False if nobody took it, who will find a crash on disk."""
        try:
            self._socket.send_multipart(item.to_wire())
        except zmq.Again:
            return False
        return True


class ItemReceiver(_Endpoint):
    """The end that takes items; it binds, so it decides the address."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, zmq.PULL)
        self._socket.bind(endpoint)

    def waiting(self) -> list[CrashItem | Acknowledgement]:
        """Take all that waits; a malformed message is logged and dropped."""
        items: list[CrashItem | Acknowledgement] = []
        while (frames := self._receive()) is not None:
            try:
                items.append(_read(frames))
            except MessageError as error:
                log.warning("work item refused", reason=str(error), effect="it is dropped")
        return items


def _read(frames: list[bytes]) -> CrashItem | Acknowledgement:
    if frames[:1] == [ACKNOWLEDGEMENT_VERSION]:
        return Acknowledgement.from_wire(frames)
    return CrashItem.from_wire(frames)


class EventSender(_Endpoint):
    """The end that tells events; whoever is not listening misses them."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, zmq.PUB)
        self._socket.bind(endpoint)

    def send(self, event: CoreEvent) -> None:
        """Tell *event* to whoever listens."""
        self._socket.send_multipart(event.to_wire())


class EventListener(_Endpoint):
    """The end that hears events."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, zmq.SUB)
        self._socket.subscribe(b"")
        self._socket.connect(endpoint)

    def next(self, timeout: float) -> CoreEvent | None:
        """Give the next event, or None after *timeout* seconds."""
        while self._socket.poll(int(timeout * 1000)):
            frames = self._receive()
            if frames is None:
                return None
            try:
                return CoreEvent.from_wire(frames)
            except MessageError as error:
                log.warning("event refused", reason=str(error), effect="it is passed over")
        return None
