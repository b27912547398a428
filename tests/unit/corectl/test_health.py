from typing import Any

import pytest

from common.disk import FULL_BELOW_BYTES, is_full
from services.corectl.health import PROGRAMS, STARTING_GRACE, Door, Seen, faults_of
from services.corectl.readiness import Readiness
from services.corectl.room import Disk, Tally, tally
from services.corectl.supervised import Program
from tests.store import crash


def seen(**facts: Any) -> Seen:
    """See a bundle that is well, but for *facts*."""
    well = {"supervisor": "unix:///s", "programs": running(), "records": Tally(), "waiting": 0}
    return Seen(**{**well, **facts})


def running(**others: Program) -> list[Program]:
    return [others.get(name, Program(name=name, state="RUNNING", pid=1)) for name in PROGRAMS]


def test_a_bundle_that_is_well_has_no_fault() -> None:
    doors = [Door(program="coremond", address="/run/items.sock")]
    disks = [Disk(path="/var/crash", total=100, available=50)]

    assert faults_of(seen(doors=doors, disks=disks)) == []


def test_a_program_that_gave_up_is_a_fault_with_its_reason_and_the_cure() -> None:
    fatal = Program(name="coremond", state="FATAL", reason="Exited too quickly")

    [fault] = faults_of(seen(programs=running(coremond=fatal)))

    assert fault.startswith("coremond: FATAL (Exited too quickly)")
    assert fault.endswith("supervisorctl -s unix:///s restart coremond")


@pytest.mark.parametrize("state", ["STOPPED", "BACKOFF", "EXITED", "STOPPING", "UNKNOWN"])
def test_any_other_state_is_a_fault(state: str) -> None:
    assert faults_of(seen(programs=running(coremond=Program(name="coremond", state=state))))


def test_a_program_may_be_starting_for_the_first_seconds_only() -> None:
    early = Program(name="crashagent", state="STARTING", seconds=STARTING_GRACE)
    late = Program(name="crashagent", state="STARTING", seconds=STARTING_GRACE + 1)

    assert faults_of(seen(programs=running(crashagent=early))) == []
    assert faults_of(seen(programs=running(crashagent=late)))


def test_a_program_that_supervisord_does_not_know_is_a_fault() -> None:
    [fault] = faults_of(seen(programs=running()[1:]))

    assert fault == "coremond: supervisord has no such program; correct its configuration"


def test_a_socket_that_is_silent_is_a_fault() -> None:
    silent = Door(program="crashagent", address="/run/apport.socket", problem="refused")

    [fault] = faults_of(seen(doors=[silent]))

    assert fault.startswith("crashagent: nobody answers at /run/apport.socket (refused)")
    assert "restart crashagent" in fault


def test_nothing_is_to_be_restarted_while_supervisord_is_away() -> None:
    silent = Door(program="crashagent", address="/run/apport.socket", problem="refused")

    [gone, fault] = faults_of(seen(programs=None, doors=[silent], problems=["gone", "gone"]))

    assert gone == "gone"
    assert "restart" not in fault


def test_a_full_disk_is_a_fault() -> None:
    full = Disk(path="/var/cores", total=2**30, available=1, is_full=True)

    [fault] = faults_of(seen(disks=[full]))

    assert fault.startswith("/var/cores: the disk is full, 1 B of 1.0 GiB left")


def test_a_disk_is_full_by_both_measures() -> None:
    small = 2**20

    assert is_full(10**12, FULL_BELOW_BYTES - 1)
    assert not is_full(10**12, FULL_BELOW_BYTES)
    assert is_full(small, small // 100 - 1)
    assert not is_full(small, small // 100 + 1)


def test_a_hostile_word_in_a_fault_is_escaped() -> None:
    fatal = Program(name="coremond", state="FATAL", reason="\x1b[2J")

    assert all(fault.isprintable() for fault in faults_of(seen(programs=running(coremond=fatal))))


def test_records_are_counted_by_their_state() -> None:
    records = [crash(packed=5), crash(packed=7), crash(state="held"), crash(state="removed")]

    taken = sum(record.occupied for record in records[:2])
    assert tally(records) == Tally(stored=2, held=1, removed=1, bytes=taken)


def test_what_answers_for_a_program_that_is_down_is_a_fault_unless_the_bundle_holds_it() -> None:
    strange = Door(program="qkview-collect", address="0.0.0.0:19891", state="BACKOFF")
    early = Door(program="qkview-collect", address="0.0.0.0:19891", state="STARTING")
    held = Door(program="crashagent", address="/run/apport.socket", state="FATAL", is_held=True)

    [fault] = faults_of(seen(doors=[strange, early, held]))

    assert fault.startswith("qkview-collect: what answers at 0.0.0.0:19891 is not ours")


@pytest.mark.parametrize(("state", "told"), [("", 1), ("STARTING", 1), ("BACKOFF", 0)])
def test_what_another_bundle_is_not_ready_for_is_no_fault_of_ours(state: str, told: int) -> None:
    readiness = Readiness(address="127.0.0.1:1", faults=("coremond: a",), state=state)

    assert len(faults_of(seen(readiness=readiness))) == told
