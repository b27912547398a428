"""Moments as an operator writes them, and as one reads them."""

import time
from datetime import datetime

from common.settings import NANOSECONDS, duration


def read_moment(text: str, *, now: int) -> int:
    """Read a moment: a date, a date and time (ISO 8601), or how long before *now* (``2h``).

    Moments are nanoseconds since the epoch. Without an offset, a time is the local one.
    """
    try:
        return now - int(duration(text) * NANOSECONDS)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text).astimezone()
        return int(moment.timestamp()) * NANOSECONDS + moment.microsecond * 1000
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r}: expected a date such as 2025-03-23 or '2025-03-23 14:01:36', "
            "or a duration ago such as 90s, 5m, 2h or 1d"
        ) from None


def show_moment(moment: int) -> str:
    """Write a moment in local time, as coredumpctl does."""
    try:
        return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(moment // NANOSECONDS))
    except (ValueError, OverflowError, OSError):
        return f"{moment} ns"  # the far future of a forged record


def show_span(seconds: float) -> str:
    """Write a span of time with its largest unit only."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
