"""``corectl submit``: hand coremond a file of the crash directory now."""

import os
from argparse import Namespace
from pathlib import Path

import zmq

from common.files import open_regular, opened_directory
from common.item import CrashItem
from common.workqueue import ItemSender, items_endpoint
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe

_WAIT_MS = 2000


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Inject a work item for one file."""
    given = os.path.abspath(args.file)
    problem = _problem(given, settings.crash_dir)
    path = str(settings.crash_dir / os.path.basename(given))  # by the name that coremond has for it
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
        return "no such file"
    if os.path.realpath(os.path.dirname(path)) != os.path.realpath(crash_dir):
        return f"it is not in the crash directory, {crash_dir}"
    with opened_directory(crash_dir) as directory:
        try:
            os.close(open_regular(directory, os.path.basename(path)))
        except FileNotFoundError:
            return "no such file"
    return ""
