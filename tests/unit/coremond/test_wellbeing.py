import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.coremond.store import CoreStore
from services.coremond.wellbeing import HUNG_AFTER, LATE_AFTER, Wellbeing
from tests.unit.factories import small_disk

NOW = 1000.0
INTERVAL = 10.0


@pytest.fixture
def crash_dir(tmp_path: Path) -> Path:
    (tmp_path / "crash").mkdir()
    return tmp_path / "crash"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoreStore]:
    with closing(CoreStore(tmp_path / "cores")) as store:
        yield store


@pytest.fixture
def wellbeing(crash_dir: Path, store: CoreStore) -> Wellbeing:
    return Wellbeing(crash_dir, store.path, store.check, scan_interval=INTERVAL, clock=lambda: NOW)


def faults(wellbeing: Wellbeing) -> tuple[str, ...]:
    return wellbeing.state(NOW, NOW).faults


def test_all_is_well_at_first(wellbeing: Wellbeing) -> None:
    state = wellbeing.state(NOW - INTERVAL, NOW - INTERVAL)

    assert (state.faults, state.is_hung) == ((), False)


def test_a_store_that_is_gone_or_another_is_told(wellbeing: Wellbeing, store: CoreStore) -> None:
    aside = store.path.with_name("aside")

    store.path.rename(aside)
    assert faults(wellbeing) == (f"{store.path}: No such file or directory",)
    store.path.mkdir()
    assert faults(wellbeing) == (f"{store.path}: another directory is in its place",)
    store.path.rmdir()
    aside.rename(store.path)
    assert faults(wellbeing) == ()


def test_cores_that_cannot_be_stored_are_told(crash_dir: Path, store: CoreStore) -> None:
    failing = ["the disk is full"]
    wellbeing = Wellbeing(
        crash_dir, store.path, store.check, failing=lambda: failing, scan_interval=INTERVAL
    )

    assert faults(wellbeing)[-1:] == (
        "cores that cannot be stored, and wait: 1; the last: the disk is full",
    )
    failing.clear()
    assert "cannot be stored" not in "".join(faults(wellbeing))


def test_a_crash_directory_that_is_gone_or_none_is_told(
    wellbeing: Wellbeing, crash_dir: Path
) -> None:
    crash_dir.rmdir()
    assert faults(wellbeing) == (f"{crash_dir}: No such file or directory",)

    crash_dir.touch()

    assert faults(wellbeing) == (f"{crash_dir}: it is no directory",)


def test_a_directory_that_cannot_be_written_is_told(
    wellbeing: Wellbeing, crash_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may write everywhere but on a disk that is mounted for reading.
    monkeypatch.setattr(os, "access", lambda path, _: path != crash_dir)

    assert faults(wellbeing) == (f"{crash_dir}: it cannot be written",)


def test_a_full_disk_is_told(wellbeing: Wellbeing, crash_dir: Path) -> None:
    with small_disk(crash_dir, 2**20):
        assert faults(wellbeing) == ()
        (crash_dir / "large").write_bytes(bytes(2**20))
        assert faults(wellbeing) == (f"{crash_dir}: the disk is full",)


def test_a_scan_that_is_long_ago_is_told_and_is_no_reason_to_restart(wellbeing: Wellbeing) -> None:
    state = wellbeing.state(NOW, NOW - INTERVAL - LATE_AFTER - 1)

    assert state.faults == ("the crash directory was last looked through 71 s ago",)
    assert not state.is_hung


def test_a_loop_that_stands_still_is_hung(wellbeing: Wellbeing) -> None:
    assert not wellbeing.state(NOW - INTERVAL - HUNG_AFTER, NOW).is_hung
    assert wellbeing.state(NOW - INTERVAL - HUNG_AFTER - 1, NOW).is_hung
