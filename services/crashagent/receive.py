"""Read a core from whoever sends it, for as long as that makes sense."""

import fcntl
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.disk import DiskLimits
from common.item import Packed
from common.packing.codec import BLOCK
from common.packing.sources import MANY, Claim, too_long, too_much_data
from common.packing.sparse import is_zero
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
    stream = _Stream(source, limits, is_stopped)
    checked = -_SPACE_CHECK_EVERY

    def watch() -> None:
        nonlocal checked
        if part.written - checked >= _SPACE_CHECK_EVERY:
            checked = part.written
            if limits.disk.lacking(part.descriptor) > 0:
                stream.cut = "the disk must keep more space free"

    try:
        part.fill(stream, watch)
    except OSError as error:
        stream.cut = f"it could not be taken further: {error.strerror}"
    return part.end(stream.cut), stream.cut


class _Stream:
    """A `Source`: what comes, in blocks."""

    pieces = MANY

    def __init__(self, descriptor: int, limits: Limits, is_stopped: Callable[[], bool]) -> None:
        self.cut = ""
        self._descriptor = descriptor
        self._limits, self._is_stopped = limits, is_stopped
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._deadline = time.monotonic() + limits.timeout
        self._is_ended = False
        self._size = self._data = 0

    def claim(self, buffer: bytearray) -> Claim | None:
        """Read the next block; one that is not full is the last."""
        size = 0
        with memoryview(buffer) as view:
            while size < BLOCK and not self._is_ended and not self.cut:
                self.cut = self._wait()
                if not self.cut:
                    size += self._read(view[size:])
            return self._claim(view[:size])

    def fill(self, claim: Claim, buffer: bytearray) -> int:  # noqa: ARG002  # `claim` has read
        """Give what was claimed: it is there already."""
        return claim.size

    def _read(self, view: memoryview) -> int:
        try:
            got = os.readv(self._descriptor, [view])
        except BlockingIOError:
            return 0
        except OSError as error:
            self.cut = f"it could not be taken further: {error.strerror}"
            return 0
        self._is_ended = not got
        return got

    def _claim(self, block: memoryview) -> Claim | None:
        """Claim the block that was read, if there is one and it may be taken."""
        disk = self._limits.disk
        if not block:
            return None
        self._data += 0 if is_zero(block) else len(block)
        if 0 < disk.max_core < self._data:
            self.cut = too_much_data(disk.max_core)
        elif 0 < disk.max_size <= self._size:
            self.cut = too_long(disk.max_size)
        else:
            self._size += len(block)
            return Claim(len(block))
        return None

    def _wait(self) -> str:
        """Wait until there is something to read, or say why not to."""
        idle_until = time.monotonic() + self._limits.idle_timeout
        while True:
            now = time.monotonic()
            if self._is_stopped():
                return "crashagent was stopped while the core came in"
            if now >= self._deadline:
                return f"it took longer than {self._limits.timeout:g} s to come in"
            if now >= idle_until:
                return f"its sender said nothing for {self._limits.idle_timeout:g} s"
            wait = min(_STOP_CHECK_EVERY, self._deadline - now, idle_until - now)
            if self._poll.poll(wait * 1000):
                return ""


def _enlarge_pipe(source: int) -> None:
    """Take more of a pipe at once; where that is not to be had, it is only slower."""
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, BLOCK)
    except OSError:
        return
