"""The end of what a container wrote before it crashed, from the kubelet's directories.

A log that has grown large is renamed, with the time behind its name, and another is begun; those
renamed before it are packed, and not read. Source: the kubelet's pkg/kubelet/kuberuntime/logs and
pkg/kubelet/logs (rotateLatestLog); each line of a CRI log begins with its moment.
"""

import os
import re
import stat
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from common.kubelet import KubeletLogs
from common.pod import Pod
from common.settings import NANOSECONDS

_LOG = re.compile(r"(\d{1,10})\.log(?:\.(\d{8}-\d{6}))?", re.ASCII)
"""The restarts of the container, and when the log was rotated."""
_SLACK = 1.0
"""Seconds that the clocks of the log and of the crash may differ by."""
_STEPS = 64
"""So many times what is kept of a log is looked through for the lines before the crash."""


class ContainerLogs:
    """Reads at most *lines* lines, and *size* bytes of them; 0 lines is none at all."""

    def __init__(self, kubelet: KubeletLogs | None, *, lines: int, size: int) -> None:
        self._kubelet = kubelet
        self._lines = lines
        self._size = size

    def tail(self, pod: Pod | None, container: str, crashed_at: int) -> bytes:
        """Give the end of the log of a *container* that crashed then (ns); empty without one."""
        if pod is None or self._kubelet is None or not self._lines or not pod.uid:
            return b""
        with suppress(OSError, ValueError):
            folder = _open_below(
                self._kubelet.root, ("pods", self._kubelet.directory(pod).name, container)
            )
            try:
                return self._tail(folder, crashed_at / NANOSECONDS)
            finally:
                os.close(folder)
        return b""

    def _tail(self, folder: int, crashed_at: float) -> bytes:
        """Read the newest log that was begun before the crash: a restart begins another.

        What was rotated away of it is read, too, as far as there is room for more.
        """
        found = [match for name in os.listdir(folder) if (match := _LOG.fullmatch(name))]
        found.sort(key=lambda match: (int(match[1]), match[2] is None, match[2]), reverse=True)
        # What is told in whole seconds was up to one later; a log may be all that is left.
        begun_by = crashed_at + (_SLACK if crashed_at.is_integer() else 0.0)
        for latest in (begun_by, crashed_at + _SLACK):
            lines = self._join(folder, found, crashed_at, latest)
            if lines is not None:
                return b"".join(lines[-self._lines :])
        return b""

    def _join(
        self, folder: int, found: list[re.Match[str]], crashed_at: float, begun_by: float
    ) -> list[bytes] | None:
        """Join the ends of the newest log that was *begun_by* then; None if there is none."""
        restarts, lines, room = "", list[bytes](), self._size
        for match in found:
            if restarts not in {"", match[1]} or len(lines) >= self._lines or not room:
                break
            end = _read_end(folder, match[0], crashed_at, begun_by, room)
            if end is not None:
                restarts, lines = match[1], end.lines + lines
                room = 0 if end.is_cut else room - sum(map(len, end.lines))
        return lines if restarts else None


class _End(NamedTuple):
    """The end of a log."""

    lines: list[bytes]
    is_cut: bool
    """There is more before them."""


def _read_end(folder: int, name: str, crashed_at: float, begun_by: float, room: int) -> _End | None:
    """Read the last lines of a log from before the crash, *room* bytes at most.

    A container may write on after it. None where the log was begun later, or is no file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None  # it is a link, or went meanwhile
    try:
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode)
        if not is_file or _begun(descriptor, status) > begun_by:
            return None
        end = _find_end(descriptor, status.st_size, crashed_at + _SLACK, room)
        start = max(0, end - room)
        text = os.pread(descriptor, end - start, start)
    finally:
        os.close(descriptor)
    if start:  # the first line is not whole
        text = text.partition(b"\n")[2]
    return _End(BytesIO(text).readlines(), is_cut=start > 0)


def _find_end(descriptor: int, size: int, moment: float, step: int) -> int:
    """Find where the lines that were written until the *moment* end; 0 if that is too far back."""
    end = size
    for _ in range(_STEPS):
        start = max(0, end - step)
        text = os.pread(descriptor, end - start, start)
        if start:
            text = text.partition(b"\n")[2]
        lines = BytesIO(text).readlines()
        if not lines:  # of one longer than that, nothing is told
            return end
        while lines and _moment(lines[-1]) > moment:
            end -= len(lines.pop())
        if lines or not start:
            return end
    return 0


def _open_below(root: Path, names: tuple[str, ...]) -> int:
    """Open the directory at *names* under *root*, through no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, flags)
    for name in names:
        if "/" in name or name in {"", ".", ".."}:
            os.close(folder)
            raise ValueError(f"no name of a directory: {name!r}")
        try:
            below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _begun(descriptor: int, status: os.stat_result) -> float:
    """Read when the first line was written, seconds since the epoch; 0.0 is unknown.

    While there is none, that is when the file was made.
    """
    return _moment(os.pread(descriptor, 64, 0)) if status.st_size else status.st_mtime


def _moment(line: bytes) -> float:
    """Read the moment that a *line* begins with, seconds since the epoch; 0.0 without one."""
    word = line[:64].partition(b" ")[0]
    try:
        # Nanoseconds, of which Python reads six digits.
        text = re.sub(r"(\.\d{1,6})\d*", r"\1", word.decode())
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
