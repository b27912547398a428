"""What is wrong, and what to do about it, from what was seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.converting import Converting
from services.corectl.readiness import Readiness
from services.corectl.room import Disk, Tally, Waiting
from services.corectl.show import safe, show_size
from services.corectl.supervised import Program

PROGRAMS = ("coremond", "crashagent", "qkview-collect")
WAITING_GRACE = 300.0
"""Seconds that a core may wait: a large one takes its time."""
STARTING_GRACE = 10.0
"""Seconds that a program may be STARTING."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """A socket of one of the programs."""

    program: str
    address: str
    problem: str = ""
    """Why nobody answered there; empty where somebody did."""
    answer: str = "answers"
    """How that was seen."""
    state: str = ""
    """What supervisord says of the program, where that lets doubt whose the answer is."""
    is_held: bool = False
    """It stays open while the program does not run."""

    @property
    def is_strange(self) -> bool:
        """Say whether it is another program than ours that answers there."""
        return not self.problem and not self.is_held and is_down(self.state)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """All that was seen. What could not be looked at is among the problems."""

    supervisor: str
    """Where supervisord is asked."""
    programs: Sequence[Program] | None = None
    """None where supervisord does not answer."""
    doors: Sequence[Door] = ()
    disks: Sequence[Disk] = ()
    records: Tally | None = None
    waiting: Waiting | None = None
    converting: Sequence[Converting] = ()
    readiness: Readiness | None = None
    """None where nobody serves metrics."""
    problems: Sequence[str] = ()


def faults_of(seen: Seen) -> list[str]:
    """Say each fault in a line: what it is, and what to do."""
    return [
        *dict.fromkeys(seen.problems),
        *(_program_faults(seen.programs, seen.supervisor) if seen.programs is not None else ()),
        *(_door_fault(door, seen) for door in seen.doors if door.problem),
        *(_stranger_fault(door) for door in seen.doors if door.is_strange),
        *(_disk_fault(disk) for disk in seen.disks if disk.is_full),
        *(_waiting_fault(seen.waiting) if seen.waiting else ()),
        *(_readiness_faults(seen.readiness) if seen.readiness else ()),
    ]


def _program_faults(programs: Sequence[Program], supervisor: str) -> Iterator[str]:
    found = {program.name: program for program in programs}
    for name in PROGRAMS:
        program = found.get(name)
        if program is None:
            yield f"{name}: supervisord has no such program; correct its configuration"
        elif not _is_well(program):
            reason = f" ({safe(program.reason)})" if program.reason else ""
            yield f"{name}: {program.state}{reason}; {_restart(name, supervisor)}"


def _restart(name: str, supervisor: str) -> str:
    return f"its log says why; then: supervisorctl -s {supervisor} restart {name}"


def _is_well(program: Program) -> bool:
    return program.state == "RUNNING" or (
        program.state == "STARTING" and program.seconds <= STARTING_GRACE
    )


def _door_fault(door: Door, seen: Seen) -> str:
    fault = f"{door.program}: nobody answers at {safe(door.address)} ({safe(door.problem)})"
    if seen.programs is None:  # nothing can be restarted before supervisord is back
        return fault
    return f"{fault}; {_restart(door.program, seen.supervisor)}"


def _stranger_fault(door: Door) -> str:
    return (
        f"{door.program}: what answers at {safe(door.address)} is not ours; end it, or have ours "
        "listen elsewhere"
    )


def is_down(state: str) -> bool:
    """Say whether a program in this *state* of supervisord's cannot be the one that answers."""
    return state not in {"", "STARTING"}


def _waiting_fault(waiting: Waiting) -> Iterator[str]:
    if waiting.oldest > WAITING_GRACE:
        yield (
            f"{waiting.number} in the crash directory not stored yet, the oldest for "
            f"{waiting.oldest:.0f} s; coremond's log says why"
        )


def _disk_fault(disk: Disk) -> str:
    return (
        f"{safe(disk.path)}: the disk is full, {show_size(disk.available)} of "
        f"{show_size(disk.total)} left; remove what is not needed, or give it a larger one"
    )


def _readiness_faults(readiness: Readiness) -> Iterator[str]:
    for fault in () if is_down(readiness.state) else readiness.faults:
        yield f"not ready: {safe(fault)}"
