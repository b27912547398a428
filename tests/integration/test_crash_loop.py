"""A process that crashes again and again, beyond its limit, is turned away and counted."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.workqueue import EventListener, events_endpoint
from tests import crashes, kernel
from tests.bundle import Bundle, wait_until

StartBundle = Callable[..., Bundle]


def holds(bundle: Bundle) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((bundle.run_dir / "holds.json").read_text())
    return found


def held(bundle: Bundle) -> int:
    """Say how many crashes are counted of which there is no core."""
    return sum(record["count"] for record in bundle.records() if record["state"] == "held")


@contextmanager
def by_socket(bundle: Bundle) -> Iterator[None]:
    with kernel.core_pattern(f"@@{bundle.run_dir}/kernel.sock"):
        yield


WAYS = {"kernel-socket": by_socket, "apport": crashes.by_apport}


@pytest.mark.usefixtures("coredump_socket")
@pytest.mark.parametrize("way", WAYS)
def test_a_process_over_its_limit_is_turned_away_and_counted(
    start_bundle: StartBundle, crash_program: Path, way: str
) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="1", COREMON_RETENTION_INTERVAL="1h")
    with WAYS[way](bundle):
        crashes.run_to_death(crash_program, "segv", "1")
        bundle.wait_for_stored()
        wait_until(lambda: holds(bundle), "the hold")
        taken = len([e for e in bundle.events() if e["m"] == "new core file detected"])

        pids = [crashes.run_to_death(crash_program, "segv", "1") for _ in range(20)]

        wait_until(lambda: held(bundle) == 20, "20 crashes to be counted")
    looked_at = len([e for e in bundle.events() if e["m"] == "new core file detected"]) - taken
    [record] = [record for record in bundle.records() if record["state"] == "held"]
    assert record["reason"] == "the limit of 1 cores of this process is reached"
    assert record["pid"] in pids
    assert record["arrived"] == way
    assert looked_at < 20, "some were turned away together"
    assert len(bundle.stored()) == 1
    wait_until(lambda: not bundle.leftovers(), "what is left over to go")


@pytest.mark.usefixtures("coredump_socket")
def test_only_the_process_that_is_held_is_turned_away(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="1", COREMON_RETENTION_INTERVAL="1h")
    with by_socket(bundle):
        crashes.run_to_death(crash_program, "segv", "1")
        bundle.wait_for_stored()
        wait_until(lambda: holds(bundle), "the hold")

        pid = crashes.kill_victim(crashes.start_victim("another"))
        bundle.wait_for_stored(2)

    assert pid in {record["pid"] for record in bundle.stored()}


@pytest.mark.usefixtures("coredump_socket")
def test_a_hold_outlives_both_programs_and_ends_with_its_interval(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="1", COREMON_RETENTION_INTERVAL="6s")
    with by_socket(bundle):
        crashes.run_to_death(crash_program, "segv", "1")
        [first] = bundle.wait_for_stored()
        wait_until(lambda: holds(bundle), "the hold")
        bundle.kill("coremond")
        bundle.kill("crashagent")
        wait_until(lambda: bundle.pid_of("coremond"), "coremond's next start")
        wait_until(lambda: bundle.pid_of("crashagent"), "crashagent's next start")

        wait_until(lambda: holds(bundle) == [], "the end of the hold")
        crashes.run_to_death(crash_program, "segv", "1")

        stored = bundle.wait_for_stored(2)
    assert {record["crashed_at"] for record in stored} > {first["crashed_at"]}


@pytest.mark.usefixtures("coredump_socket")
def test_a_process_that_is_denied_is_counted_and_told_of(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_DENY="secret*, cra?h", COREMON_CORES_MAX_FILES="0")
    told: list[str] = []
    with (
        zmq.Context() as context,
        EventListener(context, events_endpoint(bundle.run_dir)) as events,
        by_socket(bundle),
    ):
        wait_until(lambda: events_arrive(bundle, events), "events to arrive")
        for _ in range(3):
            crashes.run_to_death(crash_program, "segv", "1")
        wait_until(lambda: held(bundle) == 3, "3 crashes to be counted")
        while "hold" not in told and (event := events.next(30)):
            told += [event.kind] if event.process == "crash" else []
    assert told == ["held", "hold"]
    [record] = [record for record in bundle.records() if record["process"] == "crash"]
    assert record["reason"] == "COREMON_DENY names its process"


def events_arrive(bundle: Bundle, events: EventListener) -> bool:
    """Say whether a subscription has reached coremond: the crash of another is told of."""
    core = bundle.crash_dir / "core.other.1.host.1742738615"
    if not core.exists():
        core.write_bytes(b"x")
    return events.next(0.2) is not None


@pytest.mark.usefixtures("real_kernel")
@pytest.mark.parametrize("program", ["coremond", "crashagent", "qkview-collect"])
def test_our_own_programs_leave_no_core(bundle: Bundle, program: str) -> None:
    with crashes.by_file(bundle):
        before = bundle.pid_of(program)
        bundle.kill(program, signal.SIGSEGV)
        wait_until(lambda: bundle.pid_of(program) not in {0, before}, "its next start")

        crashes.kill_victim(crashes.start_victim("another"))
        bundle.wait_for_stored()

    assert [record["comm"] for record in bundle.records()] == ["another"]
