"""Processes whose cores would not be kept: coremond writes them down, crashagent turns them away.

The file is the record: it is written whole whenever it changes, and read again when it did.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.errors import CollectorError
from common.files import opened_directory, read_limited, write_durably

HOLDS = "holds.json"
"""In the run directory."""
_LIMIT = 16 * 2**20

HoldKey = tuple[str, str, str, str]
"""A process: namespace, workload, container, and its own name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """No core of this process is kept until *until* (ns since the epoch)."""

    namespace: str
    workload: str
    container: str
    process: str
    until: int
    reason: str

    @property
    def key(self) -> HoldKey:
        """The process."""
        return self.namespace, self.workload, self.container, self.process


def write_holds(run_dir: Path, holds: Iterable[Hold]) -> None:
    """Write down all *holds* there are."""
    with opened_directory(run_dir) as directory:
        write_durably(directory, HOLDS, msgspec.json.encode(list(holds)))


class _Known(NamedTuple):
    """What a file held, and which file it was: inode and time."""

    seen: tuple[int, int] | None
    holds: dict[HoldKey, Hold]


class HoldsFile:
    """Knows the holds that stand in the run directory; many threads may ask."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._path = run_dir / HOLDS
        self._known = _Known(None, {})

    def any_at(self, now: int) -> bool:
        """Say whether there is a hold at *now* (ns)."""
        return any(now < hold.until for hold in self._read().values())

    def find(self, key: HoldKey, now: int) -> Hold | None:
        """Give the hold of a process at *now* (ns), if there is one."""
        hold = self._read().get(key)
        return hold if hold and now < hold.until else None

    def _read(self) -> dict[HoldKey, Hold]:
        """Read the file again if it is another; one that cannot be read holds nobody."""
        try:
            status = os.stat(self._path)
        except OSError:
            return {}
        known, seen = self._known, (status.st_ino, status.st_mtime_ns)
        if known.seen != seen:
            # At once, for another thread may be here, too, and may have seen another file.
            known = self._known = _Known(seen, self._read_anew())
        return known.holds

    def _read_anew(self) -> dict[HoldKey, Hold]:
        try:
            with opened_directory(self._run_dir) as directory:
                text = read_limited(directory, HOLDS, _LIMIT, owner=os.geteuid())
            found = msgspec.json.decode(text, type=list[Hold])
        except (OSError, CollectorError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
        return {hold.key: hold for hold in found}
