"""How far a long transfer is."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from services.corectl.show import say, show_size

_EVERY = 3.0


class Progress(Protocol):
    """Takes note of how many bytes are there."""

    def __call__(self, done: int) -> None:
        """Show that *done* bytes are there."""
        ...


@contextmanager
def showing_progress(total: int) -> Iterator[Progress]:
    """Show a bar on a terminal, and a line every few seconds anywhere else."""
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


class _Lines:
    def __init__(self, total: int) -> None:
        self._total = total
        self._next = time.monotonic() + _EVERY

    def __call__(self, done: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            percent = done * 100 // max(self._total, 1)
            say(f"{show_size(done)} of {show_size(self._total)} ({percent} %)")
