import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.metrics import Registry
from common.monitor import State, ask, monitored, socket_of
from tests.bundle import Home

PROGRAM = "coremond"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with Home() as home:
        yield home


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.counter("crashes_total", "Crashes.", ("name",)).add("ünïcode", amount=2)
    return registry


def well() -> State:
    return State()


def test_a_program_tells_what_it_measures_and_misses(run_dir: Path, registry: Registry) -> None:
    with monitored(run_dir, PROGRAM, registry, lambda: State(faults=("the disk is full",))):
        [report] = ask(run_dir, [PROGRAM]).values()

    assert report.state == State(faults=("the disk is full",))
    assert list(report.families) == registry.families()
    assert report.resident_bytes > 2**20
    assert report.cpu_seconds > 0


def test_only_the_owner_can_ask(run_dir: Path, registry: Registry) -> None:
    with monitored(run_dir, PROGRAM, registry, well):
        mode = os.lstat(socket_of(run_dir, PROGRAM)).st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_who_is_not_there_is_left_out(run_dir: Path, registry: Registry) -> None:
    with monitored(run_dir, PROGRAM, registry, well):
        assert set(ask(run_dir, [PROGRAM, "crashagent"])) == {PROGRAM}
    assert ask(run_dir, [PROGRAM]) == {}
    assert list(run_dir.iterdir()) == []


def test_who_hangs_is_left_out_and_keeps_nobody_waiting(run_dir: Path, registry: Registry) -> None:
    with socket.socket(socket.AF_UNIX) as hung, monitored(run_dir, PROGRAM, registry, well):
        hung.bind(str(socket_of(run_dir, "crashagent")))
        hung.listen()

        assert set(ask(run_dir, ["crashagent", PROGRAM], within=0.5)) == {PROGRAM}


def test_who_tells_nonsense_is_left_out(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other, ThreadPoolExecutor(1) as pool:
        other.bind(str(socket_of(run_dir, PROGRAM)))
        other.listen()

        def tell() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b'{"state": 7}')

        telling = pool.submit(tell)

        assert ask(run_dir, [PROGRAM]) == {}
        telling.result()


def test_a_fault_of_its_own_is_no_answer(
    run_dir: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> State:
        raise OSError("the disk hangs")

    with monitored(run_dir, PROGRAM, registry, fail):
        assert ask(run_dir, [PROGRAM]) == {}

    assert "cannot answer" in caplog.text


def test_the_socket_of_one_that_was_killed_is_in_nobodys_way(
    run_dir: Path, registry: Registry
) -> None:
    for path in (socket_of(run_dir, PROGRAM), run_dir / f".{PROGRAM}.mon"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))

    with monitored(run_dir, PROGRAM, registry, well):
        assert set(ask(run_dir, [PROGRAM])) == {PROGRAM}


def test_the_newest_of_two_answers_also_once_the_first_has_ended(
    run_dir: Path, registry: Registry
) -> None:
    first = monitored(run_dir, PROGRAM, registry, lambda: State(faults=("first",)))
    with first, monitored(run_dir, PROGRAM, registry, lambda: State(faults=("second",))):
        assert ask(run_dir, [PROGRAM])[PROGRAM].state.faults == ("second",)

    older = monitored(run_dir, PROGRAM, registry, well)
    older.__enter__()
    with monitored(run_dir, PROGRAM, registry, lambda: State(faults=("newer",))):
        older.__exit__(None, None, None)

        assert ask(run_dir, [PROGRAM])[PROGRAM].state.faults == ("newer",)


def test_many_may_ask_at_once_beside_one_that_never_reads(
    run_dir: Path, registry: Registry
) -> None:
    counter = registry.counter("large_total", "x", ("name",), most=5000)
    for number in range(5000):
        counter.add(f"{number:0>100}")

    with (
        monitored(run_dir, PROGRAM, registry, well),
        socket.socket(socket.AF_UNIX) as deaf,
        ThreadPoolExecutor(8) as pool,
    ):
        deaf.connect(str(socket_of(run_dir, PROGRAM)))
        answers = list(pool.map(lambda _: ask(run_dir, [PROGRAM], within=20), range(16)))

    assert all(set(answer) == {PROGRAM} for answer in answers)
