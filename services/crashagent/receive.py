"""Read a core from whoever sends it, into a sparse file, for as long as that makes sense."""

import fcntl
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.disk import DiskLimits
from common.packing import BLOCK, is_zero, write_sparsely

_SPACE_CHECK_EVERY = 64 * 2**20
_STOP_CHECK_EVERY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a core that comes in is cut short, in seconds and by its size."""

    idle_timeout: float
    timeout: float
    disk: DiskLimits


def receive(source: int, part: int, limits: Limits, is_stopped: Callable[[], bool]) -> str:
    """Read *source* (a pipe or a file) to its end into the empty file *part*.

    Pages of zeros become holes. The result says why the core was cut short, empty if it was not.
    """
    _enlarge_pipe(source)
    os.set_blocking(source, False)  # somebody else may read from it too, between poll and read
    reception = _Reception(source, part, limits, is_stopped)
    try:
        why = reception.run()
    except OSError as error:
        why = f"it could not be taken further: {error.strerror}"
    os.ftruncate(part, reception.size)
    return why


class _Reception:
    def __init__(
        self, source: int, part: int, limits: Limits, is_stopped: Callable[[], bool]
    ) -> None:
        self._source, self._part = source, part
        self._limits, self._is_stopped = limits, is_stopped
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        self._deadline = time.monotonic() + limits.timeout
        self._written = 0
        self._checked = -_SPACE_CHECK_EVERY
        self.size = 0

    def run(self) -> str:
        while True:
            why = self._wait() or self._room()
            if why:
                return why
            try:
                block = os.read(self._source, BLOCK)
            except BlockingIOError:
                continue
            if not block:
                return ""
            if self._is_full() and not is_zero(block):
                return f"it has more than {self._limits.disk.max_core} bytes of data"
            if 0 < self._limits.disk.max_size <= self.size:
                return f"it is longer than {self._limits.disk.max_size} bytes"
            self._written += write_sparsely(self._part, block)
            self.size += len(block)

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

    def _room(self) -> str:
        """Say why the disk must not take any more, if so."""
        if self._written - self._checked >= _SPACE_CHECK_EVERY:
            self._checked = self._written
            if self._limits.disk.lacking(self._part) > 0:
                return "the disk must keep more space free"
        return ""

    def _is_full(self) -> bool:
        limit = self._limits.disk.max_core
        return 0 < limit <= self._written


def _enlarge_pipe(source: int) -> None:
    """Take more of a pipe at once; where that is not to be had, it is only slower."""
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, BLOCK)
    except OSError:
        return
