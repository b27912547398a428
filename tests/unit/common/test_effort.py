import os
import platform
import re
from collections.abc import Callable, Iterator
from threading import Event, Thread, get_native_id
from typing import NamedTuple

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import effort
from common.effort import Effort, IoClass, IoPriority, io_priority, niceness, read_effort
from common.errors import ConfigError
from common.settings import EnvReader
from tests.unit.factories import without_deadline

IDLE = IoPriority(IoClass.IDLE)
LOWEST = IoPriority(IoClass.BEST_EFFORT, 7)

knows_io_priorities = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}
    or psutil.Process().ionice().ioclass == IoClass.IDLE,
    reason="missing: a machine of x86_64 or aarch64, and tests that are not idle themselves",
)


class Standing(NamedTuple):
    """What the kernel says of a thread."""

    nice: int
    io_class: int
    level: int


def standing(thread: int) -> Standing:
    found = psutil.Process(thread)
    return Standing(found.nice(), int(found.ionice().ioclass), int(found.ionice().value))


def in_a_thread(*steps: Callable[[], None]) -> list[Standing]:
    """Give the standing of a new thread, before the first of its *steps* and after each."""
    seen = []

    def run() -> None:
        seen.append(standing(get_native_id()))
        for step in steps:
            step()
            seen.append(standing(get_native_id()))

    thread = Thread(target=run)
    thread.start()
    thread.join()
    return seen


@pytest.fixture
def bystander() -> Iterator[int]:
    """Give the id of a thread of this process that does nothing."""
    done, ids = Event(), list[int]()
    known = Event()

    def run() -> None:
        ids.append(get_native_id())
        known.set()
        done.wait()

    thread = Thread(target=run)
    thread.start()
    known.wait()
    yield ids[0]
    done.set()
    thread.join()


def test_the_effort_is_read() -> None:
    env = {"COREMON_WORKERS": "3", "COREMON_NICE": "19", "COREMON_IO_PRIORITY": "idle"}

    assert read_effort(EnvReader(env)) == Effort(workers=3, nice=19, io_priority=IDLE)


def test_unasked_packing_stands_back() -> None:
    assert read_effort(EnvReader({})) == Effort(workers=0, nice=10, io_priority=LOWEST)


def test_every_mistake_is_told_at_once() -> None:
    reader = EnvReader(
        {"COREMON_WORKERS": "257", "COREMON_NICE": "20", "COREMON_IO_PRIORITY": "best-effort:8"}
    )

    read_effort(reader)

    with pytest.raises(ConfigError) as raised:
        reader.finish()
    assert [problem.partition("=")[0] for problem in raised.value.problems] == [
        "COREMON_WORKERS",
        "COREMON_NICE",
        "COREMON_IO_PRIORITY",
    ]


@pytest.mark.parametrize("text", ["0", "10", "19"])
def test_a_niceness_is_what_anyone_may_take(text: str) -> None:
    assert niceness(text) == int(text)


@pytest.mark.parametrize("text", ["20", "-1", "+5", "", "1.5", "x"])
def test_what_is_no_such_niceness_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        niceness(text)


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("none", IoPriority()),
        ("idle", IDLE),
        ("best-effort:0", IoPriority(IoClass.BEST_EFFORT, 0)),
        ("best-effort:7", LOWEST),
    ],
)
def test_an_io_priority_has_a_class_and_its_level(text: str, priority: IoPriority) -> None:
    assert io_priority(text) == priority


@without_deadline
@given(
    st.text()
    | st.text("0123456789:-besteffortidlenone", max_size=14)
    | st.sampled_from(["best-effort", "best-effort:8", "best-effort:\u0663", "best-effort:77"])
    | st.sampled_from(["idle\n", "NONE", "best-effort:7\n", "realtime:0"])
)
def test_nothing_else_is_an_io_priority(text: str) -> None:
    try:
        io_priority(text)
        taken = True
    except ValueError:
        taken = False

    assert taken == bool(re.fullmatch("none|idle|best-effort:[0-7]", text))


def test_as_many_threads_pack_as_are_asked_for() -> None:
    assert Effort(workers=200).threads == 200


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (4, 4), (16, 16), (17, 16), (256, 16)])
def test_unasked_there_is_a_thread_for_each_cpu_and_at_most_16(
    monkeypatch: pytest.MonkeyPatch, cpus: int, threads: int
) -> None:
    monkeypatch.setattr(effort, "available_cpus", lambda: cpus)

    assert Effort().threads == threads


@knows_io_priorities
@pytest.mark.parametrize(
    "priority", [IDLE, IoPriority(IoClass.BEST_EFFORT, 0), IoPriority(IoClass.BEST_EFFORT, 5)]
)
def test_a_thread_is_calmed_and_no_other(bystander: int, priority: IoPriority) -> None:
    others = {bystander: standing(bystander), os.getpid(): standing(os.getpid())}

    before, calmed = in_a_thread(Effort(nice=11, io_priority=priority).calm)

    assert calmed == (max(before.nice, 11), priority.io_class, priority.level)
    assert {thread: standing(thread) for thread in others} == others


@knows_io_priorities
def test_what_a_calm_thread_starts_is_calm() -> None:
    started = list[Standing]()

    _, calmed = in_a_thread(Effort(nice=11).calm, lambda: started.extend(in_a_thread()))[:2]

    assert started == [calmed]


@knows_io_priorities
def test_a_thread_can_be_calmed_again_but_never_less() -> None:
    calm = Effort(nice=12, io_priority=IDLE).calm
    eager = Effort(nice=3, io_priority=IoPriority(IoClass.BEST_EFFORT, 0)).calm

    _, once, twice, after = in_a_thread(calm, calm, eager)

    assert once == twice == after


@knows_io_priorities
def test_none_leaves_the_io_priority_as_it_is() -> None:
    lowest = Effort(nice=0, io_priority=LOWEST).calm
    none = Effort(nice=0, io_priority=IoPriority()).calm

    before, untouched, given, left = in_a_thread(none, lowest, none)

    assert untouched == before
    assert left == given != before


@knows_io_priorities
def test_where_a_niceness_is_refused_the_io_priority_is_still_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)

    before, after = in_a_thread(Effort(nice=19, io_priority=IDLE).calm)

    assert after == (before.nice, IoClass.IDLE, 0)


def test_an_io_priority_that_the_kernel_refuses_changes_nothing() -> None:
    unknown = IoPriority(5)  # type: ignore[arg-type]  # a class that no kernel has

    before, after = in_a_thread(Effort(nice=0, io_priority=unknown).calm)

    assert after == before


def test_a_machine_whose_system_calls_are_unknown_keeps_its_io_priorities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    before, after = in_a_thread(Effort(nice=0, io_priority=IDLE).calm)

    assert after == before
