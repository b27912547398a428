"""Which sources wait, and which of them is to be looked at next, and when."""

import re
from heapq import heappop, heappush

from common.item import CrashItem
from services.coremond.watch import Found

FIRST_DELAY = 0.05
"""Seconds after which a source that was still being written is looked at again; then doubled."""

_MOMENT = re.compile(r"(?<!\d)(?:\d{19}|\d{16}|\d{10})(?!\d)", re.ASCII)


class Inbox:
    """Holds each waiting source once; the oldest crash comes first."""

    def __init__(self, *, longest_delay: float) -> None:
        self._longest_delay = longest_delay
        self._items: dict[Found, CrashItem | None] = {}
        self._delays: dict[Found, float] = {}
        self._ready: list[tuple[int, Found]] = []
        self._later: list[tuple[float, Found]] = []
        self._not_before: dict[Found, float] = {}

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, found: Found, item: CrashItem | None = None, *, at_once: bool = False) -> None:
        """Let the source *found* wait, with the *item* that told of it if there was one.

        With *at_once*, something has happened to it: it is looked at without a delay.
        """
        is_new = found not in self._items
        self._items[found] = item or self._items.get(found)
        was_delayed = at_once and self._not_before.pop(found, None) is not None
        if is_new or was_delayed:
            heappush(self._ready, _age(found))

    def offer_again(self, found: Found, item: CrashItem | None, now: float) -> None:
        """Let a source wait that could not be handled yet, longer each time.

        One that was offered meanwhile waits already.
        """
        delay = min(self._delays.get(found, FIRST_DELAY / 2) * 2, self._longest_delay)
        self._delays[found] = delay
        is_ready = found in self._items
        self._items[found] = self._items.get(found) or item
        if is_ready:
            return
        self._not_before[found] = now + delay
        heappush(self._later, (now + delay, found))

    def forget(self, found: Found) -> None:
        """Forget that a source had to wait: it was handled."""
        self._delays.pop(found, None)

    def take(self, now: float) -> tuple[Found, CrashItem | None] | None:
        """Take the oldest source that is due at *now*."""
        while self._later and self._later[0][0] <= now:
            due, found = heappop(self._later)
            if self._not_before.get(found) == due:  # else it was offered at once since
                del self._not_before[found]
                heappush(self._ready, _age(found))
        if not self._ready:
            return None
        _, found = heappop(self._ready)
        return found, self._items.pop(found)

    def next_due(self) -> float | None:
        """Say when the next source is due, None while none waits."""
        if self._ready:
            return 0.0
        while self._later and self._not_before.get(self._later[0][1]) != self._later[0][0]:
            heappop(self._later)
        return self._later[0][0] if self._later else None


def _age(found: Found) -> tuple[int, Found]:
    """Sort by the moment (ns) in the name: in seconds, microseconds or nanoseconds."""
    moments = _MOMENT.findall(found.name)
    return int(moments[-1].ljust(19, "0")) if moments else 0, found
