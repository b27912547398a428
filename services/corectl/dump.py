"""``corectl dump``: a core as the process left it."""

import os
import stat
import sys
from argparse import Namespace
from pathlib import Path

from common.corestore import open_core
from common.cpus import available_cpus
from common.files import write_all
from common.packing.restoring import restore, unpacked
from common.record import CrashRecord
from services.corectl.moments import show_moment
from services.corectl.newfile import new_file
from services.corectl.presence import why_absent
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe, say, show_number, show_signal
from services.corectl.stored import find_records, selection_of


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Unpack the newest core that the arguments mean."""
    records = find_records(settings, selection_of(args))
    if not records:
        return 1
    record = records[-1]
    say(brief(record))
    why = why_absent(record)
    if why:
        complain(safe(why))
        return 1
    if args.output is None and sys.stdout.isatty():
        complain("Refusing to dump core to tty (use shell redirection or specify --output=).")
        return 1
    return _dump(settings.store_dir, record, args.output, force=args.force)


def brief(record: CrashRecord) -> str:
    """Say in a few lines which crash it is."""
    return "\n".join(
        (
            f"           PID: {show_number(record.pid)} ({safe(record.comm or record.process)})",
            f"        Signal: {show_number(record.signal)} ({show_signal(record.signal)})",
            f"     Timestamp: {show_moment(record.crashed_at)}",
            f"            ID: {safe(record.id)}",
        )
    )


def _dump(directory: Path, record: CrashRecord, output: Path | None, *, force: bool) -> int:
    try:
        core = open_core(directory, record)
    except FileNotFoundError:
        complain(f"{safe(record.core)}: it is recorded as stored, but its file is gone")
        return 1
    try:
        if output is None:
            sys.stdout.flush()
            write_core(core, sys.stdout.fileno())
        else:
            with new_file(output, force=force) as target:
                restore(core, target, workers=available_cpus())
    finally:
        os.close(core)
    return os.EX_OK


def write_core(core: int, target: int) -> None:
    """Unpack *core* into whatever the shell has opened, with holes where they can be."""
    if _can_have_holes(target):
        restore(core, target, workers=available_cpus())
    else:
        for block in unpacked(core, workers=available_cpus()):
            write_all(target, block)


def _can_have_holes(target: int) -> bool:
    """Say whether *target* is a new file: in one with content (``>>``) a hole would show it."""
    status = os.fstat(target)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 == os.lseek(target, 0, os.SEEK_CUR)
