"""``corectl status``: whether the bundle is well."""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from common.converting import Converting, read_converting
from common.corestore import read_records
from common.errors import CollectorError
from services.corectl.attempt import Attempt
from services.corectl.doors import doors_of
from services.corectl.health import Door, Seen, faults_of, is_down
from services.corectl.moments import show_span
from services.corectl.readiness import Readiness, ask_readiness
from services.corectl.room import Disk, look_at_disk, look_at_waiting, tally
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, json_of, safe, show_size
from services.corectl.supervised import Program, ask_supervisor
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
    doors = [(door, Attempt(ask)) for door, ask in doors_of(settings, TIMEOUT)]
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
    programs = _answer(supervisor, until, f"supervisord at {address}", start, tell)
    readiness = _answer(ready, until, f"metrics at {metrics}", see_log, tell) if ready else None
    return Seen(
        supervisor=address,
        programs=programs,
        doors=[
            replace(_seen(door, attempt, until), state=_state(programs, door.program))
            for door, attempt in doors
        ],
        disks=[disk for disk in found if disk is not None],
        records=None if known is None else tally(known),
        waiting=_answer(waiting, until, f"{settings.crash_dir}", create, tell),
        converting=_answer(converting, until, f"{settings.run_dir}", see_run, tell) or (),
        readiness=readiness and replace(readiness, state=_state(programs, "qkview-collect")),
        problems=problems,
    )


def _seen(door: Door, attempt: Attempt[str], until: float) -> Door:
    problem = _problem(attempt, until)
    return replace(door, problem=problem, answer="" if problem else attempt.answer(until))


def _state(programs: Sequence[Program] | None, name: str) -> str:
    """Give the state of a program; empty where it is well, or supervisord cannot be asked."""
    if programs is None:
        return ""
    found = next((program for program in programs if program.name == name), None)
    if found is None:
        return "not there"
    is_new = found.state == "STARTING" and not found.has_ended
    return "" if is_new or found.state == "RUNNING" else found.state


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
    rows = [[d.program, safe(d.address), safe(d.problem) or _found(d)] for d in seen.doors]
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
        print(f"Metrics: http://{safe(seen.readiness.address)}/metrics, {_ready(seen.readiness)}")
    for one in seen.converting:
        print(f"Converting: {line_of(one)}")


def _found(door: Door) -> str:
    if not door.state:
        return door.answer
    if door.is_held:
        return f"{door.answer}, and crashes wait there: {door.program} is {door.state}"
    return f"{door.answer}, but {_whose(door.program, door.state)}"


def _ready(readiness: Readiness) -> str:
    if readiness.state:
        return f"but {_whose('qkview-collect', readiness.state)}"
    return "not ready" if readiness.faults else "ready"


def _whose(program: str, state: str) -> str:
    doubt = "is not ours" if is_down(state) else "may not be ours"
    return f"{doubt}: {program} is {safe(state)}"


def line_of(one: Converting) -> str:
    """Show how far a conversion is."""
    done = show_size(one.done) if one.percent is None else f"{one.percent} %"
    size = f" of {show_size(one.size)}" if one.size else ""
    span = show_span(one.at - one.since)
    return f"{safe(os.path.basename(one.source))}: {done}{size}, for {span}"
