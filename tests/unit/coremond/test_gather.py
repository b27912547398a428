import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from common.elf import CoreNotes
from common.item import Crash
from common.naming import decode_name
from common.record import Source
from services.coremond.file_pattern import FilePattern, readings_of
from services.coremond.gather import find_missing, gather
from tests.unit.factories import CRASHED_AT, file_texts, item, without_deadline

NAMED = readings_of("core.named.3.host.1742738615", FilePattern())
NOTES = CoreNotes(
    pid=2, tid=22, uid=222, gid=2222, signal=6, comm="noted", cmdline="noted --all", expected_size=5
)
LATER = CRASHED_AT * 2


@pytest.fixture
def status(tmp_path: Path) -> os.stat_result:
    path = tmp_path / "core"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 999))
    return path.stat()


def test_what_intake_saw_goes_before_all(status: os.stat_result) -> None:
    seen = item(pid=1, tid=11, uid=111, gid=1111, signal=11, comm="seen", cmdline="seen --all")

    crash = gather(seen, NAMED, NOTES, status, LATER)

    assert (crash.pid, crash.tid, crash.uid, crash.gid, crash.signal) == (1, 11, 111, 1111, 11)
    assert (crash.comm, crash.cmdline, crash.hostname) == ("seen", "seen --all", "f5-observer-0")
    assert (crash.crashed_at, crash.arrived) == (CRASHED_AT, "apport")


def test_the_notes_go_before_the_name(status: os.stat_result) -> None:
    crash = gather(Crash(), NAMED, NOTES, status, LATER)

    assert (crash.pid, crash.tid, crash.uid, crash.gid, crash.signal) == (2, 22, 222, 2222, 6)
    assert (crash.comm, crash.cmdline, crash.hostname) == ("noted", "noted --all", "host")
    assert (crash.crashed_at, crash.arrived) == (1_742_738_615 * 10**9, "file")


def test_the_name_goes_before_nothing(status: os.stat_result) -> None:
    crash = gather(Crash(), NAMED, None, status, LATER)

    assert (crash.pid, crash.comm, crash.hostname) == (3, "named", "host")


def test_root_and_the_first_process_are_something_too(status: os.stat_result) -> None:
    crash = gather(item(uid=0, gid=0, pid=0), NAMED, NOTES, status, LATER)

    assert (crash.uid, crash.gid, crash.pid) == (0, 0, 0)


def test_without_a_time_it_is_the_files(status: os.stat_result) -> None:
    assert gather(Crash(), [], None, status, LATER) == Crash(crashed_at=999)


def test_nothing_crashed_later_than_now(status: os.stat_result) -> None:
    assert gather(item(crashed_at=LATER), NAMED, None, status, CRASHED_AT).crashed_at == CRASHED_AT


def test_a_core_shorter_than_its_headers_say_is_truncated(status: os.stat_result) -> None:
    crash = gather(Crash(), NAMED, NOTES, status, LATER)

    short = find_missing(crash, replace(NOTES, expected_size=7), 5)
    whole = find_missing(crash, replace(NOTES, expected_size=5), 5)

    assert (short.truncated, short.truncated_why) == (True, "2 bytes of it are missing")
    assert (whole.truncated, whole.truncated_why) == (False, "")


def test_why_it_is_truncated_is_what_intake_said(status: os.stat_result) -> None:
    seen = item(truncated=True, truncated_why="it was killed")

    crash = gather(seen, NAMED, replace(NOTES, expected_size=99), status, LATER)

    assert crash.truncated_why == "it was killed"


def test_the_notes_choose_between_the_readings_of_a_name(status: os.stat_result) -> None:
    readings = readings_of("core.a.7.b.8.h.1742738615", FilePattern())

    crash = gather(Crash(), readings, replace(NOTES, pid=7, comm="a"), status, LATER)

    assert crash.hostname == "b.8.h"


@without_deadline
@given(name=file_texts)
def test_a_source_of_any_name_is_known_again_by_it(name: str) -> None:
    status = os.stat("/")

    source = Source.of(name[:255], status)

    assert source.name.isascii()
    assert decode_name(source.name) == name[:255]
