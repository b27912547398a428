"""``corectl host doctor``: crash a tiny program, and follow it to its stored core."""

import os
import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from common.corestore import read_records
from common.files import opened_directory
from common.naming import PREFIX, SPOOL, encode
from common.record import CrashRecord
from services.corectl.ack import acknowledge
from services.corectl.crash_on_purpose import Crashed, crash
from services.corectl.host_check import faults_of, is_well
from services.corectl.host_facts import HostFacts, Socket, look, look_at_socket
from services.corectl.host_ways import WayName, judge
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe

_POLL = 0.05
_AGENTS_OWN: tuple[WayName, ...] = ("apport", "kernel-socket", "pipe")
"""The ways on which crashagent has to answer."""


def doctor(settings: CorectlSettings, args: Namespace) -> int:
    """Go step by step, and stop at the first that fails."""
    facts = look(settings)
    ways = judge(facts)
    if not is_well(facts, ways):
        return _failed("core_pattern", *faults_of(facts, ways))
    used = next(one for one in ways if one.works)
    way = used.name
    _passed("core_pattern", f"it leads to us, by the way {way}")
    for note in used.notes:
        print(f"{'':<14}{note}")

    started = time.monotonic()
    crashed = crash()
    if crashed.ended or not crashed.dumped:
        return _failed("kernel", _kernel_fault(crashed, way, settings))
    _passed("kernel", f"it handed over the core of {crashed.comm}, pid {crashed.pid}")

    record = _wait(lambda: _find_record(settings, crashed), until=started + args.timeout)
    if record is None:
        return _failed(*_lost(settings, facts, crashed, way))
    _passed("intake", f"it arrived as {record.arrived}")
    if record.state != "stored":
        why = f"the crash is recorded ({record.id}), and its core is not kept: {record.reason}"
        return _failed("coremond", f"{why}; see that limit in the settings")
    _passed("coremond", f"stored after {time.monotonic() - started:.1f} s: {record.core}")
    _leave(settings, record)
    return os.EX_OK


def _leave(settings: CorectlSettings, record: CrashRecord) -> None:
    """Have the crash that was made on purpose be nobody's concern, and say how it goes."""
    problem = acknowledge(settings, [record])
    known = f"is acknowledged: corectl list --new does not show {record.id}"
    print(f"Crashes arrive. This one {'stays new' if problem else known}.")
    if problem:
        complain(f"{safe(problem)} Later: corectl ack {record.id}")
    files = [str(settings.store_dir / name) for name in (record.core, record.checksum)]
    print("Its core goes as any other does, by a limit or by age; to remove it now:")
    print(safe(f"rm {shlex.join(files)}"))


def _passed(step: str, text: str) -> None:
    print(f"{step:<14}{safe(text)}", flush=True)


def _failed(step: str, *faults: str) -> int:
    print(f"{step:<14}FAILED", flush=True)
    for fault in faults:
        complain(safe(fault))
    return 1


def _wait(find: Callable[[], CrashRecord | None], *, until: float) -> CrashRecord | None:
    while (found := find()) is None and time.monotonic() < until:
        time.sleep(_POLL)
    return found


def _find_record(settings: CorectlSettings, crashed: Crashed) -> CrashRecord | None:
    for record in read_records(settings.store_dir):
        if record.comm == crashed.comm or record.process == crashed.comm:
            return record
    return None


def _kernel_fault(crashed: Crashed, way: WayName, settings: CorectlSettings) -> str:
    """Say why there is no core, as far as that can be guessed."""
    if crashed.ended:
        return f"the program that should crash did not: {crashed.ended}; is SIGSEGV blocked here?"
    said = "the kernel wrote no core of a program that crashed"
    match way:
        case "file":
            return (
                f"{said}: its RLIMIT_CORE is 0 even where it raises it, or {settings.crash_dir} "
                "is full, read-only, or not to be written by it; ulimit -H -c and df tell"
            )
        case "kernel-socket":
            return (
                f"{said}: crashagent did not take the connection at {settings.kernel_socket}, or "
                "turned the crash away; its log says why, corectl status whether it runs"
            )
        case _:
            return (
                f"{said}: the program of core_pattern cannot be started, or "
                "kernel.core_pipe_limit is reached; dmesg tells"
            )


def _lost(
    settings: CorectlSettings, facts: HostFacts, crashed: Crashed, way: WayName
) -> tuple[str, str]:
    """Say how far the core came, and why it is not further."""
    items = look_at_socket(Path(facts.items_socket.path))
    where = _find_file(settings, crashed)
    if where:
        return (
            "coremond",
            f"the core is in {where}, and not stored; {_why_silent('coremond', items)}",
        )
    door = look_at_socket(settings.apport_socket)
    if way == "apport" and not door.problem:
        return "intake", (
            "Apport did not forward it: it forwards only what crashes in a container of its own "
            "mounts and pids; crash something there, and see corectl list"
        )
    if way in _AGENTS_OWN:
        return "intake", f"crashagent never told of it; {_why_silent('crashagent', door)}"
    if way == "systemd":
        return "intake", (
            f"no core came from {settings.systemd_dir}; coredumpctl says whether systemd-coredump "
            f"kept it; {_why_silent('coremond', items)}"
        )
    return "intake", (
        f"the kernel wrote it, but it is not in {settings.crash_dir}, nor was it stored: that is "
        f"not the host's own directory, or {settings.store_dir} is not coremond's; "
        f"{_why_silent('coremond', items)}"
    )


def _find_file(settings: CorectlSettings, crashed: Crashed) -> str:
    """Find the core where it may wait; empty if it is nowhere."""
    begins = (f"{PREFIX}{encode(crashed.comm)}.", f"{PREFIX}{crashed.pid}")
    for folder in (settings.crash_dir, settings.crash_dir / SPOOL):
        try:
            with opened_directory(folder) as opened:
                names = os.listdir(opened)
        except OSError:
            continue
        if any(name.lstrip(".").startswith(begins) for name in names):
            return str(folder)
    return ""


def _why_silent(program: str, door: Socket) -> str:
    if door.problem:
        return (
            f"{program} does not answer at {door.path} ({door.problem}): start the bundle, and "
            "see corectl status"
        )
    return f"{program} runs, and its log says why; or --timeout is too short for this host"
