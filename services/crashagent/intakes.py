"""Take cores in, several at once, whichever way they came: the part that all ways share."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import Protocol

from common.errors import TruncatedError
from common.item import CrashItem
from common.log import Logger
from services.crashagent.listener import PERIOD, STARVED
from services.crashagent.measures import Measures
from services.crashagent.process import Held
from services.crashagent.receive import Limits, receive
from services.crashagent.spool import Intake

log = Logger()

STOP_GRACE = 20.0
"""Seconds that cores on their way have to arrive once crashagent is asked to stop."""


class Incoming(Protocol):
    """A core that is about to come."""

    @property
    def core(self) -> int:
        """What it comes from: a pipe, a socket or a file."""
        ...

    def hold(self) -> Held | None:
        """Find the process it is of, which is there as long as its core is not taken."""
        ...

    def begin(self) -> None:
        """Have the core come; raises `TruncatedError` where it will not."""
        ...

    def close(self) -> None:
        """Let go of it, and with that of the process."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A crash that is noted on disk."""

    intake: Intake
    incoming: Incoming


class Intakes:
    """Owns the threads that take cores in, *most* at once; *tell* hears of each that is whole."""

    def __init__(
        self,
        finish: Callable[[Intake], CrashItem],
        limits: Limits,
        *,
        most: int,
        tell: Callable[[CrashItem], None],
        measures: Measures,
        calm: Callable[[], None] = lambda: None,
    ) -> None:
        self._finish = finish
        self._limits = limits
        self._tell = tell
        self._measures = measures
        self._pool = ThreadPoolExecutor(most, "intake", initializer=calm)
        self._out_of_time = Event()
        self._under_way: set[Future[None]] = set()
        self._lock = Lock()

    def submit(self, begun: Begun) -> None:
        """Take the core in as soon as a thread is free; its process is held until then."""
        future = self._pool.submit(self._run, begun)
        with self._lock:
            self._under_way.add(future)
            self._measures.show_under_way(len(self._under_way))
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        with self._lock:
            self._under_way.discard(future)
            self._measures.show_under_way(len(self._under_way))

    def stop(self) -> None:
        """Let those on their way arrive, for a while; what is not whole then is cut short."""
        with self._lock:
            under_way = set(self._under_way)
        wait(under_way, timeout=STOP_GRACE)
        self._out_of_time.set()
        self._pool.shutdown(wait=True)

    def _run(self, begun: Begun) -> None:
        try:
            self._take_in(begun.intake, begun.incoming)
        except Exception as error:
            self._measures.failed()
            log.exception("intake failed", reason=repr(error), effect="taken up at the next start")

    def _take_in(self, intake: Intake, incoming: Incoming) -> None:
        started = time.monotonic()
        try:
            why = self._receive(intake, incoming)
            released = time.monotonic() - started
            size = os.fstat(intake.part.descriptor).st_size
            item = self._end(intake)
        finally:
            intake.close()
        if why:
            log.warning(
                "core came in partly", file=item.path, reason=why, effect="it is kept so, marked"
            )
        log.debug(
            "crash taken in",
            file=item.path,
            size=size,
            capture=item.capture,
            released=released,
            seconds=(seconds := time.monotonic() - started),
        )
        self._measures.taken_in(item, size=size, released=released, seconds=seconds)
        self._tell(item)

    def _end(self, intake: Intake) -> CrashItem:
        """Give the core its name; where descriptors are wanting, those of others are waited for."""
        while True:
            try:
                return self._finish(intake)
            except OSError as error:
                if error.errno not in STARVED or self._out_of_time.wait(PERIOD):
                    raise

    def _receive(self, intake: Intake, incoming: Incoming) -> str:
        """Receive the core, note in the item what came of it, and say why it was cut short."""
        held = None
        try:
            held = incoming.hold()
            intake.item = replace(intake.item, **(held.facts() if held else {}))
            incoming.begin()
            packed, why, capture = receive(
                incoming.core, intake.part, self._limits, self._out_of_time.is_set, held
            )
        except TruncatedError as error:
            why, capture = str(error), ""
            packed = intake.part.end(why)
        finally:
            if held:
                held.close()
            incoming.close()
        intake.item = replace(
            intake.item, packed=packed, truncated=bool(why), truncated_why=why, capture=capture
        )
        return why
