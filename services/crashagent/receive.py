"""Read a core from whoever sends it, for as long as that makes sense."""

import fcntl
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from common.disk import DiskLimits
from common.errors import TruncatedError
from common.item import Packed
from common.packing.codec import BLOCK
from common.packing.sources import Allowance, RangeSource, StreamSource
from services.crashagent.part import Part
from services.crashagent.process import Held
from services.crashagent.resident import CaptureError, Memory, Stream, read_head

_SPACE_CHECK_EVERY = 64 * 2**20
_STOP_CHECK_EVERY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a core that comes in is cut short, in seconds and by its size."""

    idle_timeout: float
    timeout: float
    disk: DiskLimits
    resident: bool = True
    """Whether memory is read from the process itself, where that can be."""


class Received(NamedTuple):
    """What came of receiving a core."""

    packed: Packed | None
    """What packing gave; None where the part is raw."""
    cut: str
    """Why it was cut short; empty if it was not."""
    capture: str
    """How its memory was read, as in a `Crash`."""


def receive(
    source: int,
    part: Part,
    limits: Limits,
    is_stopped: Callable[[], bool],
    held: Held | None = None,
) -> Received:
    """Read *source* (a pipe, a socket or a file) to its end into *part*.

    Where the process is *held*, only what is in its memory is read, and no more of *source* than
    the headers; where that cannot be, all of it.
    """
    _enlarge_pipe(source)
    os.set_blocking(source, False)  # somebody else may read from it too, between poll and read
    sender = _Sender(source, limits, is_stopped)
    stream = Stream(sender.read)
    if held is None or not limits.resident:
        return _receive_stream(stream, part, limits, "stream")
    try:
        with Memory(held, read_head(stream)) as memory:
            capturing = memory.source(_allowance(limits))
            return _fill(part, capturing, limits, "resident", sender.why_not)
    except (CaptureError, TruncatedError) as error:
        part.restart()
        return _receive_stream(stream, part, limits, f"stream: {error}")


def _receive_stream(stream: Stream, part: Part, limits: Limits, capture: str) -> Received:
    return _fill(part, StreamSource(stream.read, _allowance(limits)), limits, capture)


def _allowance(limits: Limits) -> Allowance:
    return Allowance(limits.disk.max_core, limits.disk.max_size)


def _fill(
    part: Part,
    source: StreamSource | RangeSource,
    limits: Limits,
    capture: str,
    why_not: Callable[[], str] = lambda: "",
) -> Received:
    """Write all of *source*, as long as there is room, and nothing says *why_not* to."""
    checked = -_SPACE_CHECK_EVERY

    def watch() -> None:
        nonlocal checked
        source.cut = source.cut or why_not()
        if part.written - checked >= _SPACE_CHECK_EVERY:
            checked = part.written
            if limits.disk.lacking(part.descriptor) > 0:
                source.cut = "the disk must keep more space free"

    try:
        part.fill(source, watch)
    except OSError as error:
        source.cut = f"it could not be taken further: {error.strerror}"
    except TruncatedError as error:
        source.cut = str(error)
    return Received(part.end(source.cut), source.cut, capture)


class _Sender:
    """Whoever writes the core, at the other end of *descriptor*."""

    def __init__(self, descriptor: int, limits: Limits, is_stopped: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._limits, self._is_stopped = limits, is_stopped
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._deadline = time.monotonic() + limits.timeout

    def read(self, view: memoryview) -> int:
        """Read what comes next; raises `TruncatedError` where no more is waited for."""
        while True:
            self._wait()
            try:
                return os.readv(self._descriptor, [view])
            except BlockingIOError:  # somebody else was quicker
                continue
            except OSError as error:
                raise TruncatedError(f"it could not be taken further: {error.strerror}") from error

    def why_not(self) -> str:
        """Say why no more of a core is to be taken; empty if it is."""
        if self._is_stopped():
            return "crashagent was stopped while the core came in"
        if time.monotonic() >= self._deadline:
            return f"it took longer than {self._limits.timeout:g} s to come in"
        return ""

    def _wait(self) -> None:
        """Wait until there is something to read."""
        idle_until = time.monotonic() + self._limits.idle_timeout
        while True:
            now = time.monotonic()
            if why := self.why_not():
                raise TruncatedError(why)
            if now >= idle_until:
                raise TruncatedError(f"its sender said nothing for {self._limits.idle_timeout:g} s")
            wait = min(_STOP_CHECK_EVERY, self._deadline - now, idle_until - now)
            if self._poll.poll(wait * 1000):
                return


def _enlarge_pipe(source: int) -> None:
    """Take more of a pipe at once; where that is not to be had, it is only slower."""
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, BLOCK)
    except OSError:
        return
