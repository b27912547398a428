"""``corectl verify``: whether each stored core is still what was written."""

import os
from argparse import Namespace
from pathlib import Path

from common.corestore import read_record, read_records, verify
from common.errors import CollectorError
from common.files import opened_directory
from common.item import to_json
from common.naming import RECORD_SUFFIX
from common.record import CrashRecord
from services.corectl.matching import choose
from services.corectl.settings import CorectlSettings
from services.corectl.show import safe, say, tame_json
from services.corectl.stored import NONE_FOUND, selection_of

OK = "OK"
GONE = "removed meanwhile"


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Read each stored core whole, and say of each what is wrong with it."""
    records = choose(read_records(settings.store_dir), selection_of(args))
    stored = [record for record in records if record.state == "stored"]
    if args.match and not stored:
        say(NONE_FOUND)
        return 1
    results = {}
    for record in stored:
        results[record.core] = finding(settings.store_dir, record)
        if not args.json:
            print(f"{safe(record.core)}: {safe(results[record.core])}", flush=True)
    if args.json:
        print(tame_json(to_json(results).decode()))
    return os.EX_OK if set(results.values()) <= {OK, GONE} else 1


def finding(directory: Path, record: CrashRecord) -> str:
    """Say what is wrong with one core, or ``OK``, or that retention has just removed it."""
    try:
        verify(directory, record)
    except (OSError, CollectorError) as error:
        if not _is_still_stored(directory, record):
            return GONE
        if isinstance(error, FileNotFoundError):
            return "a file is missing"
        return (error.strerror if isinstance(error, OSError) else "") or str(error)
    return OK


def _is_still_stored(directory: Path, record: CrashRecord) -> bool:
    try:
        with opened_directory(directory) as opened:
            return read_record(opened, record.name + RECORD_SUFFIX).state == "stored"
    except FileNotFoundError:
        return False
    except (OSError, CollectorError):
        return True
