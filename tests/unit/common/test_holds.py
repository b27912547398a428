import fcntl
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.holds import HOLDS, Hold, HoldsFile, write_holds
from tests.unit.factories import (
    CRASHED_AT,
    hostile_texts,
    in_place_of_a_file,
    small_disk,
    with_files,
)

NOW = CRASHED_AT
LOOP = Hold(
    namespace="",
    workload="web",
    container="web",
    process="observer",
    until=NOW + 10,
    reason="its limit is reached",
)


def is_held(holds: HoldsFile, now: int = NOW) -> bool:
    found = holds.find(("", "web", "web", "observer"), now)
    assert holds.any_at(now) == bool(found)
    return bool(found)


def test_who_is_held_is_found_and_nobody_else(tmp_path: Path) -> None:
    write_holds(tmp_path, [LOOP])
    holds = HoldsFile(tmp_path)

    assert holds.find(("", "web", "web", "observer"), NOW) == LOOP
    assert holds.find(("", "web", "web", "other"), NOW) is None
    assert holds.find(("", "db", "db", "observer"), NOW) is None
    assert holds.find(("", "observer", "observer", "web"), NOW) is None


def test_a_hold_ends_when_it_says(tmp_path: Path) -> None:
    write_holds(tmp_path, [LOOP])
    holds = HoldsFile(tmp_path)

    assert [is_held(holds, LOOP.until + after) for after in (-1, 0, 1)] == [True, False, False]


def test_nobody_is_held_where_nothing_is_written(tmp_path: Path) -> None:
    assert not is_held(HoldsFile(tmp_path))
    assert not is_held(HoldsFile(tmp_path / "missing"))


def test_each_change_is_seen(tmp_path: Path) -> None:
    holds = HoldsFile(tmp_path)
    seen = [is_held(holds)]
    for written in ([LOOP], [], [LOOP, LOOP], []):
        write_holds(tmp_path, written)
        seen.append(is_held(holds))
    write_holds(tmp_path, [LOOP])
    seen.append(is_held(holds))
    (tmp_path / HOLDS).unlink()
    seen.append(is_held(holds))

    assert seen == [False, True, False, True, False, True, False]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}",
        b"[{}]",
        b"null",
        b'[{"workload":"web","process":"observer","until":1e99,"reason":""}]',
        b'[{"workload":"web","process":"observer","until":"later","reason":""}]',
        b'[{"workload":"web","process":"observer","until":9' + b"9" * 5000 + b"}]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe[]",
        b"[]" + b" " * (16 * 2**20),
        bytes(4096),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_file_that_is_broken_holds_nobody(tmp_path: Path, text: bytes) -> None:
    holds = HoldsFile(tmp_path)
    write_holds(tmp_path, [LOOP])
    assert is_held(holds)
    (tmp_path / "new").write_bytes(text)
    (tmp_path / "new").rename(tmp_path / HOLDS)

    assert not is_held(holds)

    write_holds(tmp_path, [LOOP])
    assert is_held(holds)


def test_a_file_of_someone_else_holds_nobody(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: root, to give a file away")
    write_holds(tmp_path, [LOOP])
    os.chown(tmp_path / HOLDS, 65534, 65534)

    assert not is_held(HoldsFile(tmp_path))


@in_place_of_a_file
def test_what_is_no_file_holds_nobody_and_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / HOLDS)

    assert not is_held(HoldsFile(tmp_path))


def test_a_file_that_somebody_keeps_to_himself_holds_nobody(
    tmp_path: Path,
) -> None:
    write_holds(tmp_path, [LOOP])
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with open(tmp_path / HOLDS, "r+b") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

            assert not is_held(HoldsFile(tmp_path))
    finally:
        signal.signal(signal.SIGIO, before)


def test_a_disk_that_is_full_leaves_the_holds_as_they_were(tmp_path: Path) -> None:
    with small_disk(tmp_path / "run", 2**20) as disk:
        write_holds(disk, [LOOP])
        with pytest.raises(OSError, match="No space"):
            write_holds(disk, [replace(LOOP, reason="x" * 2**21)])

        assert HoldsFile(disk).find(("", "web", "web", "observer"), NOW) == LOOP
        assert os.listdir(disk) == [HOLDS]


@with_files
@given(st.lists(st.tuples(*[hostile_texts] * 4), max_size=5))
def test_hostile_names_are_held_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, named: list[tuple[str, str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    holds_made = [
        Hold(
            namespace=clean(names[0]),
            workload=clean(names[1]),
            container=clean(names[2]),
            process=clean(names[3]),
            until=NOW + 1,
            reason="r",
        )
        for names in named
    ]
    written = {hold.key: hold for hold in holds_made}
    write_holds(folder, written.values())
    holds = HoldsFile(folder)

    for key, hold in written.items():
        assert holds.find(key, NOW) == hold


def clean(text: str) -> str:
    """As it stands in a record: no lone surrogates."""
    return text.encode(errors="backslashreplace").decode()


def test_many_who_ask_at_once_are_all_told_the_same(tmp_path: Path) -> None:
    write_holds(tmp_path, [LOOP])
    for _ in range(50):
        holds = HoldsFile(tmp_path)
        with ThreadPoolExecutor(8) as threads:
            told = list(threads.map(holds.any_at, [NOW] * 64))

        assert all(told)
