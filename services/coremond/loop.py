"""The loop of coremond: hear of sources, handle them one by one, look through all at intervals."""

import math
import time

import zmq

from common.daemon import Stop
from common.item import CrashItem
from common.log import Logger
from common.naming import is_core_name
from common.workqueue import ItemReceiver
from services.coremond import sources
from services.coremond.inbox import Inbox
from services.coremond.sweep import Sweep
from services.coremond.watch import CrashDirectory
from services.coremond.worker import Worker

log = Logger()

LONGEST_DELAY = 60.0
"""Seconds after which a source that could not be handled is looked at again at the latest."""


class Loop:
    """Waits for events, items and intervals, and gives the worker what is due."""

    def __init__(
        self,
        directory: CrashDirectory,
        items: ItemReceiver,
        worker: Worker,
        sweep: Sweep,
        *,
        scan_interval: float,
        sweep_interval: float,
    ) -> None:
        self._directory = directory
        self._items = items
        self._worker = worker
        self._sweep = sweep
        self._scan_interval = scan_interval
        self._sweep_interval = sweep_interval
        self._inbox = Inbox(longest_delay=max(scan_interval, LONGEST_DELAY))
        self._next_scan = time.monotonic()
        self._next_sweep = self._next_scan

    def run(self, stop: Stop) -> None:
        """Go on until *stop*."""
        poller = zmq.Poller()
        poller.register(stop.fileno(), zmq.POLLIN)
        poller.register(self._directory.fileno(), zmq.POLLIN)
        self._items.register(poller)
        while not stop.is_set():
            poller.poll(math.ceil(self._wait(time.monotonic()) * 1000))
            self._hear()
            now = time.monotonic()
            if now >= self._next_scan:
                self._scan()
            work = self._inbox.take(now)
            if work:
                self._handle(*work)
            elif now >= self._next_sweep and not stop.is_set():
                self._sweep.run()
                self._next_sweep = now + self._sweep_interval

    def _wait(self, now: float) -> float:
        due = [self._next_scan, self._next_sweep]
        if (next_due := self._inbox.next_due()) is not None:
            due.append(next_due)
        return max(0.0, min(due) - now)

    def _hear(self) -> None:
        changed = self._directory.changed()
        if changed is None:
            self._next_scan = 0.0
        for name in changed or ():
            self._inbox.offer(name, at_once=True)
        for item in self._items.waiting():
            self._offer_item(item)

    def _offer_item(self, item: CrashItem) -> None:
        folder, _, name = item.path.rpartition("/")
        if folder != str(self._directory.path) or not is_core_name(name):
            log.warning(
                "work item refused",
                path=item.path,
                reason=f"expected a core file directly in {self._directory.path}",
                effect="it is dropped",
            )
            return
        self._inbox.offer(name, item, at_once=True)

    def _scan(self) -> None:
        names = self._directory.names()
        for name in names:
            self._inbox.offer(name)
        self._worker.forget_missing(names)
        sources.remove_stale_sidecars(self._directory.descriptor)
        self._next_scan = time.monotonic() + self._scan_interval

    def _handle(self, name: str, item: CrashItem | None) -> None:
        if self._worker.handle(name, item):
            self._inbox.forget(name)
        else:
            self._inbox.offer_again(name, item, time.monotonic())
