"""The loop of coremond: hear of sources, have a few handled at once, look through all at times."""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import zmq

from common.acknowledgement import Acknowledgement
from common.daemon import Stop
from common.item import CrashItem
from common.log import Logger
from common.workqueue import ItemReceiver
from services.coremond.acknowledge import Acknowledger
from services.coremond.inbox import Inbox
from services.coremond.source_directories import SourceDirectories
from services.coremond.sweep import Sweep
from services.coremond.watch import Found
from services.coremond.worker import Worker

log = Logger()

LANES = 4
"""Sources that are handled at once, so that small cores pass by large ones."""
BETWEEN_SCANS = 1.0
"""Seconds between two looks through all that events ask for: anybody can cause such events."""
LONGEST_DELAY = 60.0
"""Seconds after which a source that could not be handled is looked at again at the latest."""


class Loop:
    """Waits for events, items and intervals, and gives the worker what is due.

    *calm* is called first in each thread that the worker is used in.
    """

    def __init__(
        self,
        directories: SourceDirectories,
        items: ItemReceiver,
        worker: Worker,
        sweep: Sweep,
        acknowledger: Acknowledger,
        *,
        scan_interval: float,
        sweep_interval: float,
        calm: Callable[[], None] = lambda: None,
    ) -> None:
        self._directories = directories
        self._items = items
        self._worker = worker
        self._sweep = sweep
        self._acknowledger = acknowledger
        self._scan_interval = scan_interval
        self._sweep_interval = sweep_interval
        self._inbox = Inbox(longest_delay=max(scan_interval, LONGEST_DELAY))
        self._next_scan = time.monotonic()
        self._next_sweep = self._next_scan
        self.beat_at = self._next_scan
        """When it last did a step, monotonic seconds."""
        self.scanned_at = self._next_scan
        """When it last looked through all, or began, monotonic seconds."""
        self._lanes = ThreadPoolExecutor(LANES, "lane", initializer=calm)
        self._under_way: dict[Found, tuple[CrashItem | None, Future[bool]]] = {}
        self._heard_meanwhile: dict[Found, CrashItem | None] = {}
        """What happened to sources that are under way, which are looked at again after that."""
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.shutdown()
        os.close(self._ended)

    def queue(self) -> tuple[int, int]:
        """Say how many sources wait, and how many are under way."""
        return len(self._inbox), len(self._under_way)

    def run(self, stop: Stop) -> None:
        """Go on until *stop*."""
        poller = zmq.Poller()
        poller.register(stop.fileno(), zmq.POLLIN)
        self._directories.register(poller)
        poller.register(self._ended, zmq.POLLIN)
        self._items.register(poller)
        while not stop.is_set():
            self.beat_at = time.monotonic()
            poller.poll(math.ceil(self._wait(time.monotonic()) * 1000))
            self._hear()
            self._collect()
            now = time.monotonic()
            if now >= self._next_scan:
                self._scan()
            while len(self._under_way) < LANES and (work := self._inbox.take(now)):
                self._begin(*work)
            if now >= self._next_sweep and not stop.is_set():
                self._sweep.run()
                self._next_sweep = now + self._sweep_interval

    def _wait(self, now: float) -> float:
        due = [self._next_scan, self._next_sweep]
        next_due = self._inbox.next_due()
        if next_due is not None and len(self._under_way) < LANES:
            due.append(next_due)
        return max(0.0, min(due) - now)

    def _hear(self) -> None:
        completed, everything = self._directories.changed()
        if everything:
            self._next_scan = min(self._next_scan, self.scanned_at + BETWEEN_SCANS)
        for found in completed:
            self._inbox.offer(found, at_once=True)
        for item in self._items.waiting():
            if isinstance(item, Acknowledgement):
                self._acknowledger.acknowledge(item.ids)
            else:
                self._offer_item(item)

    def _offer_item(self, item: CrashItem) -> None:
        found = self._directories.find(item.path)
        if found is None:
            log.warning(
                "work item refused",
                path=item.path,
                reason=f"expected a core file directly in {self._directories}",
                effect="it is dropped",
            )
            return
        self._inbox.offer(found, item, at_once=True)

    def _scan(self) -> None:
        there = self._directories.all()
        for found in there - self._under_way.keys():
            self._inbox.offer(found)
        self._worker.forget_missing(there)
        self._worker.look_around()
        self._directories.tidy()
        self.scanned_at = time.monotonic()
        self._next_scan = self.scanned_at + self._scan_interval

    def _begin(self, found: Found, item: CrashItem | None) -> None:
        if found in self._under_way:
            self._heard_meanwhile[found] = item
            return
        future = self._lanes.submit(self._worker.handle, found, item)
        self._under_way[found] = item, future
        future.add_done_callback(lambda _: os.eventfd_write(self._ended, 1))

    def _collect(self) -> None:
        """See what became of sources that were handled; what nobody expected is raised."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._ended)
        ended = [(found, *work) for found, work in self._under_way.items() if work[1].done()]
        for found, item, future in ended:
            del self._under_way[found]
            if future.result():
                self._inbox.forget(found)
            else:
                self._inbox.offer_again(found, item, time.monotonic())
            if found in self._heard_meanwhile:
                self._inbox.offer(found, self._heard_meanwhile.pop(found), at_once=True)
