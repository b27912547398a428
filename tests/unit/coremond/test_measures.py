import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.item import Arrival
from common.metrics import OTHER
from common.record import Identity, Source
from common.settings import NANOSECONDS
from services.coremond.acknowledge import Acknowledger
from services.coremond.measures import GUESS, Measures
from services.coremond.settings import Retention
from tests.store import crash
from tests.unit.factories import House, elf_core, item, numbers_of


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        house.measures.watch_store(house.store.records, house.store.room)
        yield house


def read(measures: Measures) -> dict[str, float]:
    return numbers_of(measures.registry)


def test_a_stored_core_is_counted_with_its_bytes_its_phases_and_its_workload(house: House) -> None:
    name = house.add(elf_core())
    house.now -= 10**6 * NANOSECONDS - 700 * NANOSECONDS
    os.utime(house.crash_dir / name, ns=(0, house.now - 600 * NANOSECONDS))
    house.handle(name)
    [record] = house.store.records()

    found = read(house.measures)
    assert found["crashes_stored_total"] == found["crashes_total file"] == 1
    assert found["core_bytes_total"] == len(elf_core())
    assert found["packed_bytes_total"] == record.packed
    assert found["store_bytes"] == record.occupied
    assert found["store_cores"] == found["store_records"] == 1
    assert found["identity_total hostname"] == 1
    assert found["workload_crashes_total  f5-observer f5-observer"] == 1
    assert found["last_stored_timestamp_seconds"] == house.now / NANOSECONDS
    assert found["phase_seconds_count convert"] == found["phase_seconds_count publish"] == 1
    assert found["phase_seconds_sum wait"] == 600


def test_crashes_at_the_limit_are_counted_as_such_each_once(house: House) -> None:
    for second in range(5):
        house.crash(at=second)

    found = read(house.measures)
    assert found["crashes_stored_total"] == 3
    assert found["crashes_held_total limit"] == 2
    assert found["workload_crashes_total  f5-observer f5-observer"] == 5


def test_crashes_that_were_turned_away_are_counted_by_their_number(house: House) -> None:
    for second in range(3):
        house.crash(at=second)
    away = "the limit of 3 cores of this process is reached"
    name = house.add(b"", at=9, told=item(turned_away=away, count=1765, arrived="kernel-socket"))
    house.handle(name)

    found = read(house.measures)
    assert found["crashes_held_total limit"] == 1765
    assert found["crashes_total kernel-socket"] == 1765


def test_why_a_core_is_not_kept_is_told_apart(tmp_path: Path) -> None:
    with House(tmp_path, keep=Retention(deny=("observer",), max_use=10)) as house:
        house.crash()
        house.crash(process="tmm", content=os.urandom(4096))
        found = read(house.measures)

    assert (found["crashes_held_total denied"], found["crashes_held_total no-space"]) == (1, 1)


def test_why_a_core_was_removed_is_told_apart(tmp_path: Path) -> None:
    keep = Retention(cores_max_files=1, retention_interval=1.0, rotate=True, retention=3600)
    with House(tmp_path, keep=keep) as house:
        house.crash(at=0)
        house.crash(at=10)
        house.now += 4000 * NANOSECONDS
        house.sweep()
        found = read(house.measures)

    removed = {name: number for name, number in found.items() if name.startswith("crashes_removed")}
    assert removed == {
        "crashes_removed_total rotated": 1,
        "crashes_removed_total expired": 1,
        "crashes_removed_total room": 0,
        "crashes_removed_total other": 0,
    }


def test_a_core_that_made_room_is_counted_as_such(tmp_path: Path) -> None:
    with House(tmp_path, keep=Retention(cores_max_files=0, max_use=20_000)) as house:
        house.crash(at=0, content=os.urandom(4096))
        house.crash(at=1, content=os.urandom(4096))

        assert read(house.measures)["crashes_removed_total room"] == 1


def test_however_many_workloads_crash_the_series_are_bounded() -> None:
    measures = Measures(2)
    for number in range(50):
        measures.stored(crash(namespace="n", workload=f"web\n{number}", container="c"), 0)

    names = [name for name in read(measures) if name.startswith("workload_crashes_total")]
    assert names == [
        f"workload_crashes_total  {GUESS} ",
        "workload_crashes_total n web\\n0 c",
        "workload_crashes_total n web\\n1 c",
        f"workload_crashes_total  {OTHER} ",
    ]
    assert read(measures)[names[-1]] == 48


def test_guesses_are_counted_together_and_take_no_series_from_those_that_are_sure() -> None:
    measures = Measures(2)
    guess = Identity(by="guess")
    for number in range(50):
        name = f"made-up-{number}"
        measures.held(crash(workload=name, container=name, identity=guess), 2)
    measures.stored(crash(namespace="shop", workload="payments", container="app"), 0)

    found = read(measures)
    assert found[f"workload_crashes_total  {GUESS} "] == 100
    assert found["workload_crashes_total shop payments app"] == 1
    assert f"workload_crashes_total  {OTHER} " not in found
    assert found["identity_total guess"] == 100


def test_a_crash_is_new_until_it_is_acknowledged_removed_or_forgotten(house: House) -> None:
    first, second, third = (house.crash(at=second) for second in range(3))
    assert read(house.measures)["crashes_unacknowledged"] == 3

    acknowledger = Acknowledger(house.store, house.worker.deciding, clock=lambda: house.now)
    acknowledger.acknowledge([first.id, "000000000000"])
    assert read(house.measures)["crashes_unacknowledged"] == 2
    house.worker.remove(second, "by hand")
    assert read(house.measures)["crashes_unacknowledged"] == 1
    house.store.forget(third)
    assert read(house.measures)["crashes_unacknowledged"] == 0


def test_an_acknowledgement_outlives_a_restart(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        record = house.crash()
        Acknowledger(house.store, house.worker.deciding, clock=lambda: 7).acknowledge([record.id])

    with House(tmp_path) as house:
        assert house.store.records() == [replace(record, acknowledged_at=7)]


def test_a_record_is_new_again_once_a_further_crash_is_counted_in_it(house: House) -> None:
    for second in range(4):
        record = house.crash(at=second)
    acknowledger = Acknowledger(house.store, house.worker.deciding)
    acknowledger.acknowledge([record.id for record in house.store.records()])
    assert read(house.measures)["crashes_unacknowledged"] == 0

    assert house.crash(at=5).id == record.id

    assert read(house.measures)["crashes_unacknowledged"] == 1


def test_what_cannot_be_acknowledged_is_said_and_stays_new(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = house.crash()

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.store, "save", fail)
    Acknowledger(house.store, house.worker.deciding).acknowledge([record.id])

    assert "acknowledgement not written down" in caplog.text
    assert read(house.measures)["crashes_unacknowledged"] == 1


def test_a_source_that_cannot_be_stored_is_counted_as_failed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.store, "publish", fail)
    assert not house.handle(house.add())

    assert read(house.measures)["crashes_failed_total"] == 1


def test_a_disk_that_does_not_answer_has_no_free_bytes() -> None:
    measures = Measures(1)

    def fail() -> tuple[int, int]:
        raise OSError(116, "Stale file handle")

    measures.watch_store(list, fail)

    assert "store_free_bytes" not in read(measures)
    assert read(measures)["store_cores"] == 0


def test_the_queue_is_shown_as_it_is() -> None:
    measures = Measures(1)
    measures.watch_loop(lambda: (7, 2), lambda: 123.0, lambda: 3)

    found = read(measures)
    assert (found["queue waiting"], found["queue under_way"]) == (7, 2)
    assert (found["crashes_failing"], found["last_scan_timestamp_seconds"]) == (3, 123)


def source(*, changed_at: int) -> Source:
    return Source(name="core", device=1, inode=1, size=1, changed_at=changed_at)


def waited(**facts: Any) -> float:
    """Give how long a core waited, by what is measured of it."""
    measures = Measures(1)
    measures.stored(crash(**facts), 0)
    return read(measures)["phase_seconds_sum wait"]


NOW, DAY = 1_742_738_615 * NANOSECONDS, 86400 * NANOSECONDS


@pytest.mark.parametrize("arrived", ["file", "apport-report"])
@pytest.mark.parametrize(
    ("told", "changed_at", "seconds"),
    [
        (NANOSECONDS, NOW - 2 * NANOSECONDS, 2),
        (NOW - 3 * NANOSECONDS, NANOSECONDS, 3),
        (NOW - DAY // 2, NOW - DAY // 2, 43200),
        (NANOSECONDS, NANOSECONDS, 86400),
        (NANOSECONDS, NOW + DAY, 0),
    ],
)
def test_a_file_waited_from_its_last_change_on_whatever_it_says(
    arrived: Arrival, told: int, changed_at: int, seconds: float
) -> None:
    sources = (source(changed_at=changed_at),)

    wait = waited(arrived=arrived, crashed_at=told, detected_at=NOW, sources=sources)

    assert wait == seconds


def test_a_core_that_we_saw_come_waited_from_the_crash_on() -> None:
    sources = (source(changed_at=NOW),)

    wait = waited(arrived="apport", crashed_at=NOW - 7 * DAY, detected_at=NOW, sources=sources)

    assert wait == 7 * 86400


def test_the_forged_time_of_a_files_name_makes_nothing_long(house: House) -> None:
    name = "core.x.1.h.0000000001"
    (house.crash_dir / name).write_bytes(b"a core")
    house.now = time.time_ns()
    house.handle(name)

    assert read(house.measures)["phase_seconds_sum wait"] < 3600


def test_an_item_of_an_unknown_time_makes_no_phase_negative() -> None:
    measures = Measures(1)
    measures.stored(crash(crashed_at=10, detected_at=5, stored_at=9), 3)

    found = read(measures)
    assert found["phase_seconds_sum wait"] == found["phase_seconds_sum publish"] == 0
