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
from common.holds import Hold, HoldKey, HoldsFile
from common.identity import Identifier
from common.item import Arrival, Crash, CrashItem
from common.log import Logger
from services.crashagent.measures import Measures
from services.crashagent.spool import Spool

log = Logger()

PERIOD = 1.0
"""Seconds in which crashes of one process are counted together."""


class TurnedAway:
    """Decides who is turned away, by what coremond wrote down, and counts."""

    def __init__(
        self,
        holds: HoldsFile,
        identifier: Identifier,
        spool: Spool,
        tell: Callable[[CrashItem], None],
        measures: Measures,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._holds = holds
        self._identifier = identifier
        self._spool = spool
        self._tell = tell
        self._measures = measures
        self._clock = clock
        self._lock = Lock()
        self._counted: dict[HoldKey, CrashItem] = {}
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

    def count(self, crash: Crash, read: Callable[[], dict[str, Any]]) -> bool:
        """Count a *crash*, if it is to be turned away; say if it is.

        Its process and what tells its pod are known; *read* gives all, once in a while.
        """
        crash = replace(crash, hostname=crash.hostname or self._spool.hostname)
        whose = self._identifier.whose(crash)
        key = whose.namespace, whose.workload, whose.container, crash.comm or "unknown"
        hold = self._holds.find(key, self._clock())
        if hold is None:
            return False
        self._measures.turned_away(crash.arrived)
        with self._lock:
            before = self._counted.get(key)
            if before:
                self._counted[key] = replace(before, count=before.count + 1)
            else:
                self._counted[key] = self._first(hold, crash.arrived, read())
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

    def _take_back(self, key: HoldKey, item: CrashItem) -> None:
        """Count *item* once more; what is left of it on disk has its moment."""
        item = replace(item, crashed_at=self._spool.moment())
        with self._lock:
            newer = self._counted.get(key)
            self._counted[key] = replace(newer, count=item.count + newer.count) if newer else item
