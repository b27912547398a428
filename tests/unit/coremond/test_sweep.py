import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from common.packing.codec import BLOCK
from common.settings import NANOSECONDS
from services.coremond.settings import Retention
from tests.unit.factories import CRASHED_AT, House, in_place_of_a_file

HOUR = 3600
NOISE = os.urandom(BLOCK)


class Open(Protocol):
    def __call__(self, **keep: Any) -> House: ...


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens a house with retention settings of its own."""
    with ExitStack() as stack:

        def open_it(**keep: Any) -> House:
            stack.close()
            rules = Retention(cores_max_files=0, **keep)
            return stack.enter_context(House(tmp_path, keep=rules, delete_src=False))

        yield open_it


def age(house: House, name: str, seconds: float) -> None:
    """Let a source be *seconds* old."""
    changed_at = house.now - int(seconds * NANOSECONDS)
    os.utime(house.crash_dir / name, ns=(changed_at, changed_at))


def test_without_retention_nothing_goes(open_house: Open) -> None:
    house = open_house(record_retention=0)
    house.crash()
    house.now += 10**6 * HOUR * NANOSECONDS

    house.sweep()

    assert house.states() == ["stored"]
    assert len(house.sources()) == 1


def test_cores_go_once_they_are_older_than_the_retention(open_house: Open) -> None:
    house = open_house(retention=HOUR)
    house.crash(at=0)
    house.now += HOUR * NANOSECONDS
    house.crash(at=1)
    house.sweep()
    assert house.states() == ["stored", "stored"]

    house.now += 1
    house.sweep()

    assert house.states() == ["removed", "stored"]
    [removed] = [event for event in house.told if event.kind == "removed"]
    assert removed.reason == "older than COREMON_RETENTION"


def test_sources_go_too_with_what_is_beside_them(open_house: Open) -> None:
    house = open_house(retention=HOUR)
    old, young = house.add(at=0), house.add(at=1)
    (house.spool / f".{old}.item").touch()
    age(house, old, HOUR + 1)
    age(house, young, HOUR - 1)

    house.sweep()

    assert house.sources() == [young]


def test_a_source_that_is_still_being_written_stays(open_house: Open) -> None:
    house = open_house(retention=HOUR)
    name = house.add()

    with (house.crash_dir / name).open("ab"):
        age(house, name, 2 * HOUR)
        house.sweep()

        assert house.sources() == [name]


@in_place_of_a_file
def test_what_is_no_plain_file_is_left(open_house: Open, make: Callable[[Path], object]) -> None:
    house = open_house(retention=HOUR)
    path = house.crash_dir / f"core.x.1.h.{CRASHED_AT}"
    make(path)

    house.sweep()

    assert path.name in house.sources()


def test_other_files_of_the_crash_directory_are_left(open_house: Open) -> None:
    house = open_house(retention=HOUR)
    for name in ("_usr_bin_x.0.crash", "notes", "core-not"):
        (house.crash_dir / name).touch()
        age(house, name, 9 * HOUR)

    house.sweep()

    assert house.sources() == ["_usr_bin_x.0.crash", "core-not", "notes"]


def test_a_directory_in_the_place_of_an_item_ends_nothing(open_house: Open) -> None:
    house = open_house(retention=HOUR)
    name = house.add()
    (house.crash_dir / f".{name}.item").mkdir()
    age(house, name, 2 * HOUR)

    house.sweep()

    assert name not in house.sources()


def test_records_without_a_core_are_forgotten_in_their_time(open_house: Open) -> None:
    house = open_house(record_retention=HOUR)
    house.worker.remove(house.crash(), "by hand")
    os.unlink(house.crash_dir / house.sources()[0])

    house.now += HOUR * NANOSECONDS
    house.sweep()
    assert house.states() == ["removed"]
    house.now += 1
    house.sweep()

    assert house.files() == []


def test_a_record_is_not_forgotten_while_its_source_is_there(open_house: Open) -> None:
    house = open_house(record_retention=HOUR)
    house.worker.remove(house.crash(), "by hand")

    house.now += 9 * HOUR * NANOSECONDS
    house.sweep()
    house.handle_all()

    assert house.states() == ["removed"]


def test_a_record_of_a_stored_core_is_never_forgotten(open_house: Open) -> None:
    house = open_house(record_retention=1)
    house.crash()

    house.now += 9 * HOUR * NANOSECONDS
    house.sweep()

    assert house.states() == ["stored"]


def test_a_quota_that_was_lowered_is_kept_the_oldest_of_the_loudest_first(
    open_house: Open,
) -> None:
    house = open_house()
    house.crash(content=NOISE, process="quiet", at=0)
    for second in (1, 2, 3):
        house.crash(content=NOISE, process="loud", at=second)

    house = open_house(max_use=3 * BLOCK)
    house.sweep()

    left = sorted(
        (record.process, record.crashed_at - CRASHED_AT)
        for record in house.store.records()
        if record.state == "stored"
    )
    assert left == [("loud", 3 * NANOSECONDS), ("quiet", 0)]


def test_a_quota_below_everything_takes_everything_and_no_more(open_house: Open) -> None:
    house = open_house()
    house.crash(content=NOISE)

    house = open_house(max_use=1)
    house.sweep()

    assert house.states() == ["removed"]


def test_a_second_sweep_finds_nothing_more(open_house: Open) -> None:
    house = open_house(retention=HOUR, record_retention=HOUR, max_use=BLOCK // 2)
    for second in range(3):
        house.crash(at=second, content=NOISE[:9999])
    house.now += 9 * HOUR * NANOSECONDS
    house.sweep()
    before = (house.files(), house.sources(), len(house.told))

    house.sweep()

    assert (house.files(), house.sources(), len(house.told)) == before
