"""The end of what a container wrote before it crashed, from the kubelet's directories.

Source: the kubelet's pkg/kubelet/kuberuntime/logs; each line of a CRI log begins with its moment.
"""

import os
import re
import stat
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path

from common.kubelet import KubeletLogs
from common.pod import Pod
from common.settings import NANOSECONDS

_LOG = re.compile(r"(\d{1,10})\.log", re.ASCII)
_SLACK = 1.0
"""Seconds that the clocks of the log and of the crash may differ by."""


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
        """Read the newest log that was begun before the crash: a restart begins another."""
        found = [match for name in os.listdir(folder) if (match := _LOG.fullmatch(name))]
        for match in sorted(found, key=lambda match: int(match[1]), reverse=True):
            try:
                descriptor = os.open(
                    match[0],
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=folder,
                )
            except OSError:
                continue  # it is a link, or went meanwhile
            try:
                status = os.fstat(descriptor)
                is_file = stat.S_ISREG(status.st_mode)
                if is_file and _begun(descriptor, status) <= crashed_at + _SLACK:
                    return self._last_lines(descriptor, status.st_size, crashed_at)
            finally:
                os.close(descriptor)
        return b""

    def _last_lines(self, descriptor: int, size: int, crashed_at: float) -> bytes:
        """Read the last lines from before the crash; a container may write on after it."""
        start = max(0, size - self._size)
        text = os.pread(descriptor, self._size, start)
        if start:  # the first line is not whole
            text = text.partition(b"\n")[2]
        lines = BytesIO(text).readlines()
        while lines and _moment(lines[-1]) > crashed_at + _SLACK:
            lines.pop()
        return b"".join(lines[-self._lines :])


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
