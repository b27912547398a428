"""Which sources wait, and which of them is to be looked at next, and when."""

from common.item import CrashItem

FIRST_DELAY = 0.05
"""Seconds after which a source that was still being written is looked at again; then doubled."""


class Inbox:
    """Holds each waiting source once; the oldest crash comes first."""

    def __init__(self, *, longest_delay: float) -> None:
        self._longest_delay = longest_delay
        self._items: dict[str, CrashItem | None] = {}
        self._not_before: dict[str, float] = {}
        self._delays: dict[str, float] = {}

    def offer(self, name: str, item: CrashItem | None = None) -> None:
        """Let the source *name* wait, with the *item* that told of it if there was one."""
        self._items[name] = item or self._items.get(name)

    def offer_again(self, name: str, item: CrashItem | None, now: float) -> None:
        """Let a source wait that could not be handled yet, longer each time."""
        delay = min(self._delays.get(name, FIRST_DELAY / 2) * 2, self._longest_delay)
        self._delays[name] = delay
        self._not_before[name] = now + delay
        self.offer(name, item)

    def forget(self, name: str) -> None:
        """Forget that a source had to wait: it was handled."""
        self._delays.pop(name, None)

    def take(self, now: float) -> tuple[str, CrashItem | None] | None:
        """Take the oldest source that is due at *now*."""
        due = [name for name in self._items if self._not_before.get(name, now) <= now]
        if not due:
            return None
        name = min(due, key=_age)
        self._not_before.pop(name, None)
        return name, self._items.pop(name)

    def next_due(self) -> float | None:
        """Say when the next source is due, None while none waits."""
        if not self._items:
            return None
        return min(self._not_before.get(name, 0.0) for name in self._items)


def _age(name: str) -> tuple[int, str]:
    timestamp = name.rpartition(".")[2]
    if timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 19:
        return int(timestamp.ljust(19, "0")), name
    return 0, name
