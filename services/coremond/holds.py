"""Processes that no core is kept of for now, written down so that crashagent turns them away."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from common.holds import Hold, HoldKey, write_holds
from common.log import Logger

log = Logger()

_MOST = 1000
"""Processes that are held at once: of others, the cores are taken in, and not kept."""

Change = Literal["hold", "release"]


class Holds:
    """Owns the file of holds in the run directory; *tell* hears of each that begins or ends."""

    def __init__(
        self,
        run_dir: Path,
        tell: Callable[[Change, Hold], None],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._run_dir = run_dir
        self._tell = tell
        self._clock = clock
        self._holds: dict[HoldKey, Hold] = {}
        self._is_written = False

    def add(self, hold: Hold) -> None:
        """Hold a process, or hold it longer."""
        before = self._holds.get(hold.key)
        if hold.until <= self._clock() or (before and before.until >= hold.until):
            return
        if before is None and len(self._holds) >= _MOST:
            return
        self._holds[hold.key] = hold
        self._write()
        if before is None:
            self._tell("hold", hold)

    def release(self) -> None:
        """End the holds whose time is over; what could not be written is written now."""
        now = self._clock()
        over = [key for key, hold in self._holds.items() if hold.until <= now]
        ended = [self._holds.pop(key) for key in over]
        if ended or not self._is_written:
            self._write()
        for hold in ended:
            self._tell("release", replace(hold, reason=""))

    def _write(self) -> None:
        try:
            write_holds(self._run_dir, self._holds.values())
            self._is_written = True
        except OSError as error:
            self._is_written = False
            log.error(
                "holds not written down",
                reason=str(error),
                effect="crashes are taken in, and not kept",
            )
