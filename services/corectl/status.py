"""``corectl status``: whether the bundle is well."""

import os
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from common.converting import Converting, read_converting
from common.corestore import read_records
from common.errors import CollectorError
from services.corectl.attempt import Attempt
from services.corectl.health import Door, Seen, faults_of
from services.corectl.knock import knock_tcp, knock_unix
from services.corectl.moments import show_span
from services.corectl.readiness import ask_readiness
from services.corectl.room import Disk, look_at_disk, look_at_waiting, tally
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, json_of, safe, show_size
from services.corectl.supervised import ask_supervisor
from services.corectl.table import Column, print_table

TIMEOUT = 2.0
"""Seconds that everything together may take to answer."""
UNREACHABLE = 3
"""The exit status where supervisord does not answer."""

T = TypeVar("T")


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Look at everything at once, show it, and say each fault in a line."""
    seen = look(settings, until=time.monotonic() + TIMEOUT)
    faults = faults_of(seen)
    if args.json:
        print(json_of({"ok": not faults, "faults": faults, "seen": seen}))
    else:
        show(seen)
    for fault in faults:
        complain(fault)
    if seen.programs is None:
        return UNREACHABLE
    return 1 if faults else os.EX_OK


def look(settings: CorectlSettings, *, until: float) -> Seen:
    """See all that can be seen until *until* (monotonic)."""
    supervisor = Attempt(partial(ask_supervisor, settings.supervisor_socket))
    doors = [(program, at, Attempt(ask)) for program, at, ask in _doors(settings)]
    places = {"COREMON_CRASH_DIR": settings.crash_dir, "COREMON_CORES_DIR": settings.cores_dir}
    disks = [(name, path, Attempt(partial(look_at_disk, path))) for name, path in places.items()]
    records = Attempt(partial(read_records, settings.store_dir))
    metrics = settings.metrics_address or ""
    if metrics.endswith(":0"):  # only qkview-collect's log says where it is
        metrics = ""
    ready = Attempt(partial(ask_readiness, metrics, TIMEOUT)) if metrics else None

    problems: list[str] = []
    tell = problems.append
    found: list[Disk | None] = [
        _answer(attempt, until, f"{path}", f"create it, or set {name}", tell)
        for name, path, attempt in disks
    ]
    address = f"unix://{settings.supervisor_socket}"
    start = "start the bundle, or set COREMON_RUN_DIR as it has it"
    create, see = "create it, or set COREMON_CRASH_DIR", "see to that directory"
    see_run = "see to that directory, or set COREMON_RUN_DIR"
    see_log = "qkview-collect's log says why, or set COREMON_METRICS_ADDRESS as it has it"
    known = _answer(records, until, f"{settings.store_dir}", see, tell)
    converting = Attempt(lambda: read_converting(settings.run_dir, time.time()))
    waiting = Attempt(lambda: look_at_waiting(settings.crash_dir, known or (), time.time()))
    return Seen(
        supervisor=address,
        programs=_answer(supervisor, until, f"supervisord at {address}", start, tell),
        doors=[
            Door(program=program, address=at, problem=_problem(attempt, until))
            for program, at, attempt in doors
        ],
        disks=[disk for disk in found if disk is not None],
        records=None if known is None else tally(known),
        waiting=_answer(waiting, until, f"{settings.crash_dir}", create, tell),
        converting=_answer(converting, until, f"{settings.run_dir}", see_run, tell) or (),
        readiness=_answer(ready, until, f"metrics at {metrics}", see_log, tell) if ready else None,
        problems=problems,
    )


def _doors(settings: CorectlSettings) -> list[tuple[str, str, Callable[[], None]]]:
    unix: list[tuple[str, Path]] = [
        ("coremond", settings.run_dir / "items.sock"),
        ("coremond", settings.run_dir / "events.sock"),
        ("crashagent", settings.apport_socket),
    ]
    address = settings.qkview_address
    doors: list[tuple[str, str, Callable[[], None]]] = [
        (program, str(path), partial(knock_unix, path, TIMEOUT)) for program, path in unix
    ]
    if not address.endswith(":0"):  # with port 0, only qkview-collect's log says where it is
        doors.append(("qkview-collect", address, partial(knock_tcp, address, TIMEOUT)))
    return doors


def _problem(attempt: Attempt[T], until: float) -> str:
    try:
        attempt.answer(until)
    except (OSError, CollectorError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _answer(
    attempt: Attempt[T], until: float, what: str, advice: str, tell: Callable[[str], None]
) -> T | None:
    problem = _problem(attempt, until)
    if problem:
        tell(f"{safe(what)}: {safe(problem)}; {advice}")
        return None
    return attempt.answer(until)


def show(seen: Seen) -> None:
    """Print what was seen, well or not."""
    programs = seen.programs or ()
    rows = [
        [safe(p.name), safe(p.state), str(p.pid or "-"), show_span(p.seconds)] for p in programs
    ]
    if rows:
        print_table([Column("PROGRAM"), Column("STATE"), Column("PID"), Column("SINCE")], rows)
        print()
    rows = [[d.program, safe(d.address), safe(d.problem) or "answers"] for d in seen.doors]
    print_table([Column("PROGRAM"), Column("SOCKET"), Column("")], rows)
    print()
    rows = [[safe(d.path), show_size(d.available), show_size(d.total)] for d in seen.disks]
    print_table([Column("DISK OF"), Column("FREE", is_number=True), Column("SIZE", True)], rows)
    print()
    if seen.records is not None:
        counts = seen.records
        size = show_size(counts.bytes)
        print(
            f"Cores: {counts.stored} stored ({size}), {counts.held} held, {counts.removed} removed"
        )
    if seen.waiting is not None:
        print(f"Waiting in the crash directory: {seen.waiting.number}")
    if seen.readiness is not None:
        ready = "not ready" if seen.readiness.faults else "ready"
        print(f"Metrics: http://{safe(seen.readiness.address)}/metrics, {ready}")
    for one in seen.converting:
        print(f"Converting: {line_of(one)}")


def line_of(one: Converting) -> str:
    """Show how far a conversion is."""
    done = show_size(one.done) if one.percent is None else f"{one.percent} %"
    size = f" of {show_size(one.size)}" if one.size else ""
    span = show_span(one.at - one.since)
    return f"{safe(os.path.basename(one.source))}: {done}{size}, for {span}"
