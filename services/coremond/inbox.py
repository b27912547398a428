"""Which sources wait, and which of them is to be looked at next, and when."""

from heapq import heappop, heappush

from common.item import CrashItem

FIRST_DELAY = 0.05
"""Seconds after which a source that was still being written is looked at again; then doubled."""


class Inbox:
    """Holds each waiting source once; the oldest crash comes first."""

    def __init__(self, *, longest_delay: float) -> None:
        self._longest_delay = longest_delay
        self._items: dict[str, CrashItem | None] = {}
        self._delays: dict[str, float] = {}
        self._ready: list[tuple[int, str]] = []
        self._later: list[tuple[float, str]] = []
        self._not_before: dict[str, float] = {}

    def offer(self, name: str, item: CrashItem | None = None, *, at_once: bool = False) -> None:
        """Let the source *name* wait, with the *item* that told of it if there was one.

        With *at_once*, something has happened to it: it is looked at without a delay.
        """
        is_new = name not in self._items
        self._items[name] = item or self._items.get(name)
        was_delayed = at_once and self._not_before.pop(name, None) is not None
        if is_new or was_delayed:
            heappush(self._ready, _age(name))

    def offer_again(self, name: str, item: CrashItem | None, now: float) -> None:
        """Let a source wait that could not be handled yet, longer each time."""
        delay = min(self._delays.get(name, FIRST_DELAY / 2) * 2, self._longest_delay)
        self._delays[name] = delay
        self._items[name] = item or self._items.get(name)
        self._not_before[name] = now + delay
        heappush(self._later, (now + delay, name))

    def forget(self, name: str) -> None:
        """Forget that a source had to wait: it was handled."""
        self._delays.pop(name, None)

    def take(self, now: float) -> tuple[str, CrashItem | None] | None:
        """Take the oldest source that is due at *now*."""
        while self._later and self._later[0][0] <= now:
            due, name = heappop(self._later)
            if self._not_before.get(name) == due:  # else it was offered at once since
                del self._not_before[name]
                heappush(self._ready, _age(name))
        if not self._ready:
            return None
        _, name = heappop(self._ready)
        return name, self._items.pop(name)

    def next_due(self) -> float | None:
        """Say when the next source is due, None while none waits."""
        if self._ready:
            return 0.0
        while self._later and self._not_before.get(self._later[0][1]) != self._later[0][0]:
            heappop(self._later)
        return self._later[0][0] if self._later else None


def _age(name: str) -> tuple[int, str]:
    timestamp = name.rpartition(".")[2]
    if timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 19:
        return int(timestamp.ljust(19, "0")), name
    return 0, name
