"""The records a command is about."""

from argparse import Namespace

from common.corestore import read_records
from common.record import CrashRecord
from services.corectl.matching import Selection, choose
from services.corectl.settings import CorectlSettings
from services.corectl.show import say

NONE_FOUND = "No coredumps found."
NONE_NEW_FOUND = "No new coredumps found."


def selection_of(args: Namespace) -> Selection:
    """Gather what the arguments of the command line ask for."""
    return Selection(
        matches=tuple(args.match), since=args.since, until=args.until, number=args.number
    )


def find_records(
    settings: CorectlSettings, selection: Selection, *, only_new: bool = False
) -> list[CrashRecord]:
    """Read the records that *selection* means, oldest first; say so if there are none."""
    records = read_records(settings.store_dir)
    chosen = choose([r for r in records if r.is_new] if only_new else records, selection)
    if not chosen:
        say(NONE_NEW_FOUND if only_new else NONE_FOUND)
    return chosen
