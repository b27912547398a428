"""``corectl ack``: tell coremond that an operator knows of crashes."""

import os
import time
from argparse import Namespace
from pathlib import Path

import zmq

from common.acknowledgement import MOST_AT_ONCE, Acknowledgement
from common.corestore import read_record
from common.errors import CollectorError
from common.files import opened_directory
from common.naming import RECORD_SUFFIX
from common.record import CrashRecord
from common.workqueue import ItemSender, items_endpoint
from services.corectl.matching import Selection
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain
from services.corectl.stored import find_records, selection_of

_WAIT_MS = 2000
PATIENCE = 5.0
"""Seconds that coremond has to write down those of one message."""
_PERIOD = 0.02


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Acknowledge the new crashes that the arguments mean."""
    selection = selection_of(args)
    if args.all == (selection != Selection()):
        complain("expected what is meant (MATCH, -S, -U, -n or -1), or --all")
        return 2
    records = find_records(settings, selection, only_new=True)
    if not records:
        return 1
    if problem := acknowledge(settings, records):
        complain(problem)
        return 1
    print(f"{len(records)} acknowledged")
    return os.EX_OK


def acknowledge(settings: CorectlSettings, records: list[CrashRecord]) -> str:
    """Have coremond write down that *records* are known; say why it did not, or nothing."""
    with (
        zmq.Context() as context,
        ItemSender(context, items_endpoint(settings.run_dir), wait_ms=_WAIT_MS) as items,
    ):
        for start in range(0, len(records), MOST_AT_ONCE):
            some = records[start : start + MOST_AT_ONCE]
            if not items.send(Acknowledgement(ids=tuple(record.id for record in some))):
                return "coremond did not take it within 2 s: is it running? See corectl status."
            if left := _wait(settings.store_dir, some):
                return f"coremond has not written down {left} of them; its log says why"
    return ""


def _wait(store_dir: Path, records: list[CrashRecord]) -> int:
    """Wait until coremond has written *records* anew; say of how many it has not."""
    deadline = time.monotonic() + PATIENCE
    left = records
    with opened_directory(store_dir) as store:
        while left := [record for record in left if _is_still_new(store, record)]:
            if time.monotonic() > deadline:
                break
            time.sleep(_PERIOD)
    return len(left)


def _is_still_new(store: int, record: CrashRecord) -> bool:
    try:
        now = read_record(store, record.name + RECORD_SUFFIX)
    except (FileNotFoundError, CollectorError):  # its time was over
        return False
    return now.is_new and now.count == record.count
