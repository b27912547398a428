"""Crashes whose cores nobody would keep: turned away before they are dumped, and counted.

Counts reach coremond as crashes do, through the spool: an item that stands for several, and an
empty core.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Lock, Thread
from typing import Any

from common.errors import CollectorError
from common.holds import Hold, HoldsFile
from common.item import Arrival, CrashItem
from common.log import Logger
from common.workload import stem
from services.crashagent.spool import Spool

log = Logger()

PERIOD = 1.0
"""Seconds in which crashes of one process are counted together."""


class TurnedAway:
    """Decides who is turned away, by what coremond wrote down, and counts."""

    def __init__(
        self,
        holds: HoldsFile,
        spool: Spool,
        tell: Callable[[CrashItem], None],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._holds = holds
        self._spool = spool
        self._tell = tell
        self._clock = clock
        self._lock = Lock()
        self._counted: dict[tuple[str, str], CrashItem] = {}
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="turned-away", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write down what was counted, and end."""
        self._stopped.set()
        self._thread.join()

    def may_be(self) -> bool:
        """Say whether anybody would be turned away now."""
        return self._holds.any_at(self._clock())

    def count(
        self, arrived: Arrival, comm: str, hostname: str, read: Callable[[], dict[str, Any]]
    ) -> bool:
        """Count the crash of a process, if it is to be turned away; say if it is.

        *read* gives all that is known of it; once in a while it is asked.
        """
        workload = stem(hostname or self._spool.hostname)
        hold = self._holds.find(workload, comm or "unknown", self._clock())
        if hold is None:
            return False
        key = hold.workload, hold.process
        with self._lock:
            before = self._counted.get(key)
            if before:
                self._counted[key] = replace(before, count=before.count + 1)
            else:
                self._counted[key] = self._first(hold, arrived, read())
        return True

    def _first(self, hold: Hold, arrived: Arrival, facts: dict[str, Any]) -> CrashItem:
        return CrashItem(
            path="/",
            arrived=arrived,
            crashed_at=self._spool.moment(),
            turned_away=hold.reason,
            held_until=hold.until,
            **facts,
        )

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD):
            self._write_down()
        self._write_down()

    def _write_down(self) -> None:
        with self._lock:
            counted, self._counted = self._counted, {}
        for key, item in counted.items():
            try:
                noted = self._spool.note(item)
            except (OSError, CollectorError) as error:
                log.error(
                    "count not written down", reason=str(error), effect="tried again in a moment"
                )
                self._take_back(key, item)
            else:
                self._tell(noted)

    def _take_back(self, key: tuple[str, str], item: CrashItem) -> None:
        """Count *item* once more; what is left of it on disk has its moment."""
        item = replace(item, crashed_at=self._spool.moment())
        with self._lock:
            newer = self._counted.get(key)
            self._counted[key] = replace(newer, count=item.count + newer.count) if newer else item
