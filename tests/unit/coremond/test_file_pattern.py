import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.item import Crash
from common.naming import SourceName, read_source_name
from services.coremond.file_pattern import (
    FilePattern,
    choose_reading,
    is_source_name,
    readings_of,
)
from tests.unit.factories import CRASHED_AT, file_texts, without_deadline

T = 1_742_738_615
SECONDS = T * 10**9

comms = st.text("ab7.-_ é", min_size=1, max_size=15)
hosts = st.text("ab7.-", min_size=1, max_size=20)
pids = st.integers(1, 2**22)


def expanded(pattern: str, **values: object) -> str:
    """Write a name as the kernel does."""
    return "".join(
        piece if not index else str(values[piece[0]]) + piece[1:]
        for index, piece in enumerate(pattern.split("%"))
    )


@without_deadline
@given(order=st.permutations("epht"), comm=comms, pid=pids, host=hosts)
def test_whatever_the_order_the_notes_find_the_facts(
    order: list[str], comm: str, pid: int, host: str
) -> None:
    pattern = "core." + ".".join(f"%{letter}" for letter in order)
    name = expanded(pattern, e=comm, p=pid, h=host, t=T)

    chosen = choose_reading(readings_of(name, FilePattern(pattern)), pid, comm)

    assert (chosen.pid, chosen.comm, chosen.crashed_at) == (pid, comm, SECONDS)
    assert len(chosen.hostname) == len(host)


@without_deadline
@given(order=st.permutations("pPiugsdcC"), numbers=st.lists(st.integers(0, 2), min_size=9))
def test_numbers_with_text_between_them_are_read_exactly(
    order: list[str], numbers: list[int]
) -> None:
    pattern = "-x-".join(f"%{letter}" for letter in order)
    values = dict(zip(order, numbers, strict=False))

    [crash] = readings_of(expanded(pattern, **values), FilePattern(pattern))

    assert crash == Crash(
        pid=values["p"],
        host_pid=values["P"],
        tid=values["i"],
        uid=values["u"],
        gid=values["g"],
        signal=values["s"],
        dumpable=values["d"],
        rlimit=values["c"],
    )


@pytest.mark.parametrize(
    ("pattern", "name", "crash"),
    [
        ("%p-%e.core", "7-observer.core", Crash(pid=7, comm="observer")),
        ("%E.%P", "!usr!bin!observer.7", Crash(exe="/usr/bin/observer", host_pid=7)),
        ("%f-%I-%p", "observer-8-7", Crash(comm="observer", pid=7)),
        ("%f_%e_%p", "python3_main_7", Crash(comm="main", pid=7)),
        ("100%%-%p", "100%-7", Crash(pid=7)),
        ("%p.%c", "7.18446744073709551615", Crash(pid=7)),
        ("%p.%c", "7.0", Crash(pid=7, rlimit=0)),
        ("%t%p", f"{T}77", Crash(crashed_at=SECONDS, pid=77)),
        ("core", "core.1234", Crash(pid=1234)),
        ("core.%t", f"core.{T}.1234", Crash(pid=1234, crashed_at=SECONDS)),
        ("dump-%e", "dump-observer.1234", Crash(pid=1234, comm="observer")),
        ("core.%u.%e", "core.0.!.9", Crash(pid=9, uid=0, comm="!")),
    ],
)
def test_patterns_read_as_the_kernel_writes_them(pattern: str, name: str, crash: Crash) -> None:
    assert readings_of(name, FilePattern.parse(pattern))[0] == crash


def test_a_number_behind_a_name_is_no_pid_where_the_notes_say_so() -> None:
    readings = readings_of("core.python3.11", FilePattern("core.%e"))

    assert choose_reading(readings, 7, "python3.11").pid is None
    assert choose_reading(readings, 11, "python3") == Crash(pid=11, comm="python3")
    assert choose_reading(readings, None, "") == Crash(pid=11, comm="python3")


def test_the_host_pid_decides_where_the_pattern_has_it() -> None:
    readings = readings_of("a.7.8.h", FilePattern("%e.%P.%h"))

    assert choose_reading(readings, 7, "other") == Crash(comm="a", host_pid=7, hostname="8.h")
    assert choose_reading(readings, 8, "other") == Crash(comm="a.7", host_pid=8, hostname="h")


@pytest.mark.parametrize(
    ("name", "crash"),
    [
        ("core.1234", Crash(pid=1234)),
        (f"core.observer.9.host.{T}", Crash(comm="observer", pid=9, hostname="host")),
        (f"core.observer.9.host.{CRASHED_AT}", Crash(comm="observer", pid=9, hostname="host")),
    ],
)
@pytest.mark.parametrize("pattern", ["core.%e.%p.%h.%t", "%p.core", "core.%s.%p"])
def test_what_is_not_by_the_pattern_is_read_as_what_it_may_be(
    pattern: str, name: str, crash: Crash
) -> None:
    [reading] = readings_of(name, FilePattern(pattern))

    assert (reading.pid, reading.comm, reading.hostname) == (
        crash.pid,
        crash.comm,
        crash.hostname,
    )


@pytest.mark.parametrize("name", ["core", f"core.{T}", "core.a", "core.99999999", "core.x.y.z"])
def test_a_name_that_says_nothing_has_no_reading(name: str) -> None:
    assert readings_of(name, FilePattern()) == []
    assert is_source_name(name, FilePattern())


@without_deadline
@given(process=comms, pid=pids, host=hosts, number=st.integers(0, 10**6))
def test_the_default_pattern_reads_names_as_crashagent_means_them(
    process: str, pid: int, host: str, number: int
) -> None:
    name = str(SourceName(process=process, pid=pid, host=host, crashed_at=CRASHED_AT + number))

    [reading] = readings_of(name, FilePattern())

    [meant] = read_source_name(name)
    assert (reading.comm, reading.pid, reading.hostname, reading.crashed_at) == (
        meant.process,
        meant.pid,
        meant.host,
        meant.crashed_at,
    )


@without_deadline
@given(before=st.text("a.7", max_size=15), after=st.text("a.7", max_size=15))
def test_the_default_pattern_reads_a_dotted_name_as_it_always_was(before: str, after: str) -> None:
    whole = f"core.{before}.7.{after}.{T}"

    ours = [(r.comm, r.pid, r.hostname) for r in readings_of(whole, FilePattern())]

    assert ours == [(r.process, r.pid, r.host) for r in read_source_name(whole)]


@pytest.mark.parametrize(
    ("pattern", "name", "is_source"),
    [
        ("%p-%e.core", "7-observer.core", True),
        ("%p-%e.core", "x-observer.core", False),
        ("%p-%e.core", "7-observer.core.gz", False),
        ("%p-%e.core", "core.anything", True),
        ("%e.%p", ".spool.1", False),
        ("dump", "dump", True),
        ("dump", "dump.12", True),
        ("dump", "dump.x", False),
        ("dump", "dumper", False),
    ],
)
def test_a_file_is_a_source_by_its_name_or_by_the_pattern(
    pattern: str, name: str, is_source: bool
) -> None:
    assert is_source_name(name, FilePattern.parse(pattern)) is is_source


@without_deadline
@given(name=file_texts, pattern=st.sampled_from(["core.%e.%p.%h.%t", "%e%h%f%E%p", "%h.%e"]))
def test_no_name_does_more_than_be_read(name: str, pattern: str) -> None:
    readings = readings_of(name, FilePattern(pattern))

    assert len(readings) <= 256
    assert all(reading.pid is None or reading.pid < 2**32 for reading in readings)


@pytest.mark.parametrize("name", ["1" * 255, "." * 255, "1." * 127 + "x", "a" * 254 + "1"])
@pytest.mark.parametrize("pattern", ["%e%h%f%E%p", "%p%P%i%I%u%g%s%t.", "%e.%h.%f.%E.%p.x"])
def test_the_longest_names_take_no_time_to_speak_of(pattern: str, name: str) -> None:
    started = time.process_time()

    readings_of(name, FilePattern(pattern))

    assert time.process_time() - started < 10  # where every way was tried, it would be years


@without_deadline
@given(raw=st.binary(min_size=1, max_size=15).filter(lambda raw: not {0, 37, 47} & set(raw)))
def test_a_program_may_be_called_anything(raw: bytes) -> None:
    name = f"{os.fsdecode(raw)}=7"

    [reading] = [r for r in readings_of(name, FilePattern("%e=%p")) if r.pid == 7]

    assert reading.comm == raw.decode("utf-8", "backslashreplace")
