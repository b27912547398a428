"""Whether coremond can do its work: its directories, their disks, and its loop."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common.disk import is_full
from common.monitor import State

LATE_AFTER = 60.0
"""Seconds that a look through the source directories may come too late."""
HUNG_AFTER = 300.0
"""Seconds without a step after which the loop is given up."""


class Wellbeing:
    """Looks at the directories when it is asked; *check_store* raises where the store is gone.

    *failing* says of each crash that could not be stored why not.
    """

    def __init__(
        self,
        crash_dir: Path,
        store_dir: Path,
        check_store: Callable[[], None],
        *,
        failing: Callable[[], Sequence[str]] = tuple,
        scan_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crash_dir = crash_dir
        self._store_dir = store_dir
        self._check_store = check_store
        self._failing = failing
        self._scan_interval = scan_interval
        self._clock = clock

    def state(self, beat_at: float, scanned_at: float) -> State:
        """Say how coremond is, whose loop did its last step and its last scan then (monotonic)."""
        now = self._clock()
        faults = [
            *directory_faults(self._crash_dir),
            *self._store_faults(),
            *self._loop_faults(now - scanned_at),
            *self._failures(),
        ]
        is_hung = now - beat_at > self._scan_interval + HUNG_AFTER
        return State(faults=tuple(faults), is_hung=is_hung)

    def _store_faults(self) -> Iterator[str]:
        try:
            self._check_store()
        except OSError as error:
            yield f"{self._store_dir}: {error.strerror or error}"
        else:
            yield from directory_faults(self._store_dir)

    def _failures(self) -> Iterator[str]:
        if reasons := self._failing():
            yield f"cores that cannot be stored, and wait: {len(reasons)}; the last: {reasons[-1]}"

    def _loop_faults(self, since_scan: float) -> Iterator[str]:
        if since_scan > self._scan_interval + LATE_AFTER:
            yield f"the crash directory was last looked through {since_scan:.0f} s ago"


def directory_faults(path: Path) -> Iterator[str]:
    """Say what keeps us from storing cores in the directory *path*."""
    try:
        disk = os.statvfs(path)
    except OSError as error:
        yield f"{path}: {error.strerror or error}"
        return
    if not os.path.isdir(path):
        yield f"{path}: it is no directory"
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield f"{path}: it cannot be written"
    elif is_full(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize):
        yield f"{path}: the disk is full"
