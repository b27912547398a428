import errno
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from common.corestore import verify
from common.errors import MessageError
from common.holds import HoldsFile
from common.identity import Whose
from common.item import CrashItem, Packed
from common.naming import CoreName
from common.packing.codec import BLOCK
from common.packing.crew import Crew
from common.packing.packer import pack
from common.packing.registry import CODECS
from common.packing.sources import FileSource
from common.record import CrashRecord, Identity, PodFacts
from common.settings import NANOSECONDS
from services.coremond import retain, sources
from services.coremond.settings import Retention
from tests.unit.factories import (
    CRASHED_AT,
    House,
    Killed,
    Killer,
    content_of,
    elf_core,
    events_said,
    in_place_of_a_file,
    item,
    memory_file,
    small_disk,
)

NOISE = os.urandom(BLOCK)
INTERVAL = 300


class Open(Protocol):
    def __call__(self, **settings: Any) -> House: ...


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens a house; what it was told before, it finds on disk."""
    with ExitStack() as stack:

        def open_it(**settings: Any) -> House:
            stack.close()
            return stack.enter_context(House(tmp_path, **settings))

        yield open_it


@pytest.fixture
def house(open_house: Open) -> House:
    return open_house()


def content_of_core(house: House, name: str) -> bytes:
    return gzip.decompress((house.settings.store_dir / f"{name}.gz").read_bytes())


def test_a_core_is_stored_with_its_checksum_and_record_and_its_source_goes(house: House) -> None:
    record = house.crash(content=elf_core())

    assert house.files() == sorted(f"{record.name}{end}" for end in (".gz", ".gz.crc", ".json"))
    assert house.sources() == []
    assert content_of_core(house, record.name) == elf_core()
    verify(house.settings.store_dir, record)


def test_the_record_tells_what_is_known(house: House) -> None:
    record = house.crash(content=elf_core(pid=9, signal=11, uid=1000))

    assert record.name == f"core.f5-observer-0.f5-observer.observer.9.{CRASHED_AT}"
    assert (record.pod, record.container, record.process) == (
        "f5-observer-0",
        "f5-observer",
        "observer",
    )
    assert (record.workload, record.identity.by, record.node) == (
        "f5-observer",
        "hostname",
        "node-1",
    )
    assert (record.pid, record.signal, record.uid, record.elf) == (9, 11, 1000, True)
    assert (record.size, record.truncated) == (len(elf_core()), False)
    assert (record.crashed_at, record.last_crashed_at) == (CRASHED_AT, CRASHED_AT)
    assert (record.detected_at, record.stored_at, record.count) == (house.now, house.now, 1)


def test_a_stored_core_is_told_of(house: House) -> None:
    record = house.crash()

    [event] = house.told
    assert (event.kind, event.id, event.pod) == ("stored", record.id, "f5-observer-0")
    assert event.core == str(house.settings.store_dir / f"{record.name}.gz")


def test_the_lines_are_those_of_the_product_page(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    house.crash()

    assert events_said(caplog) == [
        "new core file detected",
        "failed to list pods",
        "creating coredump",
        "deleting src core file",
    ]


def test_what_crashagent_saw_goes_into_the_record(house: House) -> None:
    told = item(pid=5, hostname="f5-tmm-pn4tq", exe="/usr/bin/tmm", comm="tmm", rlimit=0)

    record = house.crash(content=elf_core(), told=told)

    assert (record.pid, record.exe, record.pod, record.rlimit) == (
        5,
        "/usr/bin/tmm",
        "f5-tmm-pn4tq",
        0,
    )
    assert house.sources() == []


def test_what_another_user_left_beside_a_core_is_ignored(house: House) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to give a file to another user")
    name = house.add(elf_core(), told=item(pid=5, comm="forged"))
    os.chown(house.spool / f".{name}.item", 12345, 12345)

    house.handle(name)

    [record] = house.store.records()
    assert (record.pid, record.process) == (9, "observer")


def test_an_item_on_the_wire_is_as_good_as_one_on_disk(house: House) -> None:
    name = house.add()

    house.handle(name, item(exe="/usr/bin/observer", signal=6))

    [record] = house.store.records()
    assert (record.exe, record.signal) == ("/usr/bin/observer", 6)


@pytest.mark.parametrize("content", [b"", b"x", b"no elf at all", bytes(3 * BLOCK)])
def test_what_is_no_elf_core_is_kept_and_called_so(house: House, content: bytes) -> None:
    record = house.crash(content=content)

    assert (record.state, record.elf, record.size) == ("stored", False, len(content))
    assert content_of_core(house, record.name) == content
    verify(house.settings.store_dir, record)


@pytest.mark.parametrize("missing", [1, 64, 100, 500])
def test_a_truncated_core_is_kept_and_called_so(house: House, missing: int) -> None:
    record = house.crash(content=elf_core()[:-missing])

    assert (record.state, record.elf, record.truncated) == ("stored", True, True)
    assert record.truncated_why == f"{missing} bytes of it are missing"


def test_a_core_with_too_much_data_is_cut_and_called_so(open_house: Open) -> None:
    house = open_house(max_core=BLOCK)

    record = house.crash(content=NOISE * 2)

    assert (record.truncated, record.size) == (True, BLOCK)
    assert record.truncated_why == f"it has more than {BLOCK} bytes of data"
    verify(house.settings.store_dir, record)


@in_place_of_a_file
def test_what_is_no_plain_file_is_refused_once_and_left(
    house: House, caplog: pytest.LogCaptureFixture, make: Callable[[Path], object]
) -> None:
    path = house.crash_dir / f"core.x.1.host.{CRASHED_AT}"
    make(path)

    for _ in range(3):
        house.handle_all()

    assert events_said(caplog) == ["core file refused"]
    assert os.path.lexists(path)
    assert house.files() == []


def test_a_refusal_is_said_again_of_a_file_that_comes_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    (house.crash_dir / "core").mkdir()
    house.handle_all()
    house.worker.forget_missing(set())

    house.handle_all()

    assert events_said(caplog) == ["core file refused"] * 2


def test_a_core_that_is_still_being_written_waits(house: House) -> None:
    name = house.add()
    with (house.crash_dir / name).open("ab") as writer:
        writer.write(b"more")
        assert not house.handle(name)
        assert house.files() == []

    assert house.handle(name)


def test_a_source_that_is_gone_needs_nothing(house: House) -> None:
    assert house.handle("core.gone")


def test_a_stop_leaves_the_source_and_nothing_else(house: House) -> None:
    name = house.add(NOISE)
    house.is_stopped = True

    house.handle(name)

    assert house.sources() == [name]
    assert house.files() == []


def test_a_name_that_no_disk_has_ends_nothing(house: House) -> None:
    house.handle("core." + "a" * 300)

    assert house.files() == []


@pytest.mark.parametrize(
    "facts",
    [{"pid": -1}, {"pid": 10**60}, {"crashed_at": -1}, {"comm": "\0"}, {"hostname": "a\nb" * 99}],
)
def test_a_hostile_message_costs_no_core(house: House, facts: dict[str, Any]) -> None:
    name = house.add()

    try:
        told = CrashItem.from_wire(item(**facts).to_wire())
    except MessageError:
        told = None
    house.handle(name, told)

    [record] = house.store.records()
    verify(house.settings.store_dir, record)
    assert CoreName.parse(record.name)


def test_a_core_from_before_the_epoch_has_a_name_that_can_be_read(house: House) -> None:
    (house.crash_dir / "core").write_bytes(b"a core")
    os.utime(house.crash_dir / "core", (-5, -5))

    house.handle_all()

    [record] = house.store.records()
    assert CoreName.parse(record.name).process == "unknown"


def test_two_crashes_with_one_name_are_two_cores(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=0))

    one = house.crash(content=b"one")
    other = house.crash(content=b"other")

    assert one.name != other.name
    assert content_of_core(house, one.name) == b"one"
    assert content_of_core(house, other.name) == b"other"


def test_a_file_called_core_is_a_new_crash_each_time(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=0))
    for content in (b"one", b"other"):
        (house.crash_dir / "core").write_bytes(content)
        os.utime(house.crash_dir / "core", ns=(CRASHED_AT, CRASHED_AT))
        house.handle_all()

    assert house.states() == ["stored"] * 2


# Limits.


def test_a_held_core_is_counted_told_of_and_let_go(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=1))
    house.crash(at=0)

    for second in (1, 2, 3):
        house.crash(at=second)

    assert house.states() == ["stored", "held"]
    held = house.store.records()[1]
    assert (held.count, held.reason) == (3, "the limit of 1 cores of this process is reached")
    assert (held.crashed_at, held.last_crashed_at) == (CRASHED_AT + 10**9, CRASHED_AT + 3 * 10**9)
    assert [event.kind for event in house.told] == ["stored", "held", "held", "held"]
    assert house.sources() == []


def test_a_limit_is_that_of_one_process(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=1))

    for process, host in (("a", "x-0"), ("b", "x-0"), ("a", "y-0")):
        house.crash(process=process, host=host)

    assert house.states() == ["stored"] * 3


def test_a_pod_that_is_replaced_after_each_crash_does_not_escape(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=1))

    for second, pod in enumerate(("tmm-pn4tq", "tmm-x7k2p", "tmm-bdz8v")):
        house.crash(at=second, host=pod)

    assert house.states() == ["stored", "held"]


def test_the_limit_survives_a_restart(open_house: Open) -> None:
    keep = Retention(cores_max_files=2, retention_interval=INTERVAL)
    for second in (0, 1, 2, 3):
        open_house(keep=keep).crash(at=second)

    house = open_house(keep=keep)
    house.crash(at=1 + INTERVAL)

    assert house.states() == ["stored", "stored", "held", "stored"]


def test_rotation_replaces_the_oldest(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=2, rotate=True))

    for second in (0, 1, 1000, 1001):
        house.crash(at=second)

    assert house.states() == ["removed", "removed", "stored", "stored"]
    assert len([name for name in house.files() if name.endswith(".gz")]) == 2
    assert [event.kind for event in house.told] == [
        *("stored", "stored"),
        *("removed", "stored", "removed", "stored"),
    ]


def test_a_new_row_of_held_cores_begins_after_a_kept_one(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=1))

    for second in (0, 1, 2, 1000, 1001):
        house.crash(at=second)

    assert house.states() == ["stored", "held", "stored", "held"]
    assert [r.count for r in house.store.records() if r.state == "held"] == [2, 1]


def test_a_held_crash_is_counted_once_also_if_it_is_killed_before_its_source_is_gone(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Retention(cores_max_files=1)
    house = open_house(keep=keep)
    house.crash(at=0)
    for second in (1, 2):
        name = house.add(at=second)
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(sources, "remove_source", dies)
            house.handle(name)
        assert house.sources() == [name]
        house = open_house(keep=keep)
        house.handle_all()

    assert house.sources() == []
    assert [record.count for record in house.store.records()] == [1, 2]


def dies(*_: object) -> None:
    raise Killed


# Sources that stay.


def test_a_source_that_stays_is_converted_once(open_house: Open) -> None:
    open_house(delete_src=False).add()

    told = []
    for _ in range(3):
        house = open_house(delete_src=False)
        for _ in range(2):
            house.handle_all()
        told += [event.kind for event in house.told]

    assert len(house.sources()) == 1
    assert house.states() == ["stored"]
    assert told == ["stored"]


def test_a_source_that_stays_is_not_converted_again_once_its_core_was_removed(
    open_house: Open,
) -> None:
    house = open_house(delete_src=False)
    house.add()
    house.handle_all()
    house.worker.remove(house.store.records()[0], "older than COREMON_RETENTION")
    house.handle_all()

    house = open_house(delete_src=False)
    house.handle_all()

    assert house.states() == ["removed"]
    assert len(house.sources()) == 1


def test_held_sources_that_stay_are_counted_once(open_house: Open) -> None:
    keep = Retention(cores_max_files=1)
    house = open_house(delete_src=False, keep=keep)
    for second in range(4):
        house.add(at=second)
    for _ in range(3):
        house = open_house(delete_src=False, keep=keep)
        house.handle_all()

    assert [(record.state, record.count) for record in house.store.records()] == [
        ("stored", 1),
        ("held", 3),
    ]


def test_a_source_that_changes_is_a_new_crash(open_house: Open) -> None:
    house = open_house(delete_src=False)
    house.add(b"one")
    house.handle_all()
    house.add(b"another")
    house.handle_all()

    assert house.states() == ["stored"] * 2


def test_sources_go_once_they_may(open_house: Open) -> None:
    house = open_house(delete_src=False)
    house.add()
    house.handle_all()

    house = open_house(delete_src=True)
    house.handle_all()

    assert house.sources() == []
    assert house.states() == ["stored"]


def test_a_container_that_renames_itself_at_each_crash_is_held_and_counted_as_one(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house(keep=Retention(cores_max_files=3))

    # As far as limits go, this host is a container.
    monkeypatch.setattr(retain, "MOST_OF_A_HOST", retain.MOST_NAMES)

    for number in range(retain.MOST_NAMES + 40):
        house.now += NANOSECONDS
        house.crash(process=f"a{number}", at=number)

    records = house.store.records()
    [held] = [record for record in records if record.state == "held"]
    assert len(records) == retain.MOST_NAMES + 3 + 1
    assert held.count == 40 - 3
    assert house.crash(process="a0", at=100).state == "stored"


def test_a_guess_uses_up_no_limit_of_the_pod_and_has_nobody_turned_away(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house(keep=Retention(cores_max_files=1))
    find = house.worker._identifier.whose

    def guess(*args: Any, **keywords: Any) -> Whose:
        return replace(find(*args, **keywords), identity=Identity(by="guess"))

    with monkeypatch.context() as posing:
        posing.setattr(house.worker._identifier, "whose", guess)
        states = [house.crash(at=second).state for second in range(2)]

    assert states == ["stored", "held"]
    assert not HoldsFile(house.settings.run_dir).any_at(house.now)
    assert house.crash(at=2).state == "stored"


def test_what_the_api_tells_of_on_a_full_disk_is_written_down_later(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    facts = PodFacts(uid="u")
    house.crash()
    monkeypatch.setattr(house.worker._identifier, "complete", lambda *_: facts)

    def fail(_: CrashRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(house.store, "save", fail)
        for _ in range(3):
            house.worker.look_around()
    house.worker.look_around()

    assert [record.kubernetes for record in house.store.records()] == [facts]
    assert events_said(caplog).count("record not brought up to date") == 1


# Space.


def test_a_quota_is_kept_by_those_with_most_cores(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=0, max_use=4 * BLOCK))
    house.crash(content=NOISE, process="quiet", at=0)

    for second in range(1, 6):
        house.crash(content=NOISE, process="loud", at=second)

    left = [r.process for r in house.store.records() if r.state == "stored"]
    assert sorted(left) == ["loud", "loud", "quiet"]
    assert {r.reason for r in house.store.records() if r.state == "removed"} == {
        "made room for another"
    }


def test_a_core_larger_than_the_quota_is_held_and_costs_nobody_theirs(open_house: Open) -> None:
    house = open_house(keep=Retention(max_use=2 * BLOCK))
    house.crash(content=NOISE, process="quiet")

    held = house.crash(content=NOISE * 3, process="giant")

    assert (held.state, held.reason) == ("held", "there is no space for it")
    assert (held.stored_at, held.packed, held.crc32, held.window) == (None, 0, "", 0)
    assert house.states() == ["held", "stored"]
    assert house.sources() == []
    assert [name for name in house.files() if name.endswith(".tmp")] == []


def test_a_disk_that_must_keep_more_free_holds(open_house: Open) -> None:
    house = open_house(keep_free=2**62)

    held = house.crash()

    assert (held.state, held.reason) == ("held", "there is no space for it")


def test_a_full_disk_leaves_the_source_and_nothing_else(
    tmp_path: Path, open_house: Open, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cores").mkdir()
    with small_disk(tmp_path / "cores", BLOCK), House(tmp_path) as house:
        name = house.add(NOISE * 2)
        for _ in range(3):
            assert not house.handle(name)

        assert house.sources() == [name]
        assert house.files() == []
        assert [(event.kind, event.reason) for event in house.told] == [
            ("failed", "the disk is full")
        ]
        assert house.worker.failing() == ["the disk is full"]

        (house.crash_dir / name).write_bytes(b"less")

        assert house.handle(name)
        assert house.worker.failing() == []
    assert events_said(caplog).count("core could not be stored") == 1


def test_a_source_that_is_refused_does_not_fail_any_more(tmp_path: Path) -> None:
    (tmp_path / "cores").mkdir()
    with small_disk(tmp_path / "cores", BLOCK), House(tmp_path) as house:
        name = house.add(NOISE * 2)
        assert not house.handle(name)
        (house.crash_dir / name).unlink()
        (house.crash_dir / name).symlink_to("/etc/passwd")

        assert house.handle(name)

        assert house.worker.failing() == []


@pytest.mark.parametrize("pages", range(1, 8))
def test_a_disk_that_fills_at_any_step_leaves_the_source_and_nothing_else(
    tmp_path: Path, pages: int
) -> None:
    (tmp_path / "cores").mkdir()
    with small_disk(tmp_path / "cores", 64 * 1024), House(tmp_path) as house:
        filler = house.settings.store_dir / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - pages * 4096)
        name = house.add(b"a core")

        is_done = house.handle(name)

        kept = [f"core.f5-observer-0.f5-observer.observer.9.{CRASHED_AT}.gz"] * is_done
        assert [n for n in house.files() if n.endswith(".gz")] == kept
        assert len(house.files()) == 1 + 3 * is_done
        assert house.sources() == [name] * (not is_done)


@pytest.mark.parametrize("pages", range(4))
def test_on_a_full_disk_also_what_belongs_beside_a_core_has_room_made(
    tmp_path: Path, pages: int
) -> None:
    """Of cores of one size, the oldest leaves as much as the new one takes, and no more."""
    (tmp_path / "cores").mkdir()
    keep = Retention(cores_max_files=0)
    content = NOISE[: 5 * 4096]
    with small_disk(tmp_path / "cores", 2**18), House(tmp_path, keep=keep, keep_free=1) as house:
        for second in range(4):
            house.crash(content=content, at=second)
        with (tmp_path / "cores" / "theirs").open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - pages * 4096)
        name = house.add(content, at=9)

        assert house.handle(name)

        assert house.sources() == []
        assert "failed" not in {event.kind for event in house.told}
        newest = max(house.store.records(), key=lambda record: record.crashed_at)
        assert newest.state == "stored"
        verify(house.settings.store_dir, newest)


def test_a_core_whose_name_is_no_text_fails_like_others(tmp_path: Path) -> None:
    (tmp_path / "cores").mkdir()
    with small_disk(tmp_path / "cores", BLOCK), House(tmp_path) as house:
        name = house.add(NOISE * 2, process=os.fsdecode(b"\xff"))

        assert not house.handle(name)

        assert [event.kind for event in house.told] == ["failed"]
        assert house.sources() == [name]


def test_a_core_whose_name_is_no_text_is_stored_like_others(house: House) -> None:
    record = house.crash(process=os.fsdecode(b"\xff\n"))

    assert record.process == "\\xff\n"
    verify(house.settings.store_dir, record)


# Kills.


@pytest.mark.parametrize("kill_at", range(25))
@pytest.mark.parametrize("delete_src", [True, False])
def test_a_kill_at_any_change_of_the_disk_loses_nothing_and_doubles_nothing(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, kill_at: int, delete_src: bool
) -> None:
    house = open_house(delete_src=delete_src)
    name = house.add(told=item())
    with suppress(Killed), Killer(monkeypatch, kill_at):
        house.handle(name)

    house = open_house(delete_src=delete_src)
    house.handle_all()

    [record] = house.store.records()
    assert (record.state, record.count, record.exe) == ("stored", 1, "/usr/bin/observer")
    assert content_of_core(house, record.name) == b"a core"
    verify(house.settings.store_dir, record)
    assert len(house.files()) == 3
    assert bool(house.sources()) == (not delete_src)


@pytest.mark.parametrize("kill_at", range(20))
def test_a_kill_while_a_crash_is_held_counts_it_once(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    keep = Retention(cores_max_files=1)
    house = open_house(keep=keep)
    for second in (0, 1):
        house.crash(at=second)
    name = house.add(at=2)
    with suppress(Killed), Killer(monkeypatch, kill_at):
        house.handle(name)

    house = open_house(keep=keep)
    house.handle_all()

    assert [(record.state, record.count) for record in house.store.records()] == [
        ("stored", 1),
        ("held", 2),
    ]
    assert house.sources() == []


@pytest.mark.parametrize("kill_at", range(30))
def test_a_kill_while_a_core_replaces_another_keeps_one_of_them_at_least(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    keep = Retention(cores_max_files=1, rotate=True)
    house = open_house(keep=keep)
    house.crash(at=0, content=b"old")
    name = house.add(b"new", at=1000)
    with suppress(Killed), Killer(monkeypatch, kill_at):
        house.handle(name)

    house = open_house(keep=keep)
    house.handle_all()

    assert house.states() == ["removed", "stored"]
    assert [n for n in house.files() if n.endswith(".tmp")] == []
    [stored] = [record for record in house.store.records() if record.state == "stored"]
    assert content_of_core(house, stored.name) == b"new"


@pytest.mark.parametrize("delete_src", [True, False])
def test_a_core_that_was_about_to_appear_when_the_node_went_down_is_not_lost(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, delete_src: bool
) -> None:
    house = open_house(delete_src=delete_src)
    name = house.add()
    last_rename = os.rename

    def dies_at_the_last(old: str, new: str, **keywords: Any) -> None:
        if new.endswith(".gz"):
            raise Killed
        last_rename(old, new, **keywords)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(os, "rename", dies_at_the_last)
        house.handle(name)
    for path in house.settings.store_dir.glob("*.json"):
        text = path.read_text()
        device = os.stat(house.crash_dir).st_dev
        path.write_text(text.replace(f'"device": {device}', f'"device": {device + 1}'))

    house = open_house(delete_src=delete_src)
    house.handle_all()

    [record] = house.store.records()
    assert record.state == "stored"
    assert content_of_core(house, record.name) == b"a core"


def spooled(house: House, core: bytes, **told: Any) -> str:
    """Put a source there that crashagent has packed; give its name."""
    with memory_file(core) as source, memory_file() as target, Crew(1) as crew:
        packed = pack(FileSource(source), target, CODECS["gzip"], crew)
        content = content_of(target)
    facts: dict[str, Any] = {"encoding": "gzip", "packed": packed, **told}
    return house.add(content, told=item(**facts))


def test_what_crashagent_packed_is_taken_over_as_it_is(house: House) -> None:
    name = spooled(house, NOISE + bytes(BLOCK))
    inode = (house.crash_dir / name).stat().st_ino

    assert house.handle(name)

    [record] = house.store.records()
    core = house.settings.store_dir / record.core
    assert (record.size, record.data, record.truncated) == (2 * BLOCK, BLOCK, False)
    assert (core.stat().st_ino, core.stat().st_nlink) == (inode, 1)
    verify(house.settings.store_dir, record)
    assert house.sources() == []


def test_nobody_but_crashagent_can_say_that_a_source_is_packed(house: House) -> None:
    name = house.add(b"raw")
    packed = Packed(size=99, data=99, packed=3, crc32=zlib.crc32(b"raw"))

    assert house.handle(name, item(encoding="gzip", packed=packed))

    [record] = house.store.records()
    assert record.size == 3
    verify(house.settings.store_dir, record)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_what_is_packed_otherwise_is_packed_anew(open_house: Open, codec: str) -> None:
    house = open_house(codec=codec)
    name = spooled(house, NOISE + b"tail")

    assert house.handle(name)

    [record] = house.store.records()
    assert (record.codec, record.size) == (codec, BLOCK + 4)
    assert record.core.endswith({"zstd": ".zst", "lz4": ".lz4"}[codec])
    verify(house.settings.store_dir, record)


def test_a_source_that_is_not_what_crashagent_packed_is_not_taken_over(house: House) -> None:
    name = spooled(house, NOISE, packed=Packed(size=BLOCK, data=BLOCK, packed=9, crc32=9))

    assert house.handle(name)

    [record] = house.store.records()
    assert (record.size, record.truncated) == (BLOCK, False)
    verify(house.settings.store_dir, record)


@pytest.mark.parametrize("kill_at", range(24))
def test_a_kill_while_a_source_is_taken_over_loses_nothing_and_stores_it_once(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    house = open_house()
    name = spooled(house, NOISE)
    with suppress(Killed), Killer(monkeypatch, kill_at):
        house.handle(name)

    house = open_house()
    house.handle_all()

    [record] = house.store.records()
    assert (house.states(), house.sources()) == (["stored"], [])
    assert (house.settings.store_dir / record.core).stat().st_nlink == 1
    verify(house.settings.store_dir, record)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x1f\x8b\x08 is no gzip", "kept as it came: damaged gzip"),
        (b"\x28\xb5\x2f\xfd?", "damaged zstd"),
    ],
)
def test_what_only_seems_packed_is_kept_as_it_came(house: House, content: bytes, why: str) -> None:
    record = house.crash(content=content)

    assert (record.elf, record.truncated) == (False, True)
    assert why in record.truncated_why
    assert content_of_core(house, record.name) == content


def test_a_packed_source_that_breaks_off_is_kept_as_far_as_it_goes(house: House) -> None:
    core = elf_core(memory=NOISE * 3)
    record = house.crash(content=gzip.compress(core)[: 2 * BLOCK])

    kept = content_of_core(house, record.name)
    assert (record.state, record.pid, record.truncated) == ("stored", 9, True)
    assert "at byte" in record.truncated_why
    assert core.startswith(kept)
    assert len(kept) > BLOCK


def test_a_bomb_is_cut_where_a_core_may_not_be_longer(open_house: Open) -> None:
    house = open_house(max_core=BLOCK)
    record = house.crash(content=lzma.compress(bytes(100 * BLOCK)))

    assert (record.size, record.truncated) == (64 * BLOCK, True)
    assert record.truncated_why == f"it is longer than {64 * BLOCK} bytes"


def test_cores_of_one_process_that_are_converted_at_once_count_for_its_limit(
    open_house: Open,
) -> None:
    house = open_house(keep=Retention(cores_max_files=2, retention_interval=INTERVAL))
    names = [house.add(NOISE * 4, at=number, pid=number + 1) for number in range(8)]

    with ThreadPoolExecutor(8) as lanes:
        assert all(lanes.map(house.handle, names))

    assert sorted(record.window for record in house.store.records()) == [0, 1, 2]
    assert sorted(house.states()) == ["held", "stored", "stored"]
    assert [r.count for r in house.store.records() if r.state == "held"] == [6]


def test_cores_that_replace_others_at_once_replace_each_only_one(open_house: Open) -> None:
    house = open_house(keep=Retention(cores_max_files=2, retention_interval=0, rotate=True))
    for number in range(2):
        house.crash(at=number, pid=number + 1)
    names = [house.add(NOISE * 4, at=10 + number, pid=number + 11) for number in range(6)]

    with ThreadPoolExecutor(6) as lanes:
        assert all(lanes.map(house.handle, names))

    assert house.states().count("stored") == 2
    assert len([name for name in house.files() if name.endswith(".gz")]) == 2
