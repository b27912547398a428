"""Write down which crashes an operator knows of."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace

from common.log import Logger
from services.coremond.store import CoreStore

log = Logger()


class Acknowledger:
    """Changes the records of *store*, under the lock *deciding* that all do who change it."""

    def __init__(
        self,
        store: CoreStore,
        deciding: AbstractContextManager[object],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._deciding = deciding
        self._clock = clock

    def acknowledge(self, ids: Collection[str]) -> None:
        """Note it in the records with these *ids*, those that are gone meanwhile aside."""
        with self._deciding:
            wanted = set(ids)
            known = [record for record in self._store.records() if record.id in wanted]
            try:
                for record in known:
                    if record.acknowledged_at is None:
                        self._store.save(replace(record, acknowledged_at=self._clock()))
            except OSError as error:
                log.error(
                    "acknowledgement not written down",
                    reason=str(error),
                    effect="the crashes stay unacknowledged",
                )
                return
        log.info("crashes acknowledged", count=len(known))
