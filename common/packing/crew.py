"""The threads that pack: so many of the process at once, whoever has something to be packed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import BoundedSemaphore
from typing import Self

from common.packing.allocator import keep_memory


class Crew:
    """Owns *workers* - 1 helping threads; who wants to pack works along with them.

    *calm* is called in each helper first, to make it nice.
    """

    def __init__(self, workers: int, calm: Callable[[], None] = lambda: None) -> None:
        self.workers = workers
        self.at_work = BoundedSemaphore(workers)
        """To be held by who keeps a CPU busy: at most *workers* do at once."""
        self._helpers = ThreadPoolExecutor(max(1, workers - 1), "pack", initializer=calm)
        keep_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._helpers.shutdown(cancel_futures=True)

    def helping(self, work: Callable[[], None], most: int) -> list[Future[None]]:
        """Have at most *most* helpers do *work* too, as soon as they are free."""
        helpers: list[Future[None]] = []
        with suppress(RuntimeError):  # no further thread can be had: those there are do it
            while len(helpers) < min(most, self.workers - 1):
                helpers.append(self._helpers.submit(work))
        return helpers
