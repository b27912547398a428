"""Read a core from whoever sends it, for as long as that makes sense."""

import fcntl
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.disk import DiskLimits
from common.errors import TruncatedError
from common.item import Packed
from common.packing.codec import BLOCK
from common.packing.sources import Allowance, StreamSource
from services.crashagent.part import Part

_SPACE_CHECK_EVERY = 64 * 2**20
_STOP_CHECK_EVERY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a core that comes in is cut short, in seconds and by its size."""

    idle_timeout: float
    timeout: float
    disk: DiskLimits


def receive(
    source: int, part: Part, limits: Limits, is_stopped: Callable[[], bool]
) -> tuple[Packed | None, str]:
    """Read *source* (a pipe or a file) to its end into *part*.

    The result is what packing gave, None where the part is raw, and why the core was cut short,
    empty if it was not.
    """
    _enlarge_pipe(source)
    os.set_blocking(source, False)  # somebody else may read from it too, between poll and read
    sender, disk = _Sender(source, limits, is_stopped), limits.disk
    stream = StreamSource(sender.read, Allowance(disk.max_core, disk.max_size))
    checked = -_SPACE_CHECK_EVERY

    def watch() -> None:
        nonlocal checked
        if part.written - checked >= _SPACE_CHECK_EVERY:
            checked = part.written
            if disk.lacking(part.descriptor) > 0:
                stream.cut = "the disk must keep more space free"

    try:
        part.fill(stream, watch)
    except OSError as error:
        stream.cut = f"it could not be taken further: {error.strerror}"
    return part.end(stream.cut), stream.cut


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

    def _wait(self) -> None:
        """Wait until there is something to read."""
        idle_until = time.monotonic() + self._limits.idle_timeout
        while True:
            now = time.monotonic()
            if self._is_stopped():
                raise TruncatedError("crashagent was stopped while the core came in")
            if now >= self._deadline:
                raise TruncatedError(f"it took longer than {self._limits.timeout:g} s to come in")
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
