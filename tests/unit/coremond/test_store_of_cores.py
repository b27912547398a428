import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from common.corestore import read_records, verify
from common.errors import ConfigError, CorruptError
from common.files import write_durably
from common.item import Packed
from common.packing.crew import Crew
from common.packing.packer import pack
from common.packing.registry import CODECS
from common.packing.sources import FileSource
from common.packing.sums import sums_of
from common.record import CrashRecord, Source
from services.coremond.store import CoreStore
from tests.store import crash
from tests.unit.factories import Killed, Killer, memory_file

SOURCE = Source(name="core.x", device=1, inode=2, size=6, changed_at=3)
RECORD = crash(sources=(SOURCE,))
CHANGES = 16
"""More than there are changes to the disk in storing a core."""
FILES = sorted([f"{RECORD.name}.gz", f"{RECORD.name}.gz.crc", f"{RECORD.name}.json"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoreStore]:
    with closing(CoreStore(tmp_path)) as made:
        yield made


def pack_into(
    store: CoreStore, record: CrashRecord, content: bytes
) -> tuple[CrashRecord, Packed, int]:
    target = store.create(record.name)
    with memory_file(content) as source, Crew(1) as crew:
        packed = pack(FileSource(source), target, CODECS["gzip"], crew)
    record = replace(
        record,
        size=packed.size,
        packed=packed.packed,
        crc32=f"{packed.crc32:08x}",
        sha256=sums_of(target).sha256,
    )
    return record, packed, target


def published(store: CoreStore, record: CrashRecord = RECORD) -> CrashRecord:
    record, packed, target = pack_into(store, record, b"a core")
    store.settle(packed, target)
    store.prepare(record)
    store.publish(record)
    os.close(target)
    return record


def files_in(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name != ".lock")


def test_a_stored_core_is_three_files_that_agree(store: CoreStore, tmp_path: Path) -> None:
    record = published(store)

    assert files_in(tmp_path) == FILES
    assert (tmp_path / f"{record.name}.gz.crc").read_text() == f"{record.name}.gz {record.crc32}\n"
    assert read_records(tmp_path) == [record]
    verify(tmp_path, record)


def test_nobody_else_can_read_a_stored_core(store: CoreStore, tmp_path: Path) -> None:
    published(store)

    assert {(tmp_path / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with closing(CoreStore(tmp_path / "cores" / "node-1")):
        assert (tmp_path / "cores" / "node-1").stat().st_mode & 0o777 == 0o700


def test_a_second_coremond_is_turned_away(store: CoreStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another coremond keeps its cores there"):
        CoreStore(tmp_path)


def test_a_disk_that_gives_back_something_else_stores_nothing(
    store: CoreStore, tmp_path: Path
) -> None:
    record, packed, target = pack_into(store, RECORD, b"a core")
    os.pwrite(target, b"?", 30)

    with pytest.raises(CorruptError):
        store.settle(packed, target)
    store.discard(record.name)
    os.close(target)

    assert files_in(tmp_path) == []


def test_a_removed_core_leaves_its_record(store: CoreStore, tmp_path: Path) -> None:
    removed = store.remove(published(store), "too old", 77)

    assert files_in(tmp_path) == [f"{RECORD.name}.json"]
    assert (removed.state, removed.reason, removed.removed_at) == ("removed", "too old", 77)
    assert read_records(tmp_path) == [removed]


def test_a_source_is_known_again_after_a_restart(tmp_path: Path) -> None:
    with closing(CoreStore(tmp_path)) as store:
        record = published(store)

    with closing(CoreStore(tmp_path)) as store:
        assert store.record_of(SOURCE) == record
        assert store.record_of(replace(SOURCE, device=99)) == record
        assert store.record_of(replace(SOURCE, changed_at=4)) is None


def test_a_forgotten_record_is_forgotten_with_its_sources(store: CoreStore, tmp_path: Path) -> None:
    record = store.remove(published(store), "too old", 77)

    store.forget(record)

    assert files_in(tmp_path) == []
    assert store.record_of(SOURCE) is None
    assert not store.has_name(record.name)


def recovered(directory: Path, *, has_source: bool) -> list[CrashRecord]:
    with closing(CoreStore(directory)) as store:
        store.recover(lambda _source: has_source)
        return store.records()


def assert_whole_or_nothing(directory: Path) -> None:
    for record in read_records(directory):
        if record.state == "stored":
            verify(directory, record)
    left = [record for record in read_records(directory) if record.state == "stored"]
    expected = [f"{record.name}{suffix}" for record in left for suffix in (".gz", ".gz.crc")]
    assert [name for name in files_in(directory) if not name.endswith(".json")] == sorted(expected)


@pytest.mark.parametrize("kill_at", range(CHANGES))
@pytest.mark.parametrize("kill_again_at", [None, 0, 1, 2])
def test_a_kill_while_a_core_appears_leaves_a_whole_core_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, kill_again_at: int | None
) -> None:
    with closing(CoreStore(tmp_path)) as store:
        try:
            with Killer(monkeypatch, kill_at):
                published(store)
        except Killed:
            was_killed = True
        else:
            was_killed = False
    if kill_again_at is not None:
        with closing(CoreStore(tmp_path)) as store:
            try:
                with Killer(monkeypatch, kill_again_at):
                    store.recover(lambda _source: True)
            except Killed:
                pass

    records = recovered(tmp_path, has_source=True)

    assert_whole_or_nothing(tmp_path)
    assert [record.state for record in records] == ["stored"] * (not was_killed)


@pytest.mark.parametrize("kill_at", range(CHANGES))
def test_a_kill_while_a_core_goes_leaves_it_whole_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    with closing(CoreStore(tmp_path)) as store:
        record = published(store)
        try:
            with Killer(monkeypatch, kill_at):
                store.remove(record, "too old", 77)
        except Killed:
            pass

    [found] = recovered(tmp_path, has_source=False)

    assert_whole_or_nothing(tmp_path)
    assert found.state in {"stored", "removed"}
    assert found.reason == ("too old" if found.state == "removed" else "")


def test_the_kills_reach_from_the_first_change_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(CoreStore(tmp_path)) as store, Killer(monkeypatch, CHANGES):
        published(store)

    assert files_in(tmp_path) == FILES


STATES = {
    "packed in part": [".tmp"],
    "packed": [".tmp"],
    "the checksum is being written": [".gz.tmp", ".gz.crc.tmp"],
    "the checksum is there": [".gz.tmp", "crc"],
    "the record is being written": [".gz.tmp", "crc", ".json.tmp"],
    "the record is there": [".gz.tmp", "crc", "json"],
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("has_source", [True, False])
def test_what_was_about_to_appear_is_undone(
    tmp_path: Path, state: list[str], has_source: bool
) -> None:
    content = {
        "crc": (f"{RECORD.name}.gz.crc", b"crc"),
        "json": (f"{RECORD.name}.json", RECORD.to_json()),
    }
    for part in state:
        name, data = content.get(part, (f".{RECORD.name}{part}", b"half"))
        (tmp_path / name).write_bytes(data)

    records = recovered(tmp_path, has_source=has_source)

    is_told = "json" in state and not has_source
    assert files_in(tmp_path) == [f"{RECORD.name}.json"] * is_told
    assert [record.state for record in records] == ["removed"] * is_told


def test_a_core_that_someone_took_away_is_recorded_as_gone(tmp_path: Path) -> None:
    with closing(CoreStore(tmp_path)) as store:
        record = published(store)
    (tmp_path / record.core).unlink()

    [found] = recovered(tmp_path, has_source=False)

    assert (found.state, found.reason) == ("removed", "its file was not there any more")
    assert files_in(tmp_path) == [f"{RECORD.name}.json"]


def test_whole_cores_and_strange_files_stay_as_they_are(tmp_path: Path) -> None:
    with closing(CoreStore(tmp_path)) as store:
        published(store)
    (tmp_path / "notes.txt").write_text("an operator's")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    recovered(tmp_path, has_source=False)

    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 9999])
def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "core.broken.json").write_bytes(content)
    with closing(CoreStore(tmp_path)) as store:
        published(store)

    assert [record.name for record in recovered(tmp_path, has_source=True)] == [RECORD.name]


def test_a_record_under_another_name_is_passed_over(store: CoreStore, tmp_path: Path) -> None:
    write_durably(store.descriptor, "core.other.json", RECORD.to_json())

    assert read_records(tmp_path) == []


# The end of the container's log, beside a core.

LOG = f"{RECORD.name}.log"


def published_with_log(store: CoreStore) -> CrashRecord:
    return published(store, store.attach(RECORD, b"the end\n"))


def test_the_log_lies_beside_the_core_for_its_owner_alone_and_goes_with_it(
    store: CoreStore, tmp_path: Path
) -> None:
    record = published_with_log(store)
    assert record.log == LOG
    assert (tmp_path / LOG).read_bytes() == b"the end\n"
    assert (tmp_path / LOG).stat().st_mode & 0o777 == 0o600

    store.remove(record, "too old", 77)

    assert files_in(tmp_path) == [f"{RECORD.name}.json"]


def test_what_is_not_to_be_leaves_no_log(store: CoreStore, tmp_path: Path) -> None:
    record, _, target = pack_into(store, store.attach(RECORD, b"x"), b"a core")
    os.close(target)
    store.prepare(record)

    store.discard(record.name)

    assert files_in(tmp_path) == []


@pytest.mark.parametrize("has_source", [True, False])
def test_a_log_without_its_core_goes_at_the_next_start_and_one_with_it_stays(
    tmp_path: Path, has_source: bool
) -> None:
    with closing(CoreStore(tmp_path)) as store:
        published_with_log(store)
        store.attach(crash(pod="other-0"), b"no core came")
    for strange in ("notes.log", "core.log.txt"):
        (tmp_path / strange).touch()

    [record] = recovered(tmp_path, has_source=has_source)

    assert (record.state, record.log) == ("stored", LOG)
    assert files_in(tmp_path) == sorted([*FILES, LOG, "notes.log", "core.log.txt"])


def test_a_core_that_someone_took_away_takes_its_log_with_it(tmp_path: Path) -> None:
    with closing(CoreStore(tmp_path)) as store:
        record = published_with_log(store)
    (tmp_path / record.core).unlink()

    [found] = recovered(tmp_path, has_source=False)

    assert found.state == "removed"
    assert files_in(tmp_path) == [f"{RECORD.name}.json"]


@pytest.mark.parametrize("kill_at", range(CHANGES + 4))
@pytest.mark.parametrize("has_source", [True, False])
def test_a_kill_while_a_core_with_a_log_appears_or_goes_leaves_no_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, has_source: bool
) -> None:
    with closing(CoreStore(tmp_path)) as store:
        try:
            with Killer(monkeypatch, kill_at):
                record = published_with_log(store)
                store.remove(record, "too old", 77)
        except Killed:
            pass

    records = recovered(tmp_path, has_source=has_source)

    is_stored = [record.state for record in records] == ["stored"]
    assert (LOG in files_in(tmp_path)) == is_stored
    assert not [name for name in files_in(tmp_path) if name.endswith(".tmp")]
