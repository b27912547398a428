import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.item import MESSAGE_LIMIT, CrashItem, to_json
from services.crashagent.systemd_message import (
    FIELD_SIZE,
    MOST_BYTES,
    MOST_FIELDS,
    MOST_PROBLEMS,
    Fields,
    SystemdCrash,
)
from tests.unit.factories import without_deadline

UNLIMITED = 2**64 - 1
CONTAINER = "0123456789abcdef" * 4
ORDINARY = {
    "PID": b"4711",
    "UID": b"1000",
    "GID": b"100",
    "SIGNAL": b"11",
    "TIMESTAMP": b"1742738615000000",
    "RLIMIT": b"18446744073709551615",
    "HOSTNAME": b"node-1",
    "COMM": b"observer",
    "EXE": b"/usr/bin/observer",
    "CMDLINE": b"observer --all",
    "CGROUP": f"/kubepods/pod1/{CONTAINER}".encode(),
    "PROC_STATUS": b"Name:\tobserver\nTgid:\t4711\nNSpid:\t4711\t9\nThreads:\t1\n",
}
NUMBERS = ["PID", "UID", "GID", "SIGNAL", "RLIMIT", "DUMPABLE", "TID"]
NAMES = [*ORDINARY, "DUMPABLE", "TID", "FORWARDED", "UNIT", "ENVIRON"]


def said(*datagrams: bytes) -> Fields:
    fields = Fields()
    for datagram in datagrams:
        fields.add(datagram)
    return fields


def told(**values: bytes) -> Fields:
    """Say what an ordinary crash is, and *values* that are its own."""
    fields = {**ORDINARY, **values}
    return said(*(b"COREDUMP_%b=%b" % (name.encode(), value) for name, value in fields.items()))


def test_what_a_helper_of_today_says_is_understood() -> None:
    fields = told()

    assert fields.crash() == SystemdCrash(
        host_pid=4711,
        pid=9,
        uid=1000,
        gid=100,
        signal=11,
        comm="observer",
        exe="/usr/bin/observer",
        cmdline="observer --all",
        hostname="node-1",
        cgroup=f"/kubepods/pod1/{CONTAINER}",
        container_id=CONTAINER,
        details={"COREDUMP_TIMESTAMP": "1742738615000000"},
    )
    assert fields.problems == []


def test_what_later_helpers_add_is_understood() -> None:
    crash = told(DUMPABLE=b"2", TID=b"4712", PROC_STATUS=b"NSpid:\t4711\n").crash()

    assert (crash.dumpable, crash.pid, crash.tid) == (2, 4711, 4712)


def test_a_thread_is_not_numbered_as_its_process_knows_it_from_another_namespace() -> None:
    assert told(TID=b"4712").crash().tid is None


def test_a_host_that_forwards_says_the_pid_that_the_container_knows() -> None:
    fields = told(PID=b"9", FORWARDED=b"1", PROC_STATUS=b"")

    assert (fields.crash().pid, fields.crash().host_pid) == (9, 9)
    assert told(PROC_STATUS=b"").crash().pid is None


def test_the_journals_own_fields_are_passed_over() -> None:
    fields = said(b"MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1", b"PRIORITY=2", b"PID=7")

    assert fields.crash() == SystemdCrash()
    assert fields.problems == []


def test_nothing_of_the_environment_or_the_mappings_is_kept() -> None:
    crash = told(ENVIRON=b"SECRET=1", PROC_MAPS=b"7f00-", PROC_AUXV=b"\0\1\2").crash()

    assert crash == told().crash()


def test_no_fields_are_no_facts() -> None:
    assert said().crash().facts() == {}


def test_a_value_may_hold_the_equals_sign_and_lines() -> None:
    assert told(CMDLINE=b"a=b\nCOREDUMP_UID=0").crash().cmdline == "a=b\nCOREDUMP_UID=0"


def test_bytes_that_are_no_utf8_are_shown() -> None:
    assert told(COMM=b"a\xff").crash().comm == "a\\xff"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PID", b"0"),
        ("PID", b"-1"),
        ("PID", b"2147483648"),
        ("PID", b"4711 "),
        ("PID", b"0x10"),
        ("PID", b"4_711"),
        ("PID", "\u0667".encode()),
        ("UID", b"4294967295"),
        ("UID", b"root"),
        ("GID", b"1" * 5000),
        ("SIGNAL", b"0"),
        ("SIGNAL", b"256"),
        ("SIGNAL", b"SIGSEGV"),
        ("RLIMIT", b"18446744073709551616"),
        ("DUMPABLE", b"3"),
        ("TID", b"0"),
    ],
)
def test_a_number_that_is_none_loses_its_fact_alone(name: str, value: bytes) -> None:
    fields = told(**{name: value})

    facts = fields.crash().facts()

    lost = "host_pid" if name == "PID" else name.lower()
    assert lost not in facts
    assert facts == {k: v for k, v in told().crash().facts().items() if k != lost}
    assert len(fields.problems) == 1
    assert fields.problems[0].startswith(name)


@pytest.mark.parametrize(
    "status",
    [b"NSpid:\t", b"NSpid:\tx\n", b"NSpid:\t9999999999\n", b"NSpid:\t0\n", b" NSpid:\t9\n"],
)
def test_a_status_that_cannot_be_read_tells_no_pid(status: bytes) -> None:
    assert told(PROC_STATUS=status).crash().pid is None


def test_of_two_fields_of_one_name_the_first_counts() -> None:
    fields = said(b"COREDUMP_UID=1000", b"COREDUMP_UID=0")

    assert fields.crash().uid == 1000
    assert fields.problems == ["a second UID"]


def test_a_field_with_a_nul_is_none() -> None:
    fields = said(b"COREDUMP_COMM=a\0b", b"COREDUMP_UID=1")

    assert fields.crash().facts() == {"uid": 1}
    assert fields.problems == ["a NUL in COMM"]


def test_a_datagram_without_a_name_is_passed_over() -> None:
    fields = said(b"COREDUMP_COMM", b"\xff\xfe", b"COREDUMP_UID=1")

    assert fields.crash().facts() == {"uid": 1}
    assert len(fields.problems) == 2


def test_no_more_fields_are_kept_than_make_sense() -> None:
    fields = said(*[b"COREDUMP_X=1"] * MOST_FIELDS, b"COREDUMP_UID=1")

    assert fields.crash().facts() == {}
    assert fields.problems == [f"more than {MOST_FIELDS} fields"]


def test_no_more_bytes_are_kept_than_make_sense() -> None:
    names = [*ORDINARY, "DUMPABLE", "TID", "UNIT", "USER_UNIT", "SLICE", "SESSION", "CWD", "ROOT"]
    fields = said(*(b"COREDUMP_%b=%b" % (n.encode(), b"1" * FIELD_SIZE) for n in names))

    assert len(names) * FIELD_SIZE > MOST_BYTES
    assert f"more than {MOST_BYTES} bytes of fields" in fields.problems


def test_only_a_few_problems_are_told() -> None:
    fields = said(*(b"%d" % number for number in range(MOST_FIELDS)))

    assert len(fields.problems) == MOST_PROBLEMS


def test_an_unlimited_rlimit_is_none() -> None:
    assert told(RLIMIT=b"%d" % UNLIMITED).crash().rlimit is None
    assert told(RLIMIT=b"0").crash().rlimit == 0


@without_deadline
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=40)) | st.binary()))
def test_any_fields_make_an_item_that_travels(sent: list[tuple[str, bytes] | bytes]) -> None:
    fields = said(
        *(
            datagram
            if isinstance(datagram, bytes)
            else b"COREDUMP_%b=%b" % (datagram[0].encode(), datagram[1])
            for datagram in sent
        )
    )

    item = CrashItem(path="/core", arrived="systemd", **fields.crash().facts())

    assert CrashItem.from_json(to_json(item)) == item


@given(st.sampled_from(NUMBERS), st.integers())
def test_a_number_is_read_or_left_out(name: str, number: int) -> None:
    crash = said(b"COREDUMP_%b=%d" % (name.encode(), number)).crash()

    fact = "host_pid" if name == "PID" else name.lower()
    assert getattr(crash, fact) in {None, number}


def test_the_longest_fields_there_can_be_make_an_item_that_travels() -> None:
    worst = b"\x01\xff" * (FIELD_SIZE // 2)
    fields = said(*(b"COREDUMP_%b=%b" % (name.encode(), worst) for name in sorted(NAMES)))

    item = CrashItem(path="/core", arrived="systemd", **fields.crash().facts())

    assert len(to_json(item)) < MESSAGE_LIMIT
