"""``corectl submit``: hand coremond a file of the crash directory now."""

import os
from argparse import Namespace
from pathlib import Path

import zmq

from common.corestore import read_records
from common.files import open_regular, opened_directory
from common.item import CrashItem
from common.naming import encode_name
from common.record import CrashRecord, Source
from common.workqueue import ItemSender, items_endpoint
from services.corectl.presence import files_in, presence, why_absent
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe

_WAIT_MS = 2000
_MISSING = "no such file"


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Inject a work item for one file, unless coremond has taken it already."""
    given = os.path.abspath(args.file)
    path = str(settings.crash_dir / os.path.basename(given))  # by the name that coremond has for it
    problem = _problem(given, settings.crash_dir)
    if problem in {"", _MISSING} and (record := _taken(given, settings)):
        why = why_absent(record) or f"its core is {record.core}"
        print(f"{safe(path)}: coremond has taken it already; it is {record.id}, {safe(why)}")
        return os.EX_OK
    if problem:
        complain(f"{safe(given)}: {problem}")
        return 1
    with (
        zmq.Context() as context,
        ItemSender(context, items_endpoint(settings.run_dir), wait_ms=_WAIT_MS) as items,
    ):
        is_taken = items.send(CrashItem(path=path))
    if not is_taken:
        complain("coremond did not take it within 2 s: is it running? See corectl status.")
        return 1
    print(f"{safe(path)}: handed to coremond")
    return os.EX_OK


def _problem(path: str, crash_dir: Path) -> str:
    """Say why coremond would not take *path*; empty where it would."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8, so it cannot be told to coremond; rename it first"
    if not os.path.lexists(path):
        return _MISSING
    if os.path.realpath(os.path.dirname(path)) != os.path.realpath(crash_dir):
        return f"it is not in the crash directory, {crash_dir}"
    with opened_directory(crash_dir) as directory:
        try:
            os.close(open_regular(directory, os.path.basename(path)))
        except FileNotFoundError:
            return _MISSING
    return ""


def _taken(path: str, settings: CorectlSettings) -> CrashRecord | None:
    """Find the newest crash that was read from *path*; of a file that is there, from that one."""
    folder, name = os.path.split(path)
    if os.path.realpath(folder) != os.path.realpath(settings.crash_dir):
        return None
    records = read_records(settings.store_dir)
    try:
        there = Source.of(name, os.lstat(path)).key
    except FileNotFoundError:
        found = [r for r in records if any(s.name == encode_name(name) for s in r.sources)]
    else:
        files = files_in(settings.store_dir)
        found = [
            record
            for record in records
            if any(source.key == there for source in record.sources)
            and presence(record, files) != "missing"  # then coremond takes it once more
        ]
    return max(found, key=lambda record: record.detected_at, default=None)
