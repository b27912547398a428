"""How much the stored cores take too much, and which of them go for a new one."""

from collections.abc import Iterable

from common.disk import DiskLimits
from common.record import CrashRecord
from services.coremond import retain
from services.coremond.store import CoreStore


class Room:
    """Watches the quota and the disk of the store."""

    def __init__(self, store: CoreStore, disk: DiskLimits, *, max_use: int) -> None:
        self._store = store
        self._disk = disk
        self._max_use = max_use

    def choose_for(
        self, newcomer: CrashRecord, replaces: Iterable[CrashRecord]
    ) -> list[CrashRecord] | None:
        """Choose what must go so that the packed *newcomer* may stay; None if it cannot.

        It is on the disk already; what it *replaces* goes anyway.
        """
        going = list(replaces)
        stored = [record for record in self._stored() if record not in going]
        freed = sum(record.occupied for record in going)
        return retain.choose_for_room(stored, newcomer, self._surplus([*stored, newcomer], freed))

    def choose_for_part(self, newcomer: CrashRecord, written: int) -> list[CrashRecord]:
        """Choose what must go so that the *newcomer* may be packed on, the disk being full.

        Nobody knows how much is still to come: as much as was *written* so far is made free.
        Nothing goes if that would not help.
        """
        needed = max(written, self._surplus(self._stored()))
        return retain.choose_for_room(self._stored(), newcomer, needed) or []

    def choose(self) -> list[CrashRecord]:
        """Choose what must go as things are; nothing, if even all of it would not be enough."""
        stored = self._stored()
        return retain.choose_for_room(stored, None, self._surplus(stored)) or []

    def _stored(self) -> list[CrashRecord]:
        return [record for record in self._store.records() if record.state == "stored"]

    def _surplus(self, stored: Iterable[CrashRecord], freed: int = 0) -> int:
        over = sum(record.occupied for record in stored) - self._max_use if self._max_use else 0
        return max(over, self._disk.lacking(self._store.descriptor) - freed, 0)
