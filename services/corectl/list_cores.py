"""``corectl list``: one line for each crash."""

import os
from argparse import Namespace

from common.record import CrashRecord
from services.corectl.moments import show_moment
from services.corectl.presence import files_in, presence
from services.corectl.settings import CorectlSettings
from services.corectl.show import safe, show_number, show_signal, show_size, tame_json
from services.corectl.stored import find_records, selection_of
from services.corectl.table import Column, print_table

COLUMNS = (
    Column("TIME"),
    Column("PID", is_number=True),
    Column("UID", is_number=True),
    Column("GID", is_number=True),
    Column("SIG"),
    Column("COREFILE"),
    Column("EXE"),
    Column("POD"),
    Column("CONTAINER"),
    Column("SIZE", is_number=True),
    Column("NEW"),
    Column("ID"),
)


def run(settings: CorectlSettings, args: Namespace) -> int:
    """List the records that the arguments mean."""
    records = find_records(settings, selection_of(args), only_new=args.new)
    if args.reverse:
        records.reverse()
    if args.json:
        print(json_array(records))
    elif records:
        files = files_in(settings.store_dir)
        rows = [row_of(record, presence(record, files)) for record in records]
        print_table(COLUMNS, rows, header=not args.quiet)
    return os.EX_OK if records else 1


def row_of(record: CrashRecord, present: str) -> list[str]:
    """Give the cells of one record."""
    return [
        show_moment(record.crashed_at),
        show_number(record.pid),
        show_number(record.uid),
        show_number(record.gid),
        show_signal(record.signal),
        f"{present} x{record.count}" if record.count > 1 else present,
        safe(record.exe or record.comm or record.process or "-"),
        _pod(record),
        safe(record.container or "-"),
        show_size(record.packed) if record.state == "stored" else "-",
        "new" if record.is_new else "-",
        safe(record.id),
    ]


def _pod(record: CrashRecord) -> str:
    name = f"{record.namespace}/{record.pod}" if record.namespace else record.pod
    doubt = " (guess)" if record.identity.by == "guess" else ""
    return safe(name or "-") + doubt


def json_array(records: list[CrashRecord]) -> str:
    """Write *records* as one JSON document."""
    texts = (tame_json(record.to_json().decode()).strip() for record in records)
    return "[" + ",\n".join(texts) + "]"
