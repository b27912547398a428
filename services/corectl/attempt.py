"""A question that must not keep us waiting."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Attempt(Generic[T]):
    """Asks in a thread of its own, which is left behind if no answer comes.

    A file system whose server is gone holds a system call for as long as it likes.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._answer: Future[T] = Future()
        Thread(target=self._run, args=(ask,), daemon=True).start()

    def _run(self, ask: Callable[[], T]) -> None:
        try:
            self._answer.set_result(ask())
        except Exception as error:
            self._answer.set_exception(error)

    def answer(self, until: float) -> T:
        """Give the answer, or raise what asking raised; TimeoutError at *until* (monotonic)."""
        try:
            return self._answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError as error:
            raise TimeoutError("no answer in time") from error
