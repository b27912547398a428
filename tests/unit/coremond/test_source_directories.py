"""Directories of others beside our own, each with its rule."""

import errno
import gzip
import os
import random
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
import zmq

from common.corestore import verify
from common.daemon import Stop
from common.record import CrashRecord
from services.coremond import loop, sources
from services.coremond.file_pattern import FilePattern
from services.coremond.loop import Loop
from services.coremond.settings import Retention
from services.coremond.watch import Directory, Found, SourceDirectory
from tests.unit.factories import (
    CRASHED_AT,
    House,
    elf_core,
    events_said,
    in_place_of_a_file,
    item,
)

BOOT = "0123456789abcdef0123456789abcdef"
NOISE = random.Random(7).randbytes(3000)
HOUR = 3600
CORE = f"core.observer.9.h.{CRASHED_AT}"
SYSTEMD = f"core.observer.1000.{BOOT}.4711.1742738615000000"
APPORT = f"core._usr_bin_observer.1000.{BOOT}.4711.123456"
REPORT = "_usr_bin_observer.1000.crash"
TEXTS = b"""ProblemType: Crash
Date: Sun Mar 23 14:03:35 2025
ExecutablePath: /usr/bin/observer
ProcStatus:
 Name:\tobserver
 Pid:\t4711
 Uid:\t1000\t1000\t1000\t1000
Signal: 6
Uname: Linux 6.8.0-45-generic x86_64
"""


class Open(Protocol):
    def __call__(self, **settings: Any) -> House: ...


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens a house with all directories; those of others are not made."""
    with ExitStack() as stack:

        def open_it(**settings: Any) -> House:
            stack.close()
            named = {
                "systemd_dir": tmp_path / "systemd",
                "apport_reports": tmp_path / "crash",
                "apport_cores_dir": tmp_path / "apport",
                "keep": Retention(cores_max_files=0),
            }
            return stack.enter_context(House(tmp_path, **{**named, **settings}))

        yield open_it


@pytest.fixture
def house(open_house: Open, tmp_path: Path) -> House:
    for name in "systemd", "apport":
        (tmp_path / name).mkdir()
    return open_house()


def report(core: bytes) -> bytes:
    unit = b64encode(zlib.compress(core))
    return TEXTS + b"CoreDump: base64\n " + unit + b"\n"


def only_record(house: House) -> CrashRecord:
    house.handle_all()
    [record] = house.store.records()
    return record


def content_of_core(house: House, record: CrashRecord) -> bytes:
    verify(house.settings.store_dir, record)
    return gzip.decompress((house.settings.store_dir / record.core).read_bytes())


def test_what_systemd_stored_is_taken_with_what_it_says(house: House, tmp_path: Path) -> None:
    core = elf_core(pid=9)
    (tmp_path / "systemd" / SYSTEMD).write_bytes(core)

    record = only_record(house)

    assert content_of_core(house, record) == core
    assert (record.arrived, record.pid, record.host_pid) == ("systemd", 9, 4711)
    assert (record.uid, record.owner) == (1000, 1000)
    assert record.crashed_at == 1_742_738_615 * 10**9


def test_a_core_in_a_report_is_taken_with_what_the_report_says(house: House) -> None:
    core = elf_core(memory=NOISE)
    (house.crash_dir / REPORT).write_bytes(report(core))

    record = only_record(house)

    assert content_of_core(house, record) == core
    assert (record.arrived, record.state) == ("apport-report", "stored")
    assert (record.pid, record.host_pid, record.signal) == (9, 4711, 6)
    assert (record.exe, record.size) == ("/usr/bin/observer", len(core))
    assert record.details == {"Uname": "Linux 6.8.0-45-generic x86_64"}


def test_what_apport_wrote_by_ulimit_is_taken(house: House, tmp_path: Path) -> None:
    (tmp_path / "apport" / APPORT).write_bytes(b"no elf core")

    record = only_record(house)

    assert content_of_core(house, record) == b"no elf core"
    assert (record.arrived, record.process) == ("file", "usr_bin_observer")
    assert (record.pid, record.host_pid, record.uid) == (4711, 4711, 1000)


def test_reports_and_cores_in_one_directory_are_each_taken_as_what_they_are(house: House) -> None:
    house.add(elf_core())
    (house.crash_dir / REPORT).write_bytes(report(elf_core()))
    for sibling in ("upload", "uploaded", "hanging"):
        (house.crash_dir / f"_usr_bin_observer.1000.{sibling}").touch()

    house.handle_all()

    assert sorted(record.arrived for record in house.store.records()) == ["apport-report", "file"]
    assert house.sources() == sorted(
        f"_usr_bin_observer.1000.{end}" for end in ("crash", "upload", "uploaded", "hanging")
    )


def test_reports_are_left_where_nobody_asked_for_them(open_house: Open) -> None:
    house = open_house(apport_reports=None)
    (house.crash_dir / REPORT).write_bytes(report(elf_core()))

    house.handle_all()

    assert house.store.records() == []


def test_not_even_a_pattern_makes_a_core_of_a_report(open_house: Open) -> None:
    house = open_house(apport_reports=None, source_pattern=FilePattern("%e.%p.%h"))
    for name in (REPORT, "_usr_bin_observer.1000.upload", "observer.7.host"):
        (house.crash_dir / name).write_bytes(b"x")

    house.handle_all()

    assert [(record.process, record.pid) for record in house.store.records()] == [("observer", 7)]


def test_a_report_that_is_still_being_written_waits(house: House) -> None:
    path = house.crash_dir / REPORT
    path.write_bytes(report(elf_core())[:-100])
    path.chmod(0)
    reports = next(d for d in house.directories if d.kind.is_source(REPORT))
    assert not house.worker.handle(Found(reports, REPORT), None)
    assert house.store.records() == []

    path.write_bytes(report(elf_core()))
    path.chmod(0o640)

    assert content_of_core(house, only_record(house)) == elf_core()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXTS, "there is no CoreDump in it"),
        (TEXTS + b"CoreDump: base64\n", "its CoreDump is empty"),
        (TEXTS + b"CoreDump: base64\n !!!!\n", "damaged apport-report"),
        (TEXTS + b"CoreDump: base64\n R0lGODlh\n", "packed in no known way"),
        (TEXTS + b"CoreDump: none\n", "is not base64"),
        (b"", "it is no report of Apport's"),
        (elf_core(), "it is no report of Apport's"),
        (gzip.compress(TEXTS, mtime=0), "it is no report of Apport's"),
    ],
)
@pytest.mark.parametrize("deletes", [True, False])
def test_a_report_of_which_no_core_can_be_had_ends_in_a_record(
    open_house: Open, content: bytes, reason: str, deletes: bool
) -> None:
    house = open_house(delete_foreign_src=deletes)
    (house.crash_dir / REPORT).write_bytes(content)

    for _ in range(2):
        house.handle_all()
    house = open_house(delete_foreign_src=deletes)
    record = only_record(house)

    assert (record.state, record.count, record.size) == ("held", 1, 0)
    assert record.arrived == "apport-report"
    assert reason in record.reason
    assert house.files() == [f"{record.name}.json"]
    assert house.sources() == ([] if deletes else [REPORT])


def test_a_report_with_half_a_core_is_kept_as_far_as_it_goes(house: House) -> None:
    core = elf_core(memory=NOISE)
    whole = report(core)
    (house.crash_dir / REPORT).write_bytes(whole[: len(whole) - 1200])

    record = only_record(house)

    kept = content_of_core(house, record)
    assert (record.state, record.truncated, record.pid) == ("stored", True, 9)
    assert core.startswith(kept)
    assert len(kept) > 1000


def test_a_report_whose_texts_are_damaged_still_gives_its_core(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    (house.crash_dir / REPORT).write_bytes(report(elf_core()) + b"no key's line\n")

    record = only_record(house)

    assert content_of_core(house, record) == elf_core()
    assert (record.arrived, record.host_pid, record.exe) == ("apport-report", None, "")
    assert "apport report unreadable" in events_said(caplog)


@pytest.mark.parametrize("has_core", [True, False])
def test_a_report_to_which_something_is_added_is_still_one_crash(
    open_house: Open, has_core: bool
) -> None:
    house = open_house()
    path = house.crash_dir / REPORT
    path.write_bytes(report(elf_core()) if has_core else TEXTS)
    house.handle_all()
    for number in range(3):
        with path.open("ab") as file:
            file.write(b"Added%d: later\n" % number)
        house.handle_all()
        house = open_house()
        house.handle_all()

    [record] = house.store.records()
    assert (record.count, len(record.sources)) == (1, 1)
    assert record.state == ("stored" if has_core else "held")
    assert record.sources[0].size == path.stat().st_size


def test_a_new_report_in_the_place_of_an_old_one_is_a_new_crash(house: House) -> None:
    path = house.crash_dir / REPORT
    path.write_bytes(report(elf_core()))
    house.handle_all()

    path.write_bytes(report(elf_core()).replace(b"Pid:\t4711", b"Pid:\t4712"))
    house.handle_all()

    assert sorted(record.host_pid or 0 for record in house.store.records()) == [4711, 4712]


@pytest.mark.parametrize(("directory", "name"), [("systemd", SYSTEMD), ("apport", APPORT)])
def test_what_is_not_ours_stays_and_is_taken_once(
    open_house: Open, tmp_path: Path, directory: str, name: str
) -> None:
    path = tmp_path / directory / name
    path.parent.mkdir()
    path.write_bytes(elf_core())

    told = []
    for _ in range(3):
        house = open_house()
        for _ in range(2):
            house.handle_all()
        told += [event.kind for event in house.told]

    assert told == ["stored"]
    assert path.read_bytes() == elf_core()


def test_what_is_not_ours_goes_where_that_is_asked_for(open_house: Open, tmp_path: Path) -> None:
    house = open_house(delete_foreign_src=True, delete_src=False)
    (tmp_path / "systemd").mkdir()
    for path in (tmp_path / "systemd" / SYSTEMD, house.crash_dir / REPORT):
        path.write_bytes(report(elf_core()) if path.name == REPORT else elf_core())
    ours = house.add(elf_core())

    house.handle_all()

    assert house.states() == ["stored"] * 3
    assert os.listdir(tmp_path / "systemd") == []
    assert house.sources() == [ours]


def test_a_source_that_was_replaced_meanwhile_is_not_deleted_for_the_one_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = house.add(b"one")
    publish = house.store.publish

    def replaced(record: CrashRecord) -> None:
        (house.crash_dir / "new").write_bytes(b"another")
        (house.crash_dir / "new").rename(house.crash_dir / name)
        publish(record)

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "publish", replaced)
        house.handle(name)
    assert house.sources() == [name]
    house.handle_all()

    assert house.sources() == []
    assert sorted(content_of_core(house, r) for r in house.store.records()) == [b"another", b"one"]


@pytest.mark.parametrize("deletes", [True, False])
def test_retention_deletes_in_directories_of_others_only_where_that_is_asked_for(
    open_house: Open, tmp_path: Path, deletes: bool
) -> None:
    keep = Retention(retention=HOUR)
    (tmp_path / "systemd").mkdir()
    house = open_house(keep=keep, delete_foreign_src=deletes)
    old = [house.crash_dir / REPORT, tmp_path / "systemd" / SYSTEMD, house.crash_dir / "core.old"]
    for path in old:
        path.touch()
        os.utime(path, (0, 0))

    house.sweep()

    left = [path for path in old if path.exists()]
    assert left == ([] if deletes else old[:2])


def test_one_user_cannot_use_up_the_limit_of_another_by_way_of_systemd(
    open_house: Open, tmp_path: Path
) -> None:
    house = open_house(keep=Retention(cores_max_files=1))
    (tmp_path / "systemd").mkdir()
    for number, uid in enumerate((1000, 1000, 0)):
        name = f"core.observer.{uid}.{BOOT}.{number}.{1742738615000000 + number}"
        (tmp_path / "systemd" / name).write_bytes(b"a core")

    house.handle_all()

    states = [(record.uid, record.state) for record in house.store.records()]
    assert sorted(states) == [(0, "stored"), (1000, "held"), (1000, "stored")]


def test_a_source_that_cannot_be_deleted_is_taken_once_and_costs_nothing_else(
    open_house: Open,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(sources, "remove_source", refuse)
    house = open_house(delete_foreign_src=True, keep=Retention(retention=HOUR))
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / SYSTEMD).write_bytes(elf_core())
    os.utime(tmp_path / "systemd" / SYSTEMD, (0, 0))

    for _ in range(4):
        house.handle_all()
        house.sweep()

    assert house.states() == ["stored"]
    assert "source could not be deleted" in events_said(caplog)
    assert "core could not be stored" not in events_said(caplog)


@in_place_of_a_file
@pytest.mark.parametrize(
    ("directory", "name"), [("systemd", SYSTEMD), ("crash", REPORT), ("apport", APPORT)]
)
def test_what_is_no_plain_file_is_refused_in_every_directory(
    house: House,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], object],
    directory: str,
    name: str,
) -> None:
    make(tmp_path / directory / name)

    for _ in range(3):
        house.handle_all()

    assert events_said(caplog) == ["core file refused"]
    assert house.files() == []


def test_a_directory_that_comes_later_is_taken_from_and_one_that_is_replaced_is_followed(
    open_house: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = open_house()
    house.handle_all()
    for number in range(3):
        (tmp_path / "systemd").mkdir()
        name = f"core.x.0.{BOOT}.{number}.{1742738615000000 + number}"
        (tmp_path / "systemd" / name).write_bytes(b"a core")
        house.handle_all()
        (tmp_path / "systemd").rename(tmp_path / f"old-{number}")
        house.handle_all()

    assert house.states() == ["stored"] * 3
    assert "source directory not read" not in events_said(caplog)


def test_our_own_directory_is_made_again(house: House) -> None:
    house.spool.rmdir()
    house.crash_dir.rmdir()

    house.handle_all()

    assert house.crash_dir.stat().st_mode & 0o7777 == 0o1777


def test_what_cannot_be_a_directory_is_said_once(
    open_house: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "systemd").write_bytes(b"a file")
    house = open_house()
    for _ in range(3):
        house.handle_all()
    (tmp_path / "systemd").unlink()
    house.handle_all()
    (tmp_path / "systemd").write_bytes(b"a file again")

    house.handle_all()

    assert events_said(caplog) == ["source directory not read"] * 2


def changed_by(directory: Directory, change: Callable[[], object]) -> set[str] | None:
    assert isinstance(directory, SourceDirectory)
    directory.changed()
    change()
    return directory.changed()


def test_a_file_that_is_linked_in_is_heard_of(house: House, tmp_path: Path) -> None:
    [systemd] = [d for d in house.directories if d.path == tmp_path / "systemd"]
    unnamed = os.open(tmp_path / "systemd", os.O_TMPFILE | os.O_WRONLY)
    os.write(unnamed, b"a core")

    def link() -> None:
        os.link(f"/proc/self/fd/{unnamed}", SYSTEMD, dst_dir_fd=systemd.descriptor)
        os.close(unnamed)

    assert changed_by(systemd, link) == {SYSTEMD}


def test_each_directory_hears_of_its_own_sources_only(house: House, tmp_path: Path) -> None:
    def write() -> None:
        for path in (
            *(house.crash_dir / REPORT, house.crash_dir / "core.x", house.crash_dir / ".#core"),
            *(tmp_path / "systemd" / "core.x", tmp_path / "systemd" / f".#{SYSTEMD}"),
        ):
            path.touch()

    house.directories.changed()
    write()

    found, everything = house.directories.changed()

    assert not everything
    assert {(f.directory.kind.is_hidden, f.name) for f in found} == {
        (True, REPORT),
        (False, "core.x"),
    }


def test_a_directory_that_is_moved_away_has_all_looked_through(
    house: House, tmp_path: Path
) -> None:
    path = tmp_path / "systemd"
    (path / SYSTEMD).touch()
    [systemd] = [directory for directory in house.directories if directory.path == path]

    assert changed_by(systemd, lambda: path.rename(tmp_path / "away")) is None
    assert systemd.names() == set()


@pytest.mark.parametrize(
    ("path", "is_source"),
    [
        (f"crash/{REPORT}", True),
        (f"crash/core.observer.9.h.{CRASHED_AT}", True),
        (f"systemd/{SYSTEMD}", True),
        (f"apport/{APPORT}", True),
        ("systemd/core.x", False),
        (f"systemd/../systemd/{SYSTEMD}", False),
        (f"crash/sub/{REPORT}", False),
        ("crash/", False),
        (REPORT, False),
    ],
)
def test_an_item_can_name_a_source_of_any_directory(
    house: House, tmp_path: Path, path: str, is_source: bool
) -> None:
    found = house.directories.find(f"{tmp_path}/{path}")

    assert (found is not None) is is_source
    if found:
        assert found.path == f"{tmp_path}/{path}"


def test_what_a_message_says_of_a_source_of_others_does_not_count(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "systemd" / SYSTEMD).write_bytes(b"a core")
    found = house.directories.find(str(tmp_path / "systemd" / SYSTEMD))
    assert found is not None

    house.worker.handle(found, item(comm="forged", encoding="gzip"))

    [record] = house.store.records()
    assert (record.process, record.arrived) == ("observer", "systemd")
    assert content_of_core(house, record) == b"a core"


# When all are looked through.


class Noisy:
    """Directories in which something happens all the time: what was completed is *heard* first.

    *stop* is set once they were listened to so often.
    """

    def __init__(self, stop: Stop, heard: set[Found], *, often: int) -> None:
        self._stop = stop
        self._heard = heard
        self._often = often
        self._event = os.eventfd(1, os.EFD_CLOEXEC)
        self.looks: list[int] = []
        """How often they had been listened to when all was looked through."""
        self.heard = 0

    def close(self) -> None:
        os.close(self._event)

    def register(self, poller: zmq.Poller) -> None:
        poller.register(self._event, zmq.POLLIN)

    def changed(self) -> tuple[set[Found], bool]:
        self.heard += 1
        if self.heard >= self._often:
            self._stop.set()
        return (self._heard if self.heard == 2 else set()), True

    def all(self) -> set[Found]:
        self.looks.append(self.heard)
        return set()

    def tidy(self) -> None:
        pass


class Idle:
    """Whatever else a loop uses; *handled* are the sources that a worker was given."""

    def __init__(self) -> None:
        self.handled: list[Found] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: []

    def handle(self, found: Found, _: object) -> bool:
        self.handled.append(found)
        return True


def listen(house: House, *, often: int) -> tuple[Noisy, Idle]:
    """Let a loop run until it has listened so *often*; a core is completed meanwhile."""
    ours, *_ = house.directories
    stop, idle = Stop(), Idle()
    directories = Noisy(stop, {Found(ours, CORE)}, often=often)
    parts: list[Any] = [directories, *[idle] * 4]
    with closing(directories), Loop(*parts, scan_interval=HOUR, sweep_interval=HOUR) as made:
        made.run(stop)
    return directories, idle


def test_what_others_can_cause_has_all_looked_through_once_in_a_while_at_most(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "BETWEEN_SCANS", HOUR)

    directories, idle = listen(house, often=500)

    assert directories.looks == [1]
    assert [found.name for found in idle.handled] == [CORE]


def test_what_happens_in_between_has_all_looked_through_after_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "BETWEEN_SCANS", 0.0)

    directories, _ = listen(house, often=5)

    assert directories.looks == [1, 2, 3, 4, 5]
