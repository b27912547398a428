import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.item import CrashItem, to_json
from services.coremond.apport_reports import ApportReports, facts_of, is_apports
from tests.unit.factories import CRASHED_AT, hostile_texts, without_deadline

STATUS = """Name:\tob\\nser\\\\ver
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4711
Pid:\t4711
PPid:\t1
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103
NSpid:\t4711\t12\t7"""
REPORT = {
    "ProblemType": "Crash",
    "Date": "Sun Mar 23 14:03:35 2025",
    "ExecutablePath": "/usr/bin/observer",
    "ProcCmdline": "observer --all",
    "ProcStatus": STATUS,
    "Signal": "11",
    "Uname": "Linux 6.8.0-45-generic x86_64",
    "ProcMaps": "00400000-00401000 r-xp 00000000 08:01 42 /usr/bin/observer",
}
LATER = 2**62


def test_a_report_tells_who_crashed() -> None:
    crash = facts_of(REPORT, LATER)

    assert crash.arrived == "apport-report"
    assert (crash.pid, crash.host_pid, crash.uid, crash.gid, crash.signal) == (
        *(7, 4711),
        *(1000, 100, 11),
    )
    assert (crash.comm, crash.exe, crash.cmdline) == (
        "ob\nser\\ver",
        "/usr/bin/observer",
        "observer --all",
    )
    assert crash.details == {"Uname": "Linux 6.8.0-45-generic x86_64"}


def test_the_date_is_local_time() -> None:
    moment = time.mktime((2025, 3, 23, 14, 3, 35, 0, 0, -1))

    assert facts_of(REPORT, LATER).crashed_at == int(moment) * 10**9


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Sun Mar 23 14:03:35 2999", "Thu Jan  1 00:00:00 0001", "\0" * 99]
)
def test_a_date_that_cannot_be_is_the_reports_own(date: str) -> None:
    assert facts_of({**REPORT, "Date": date}, CRASHED_AT).crashed_at == CRASHED_AT


@pytest.mark.parametrize(
    "number", ["", "-1", "x", "٣", "9" * 30, "0x7", " ", "1\x002", "4294967296"]
)
def test_what_is_no_number_tells_nothing(number: str) -> None:
    status = f"Pid:\t{number}\nUid:\t{number}\nGid:\t{number}\nNSpid:\t{number}"

    crash = facts_of({"ProcStatus": status, "Signal": number}, LATER)

    assert (crash.pid, crash.host_pid, crash.uid, crash.gid, crash.signal) == (None,) * 5


def test_no_value_is_longer_than_a_record_should_have_it() -> None:
    crash = facts_of(dict.fromkeys([*REPORT, "Package", "ProcCwd"], "x" * 2**18), LATER)

    assert len(to_json(crash)) < 20_000


@without_deadline
@given(
    st.dictionaries(
        st.sampled_from([*REPORT, "Package", "NoSuchKey"]),
        hostile_texts.map(lambda text: text.encode(errors="replace").decode()),
    )
)
def test_no_report_makes_a_crash_that_cannot_travel(report: dict[str, str]) -> None:
    crash = facts_of(report, CRASHED_AT)

    item = CrashItem.from_json(b'{"path":"/x",' + to_json(crash)[1:])

    assert item.arrived == "apport-report"


@pytest.mark.parametrize(
    ("name", "is_source", "is_theirs"),
    [
        ("_usr_bin_observer.1000.crash", True, True),
        ("_usr_bin_ob.server.1000.crash", True, True),
        ("_\n.0.crash", True, True),
        ("_usr_bin_observer.1000.upload", False, True),
        ("_usr_bin_observer.1000.uploaded", False, True),
        ("_usr_bin_observer.1000.hanging", False, True),
        ("_usr_bin_observer.1000.crash.part", False, False),
        ("_usr_bin_observer.crash", False, False),
        ("_usr_bin_observer.x.crash", False, False),
        ("linux-image-6.8.0.0.crash", False, False),
        ("core.observer.9.host.crash", False, False),
        (".crash", False, False),
        (".lock", False, False),
        ("", False, False),
    ],
)
def test_reports_are_told_by_their_names(name: str, is_source: bool, is_theirs: bool) -> None:
    assert ApportReports().is_source(name) is is_source
    assert is_apports(name) is is_theirs
