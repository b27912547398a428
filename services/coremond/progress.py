"""How far conversions are, told once a second to whoever looks: in a file, and in debug lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from common.converting import Converting, write_converting
from common.log import Logger

log = Logger()

Show = Callable[[int, int], None]
"""Takes note that so many bytes are done, of so many; 0 where nobody knows."""

EVERY = 1.0
"""Seconds from one telling to the next; what takes less is not told of at all."""


class Progress:
    """Tells of conversions in the run directory; they may run in any thread."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = Lock()
        self._told: dict[str, Converting] = {}
        self._write()

    @contextmanager
    def of(self, source: str, core: str) -> Iterator[Show]:
        """Tell of one conversion, of *source* into the file *core*, while the block runs."""
        now = time.time()
        current = Converting(source=source, core=core, done=0, size=0, since=now, at=now)
        next_at = time.monotonic() + EVERY

        def show(done: int, size: int) -> None:
            nonlocal next_at
            if time.monotonic() < next_at:
                return
            next_at = time.monotonic() + EVERY
            percent = min(100, 100 * done // size) if size else None
            self._tell(replace(current, done=done, size=size, percent=percent, at=time.time()))

        try:
            yield show
        finally:
            with self._lock:
                if self._told.pop(source, None):
                    self._write()

    def _tell(self, current: Converting) -> None:
        log.debug(
            "converting",
            src=current.source,
            core=current.core,
            done=current.done,
            size=current.size,
            percent=current.percent,
        )
        with self._lock:
            self._told[current.source] = current
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # nobody sees how far it is, and it goes on
            write_converting(self._run_dir, list(self._told.values()))
