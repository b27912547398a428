import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import files
from common.errors import BusyError, SourceError
from tests.unit.factories import no_plain_files, small_disk, with_files

NOW = 10**9


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with files.opened_directory(tmp_path) as descriptor:
        yield descriptor


@pytest.mark.parametrize(("reason", "make"), no_plain_files.items())
def test_what_is_no_plain_file_is_looked_at_and_never_opened(
    tmp_path: Path,
    directory: int,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Any],
    reason: str,
) -> None:
    make(tmp_path / "core.x")
    opened, really_open = [], os.open

    def noting(path: str, flags: int, *args: Any, **keywords: Any) -> int:
        opened.append(flags)
        return really_open(path, flags, *args, **keywords)

    monkeypatch.setattr(os, "open", noting)
    with pytest.raises(SourceError, match=reason):
        files.open_regular(directory, "core.x")

    assert opened
    assert all(flags & os.O_PATH for flags in opened)


def test_a_device_is_refused() -> None:
    with (
        files.opened_directory(Path("/dev")) as devices,
        pytest.raises(SourceError, match="a character device"),
    ):
        files.open_regular(devices, "null")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x"])
def test_a_name_that_leaves_the_directory_is_refused(directory: int, name: str) -> None:
    with pytest.raises(SourceError, match="is no file name"):
        files.open_regular(directory, name)


def test_a_refusal_leaves_no_descriptor_open(tmp_path: Path, directory: int) -> None:
    os.mkfifo(tmp_path / "core.x")
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(SourceError):
        files.open_regular(directory, "core.x")

    assert set(os.listdir("/proc/self/fd")) == before


def test_a_plain_file_is_opened_for_reading(tmp_path: Path, directory: int) -> None:
    (tmp_path / "core.x").write_bytes(b"content")

    descriptor = files.open_regular(directory, "core.x")

    try:
        assert os.read(descriptor, 99) == b"content"
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_a_missing_file_is_missing(directory: int) -> None:
    with pytest.raises(FileNotFoundError):
        files.open_regular(directory, "core.x")


def test_a_file_that_someone_writes_is_busy_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "core.x"
    with path.open("wb") as writer:
        reader = os.open(path, os.O_RDONLY)
        writer.write(b"some")
        with pytest.raises(BusyError, match="still being written"):
            files.refuse_if_being_written(reader, settled_for=5, now=NOW)

    files.refuse_if_being_written(reader, settled_for=5, now=NOW)

    os.close(reader)


def test_looking_leaves_no_lease_behind(tmp_path: Path) -> None:
    path = tmp_path / "core.x"
    path.touch()
    reader = os.open(path, os.O_RDONLY)

    files.refuse_if_being_written(reader, settled_for=5, now=NOW)

    assert fcntl.fcntl(reader, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    os.close(reader)


@pytest.mark.parametrize(("age", "is_busy"), [(0, True), (4.9, True), (5.1, False)])
def test_where_leases_cannot_tell_a_file_must_have_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, is_busy: bool
) -> None:
    path = tmp_path / "core.x"
    path.touch()
    os.utime(path, (NOW - age, NOW - age))
    reader = os.open(path, os.O_RDONLY)

    def no_leases(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", no_leases)
    try:
        files.refuse_if_being_written(reader, settled_for=5, now=NOW)
        was_busy = False
    except BusyError:
        was_busy = True

    assert was_busy == is_busy
    os.close(reader)


@with_files
@given(st.binary(max_size=9999))
def test_what_is_written_durably_is_there_whole(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("durable")

    with files.opened_directory(path) as directory:
        files.write_durably(directory, "name", data)

    assert os.listdir(path) == ["name"]
    assert (path / "name").read_bytes() == data
    assert stat.S_IMODE((path / "name").stat().st_mode) == 0o600


def test_a_leftover_of_an_earlier_writer_is_in_nobodys_way(tmp_path: Path, directory: int) -> None:
    (tmp_path / ".name.tmp").write_bytes(b"half")

    files.write_durably(directory, "name", b"whole")

    assert os.listdir(tmp_path) == ["name"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / ".name.tmp").symlink_to(tmp_path / "victim")

    files.write_durably(directory, "name", b"whole")

    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_a_full_disk_has_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk, files.opened_directory(disk) as opened:
        files.write_durably(opened, "name", b"old")

        with pytest.raises(OSError, match="No space"):
            files.write_durably(opened, "name", bytes(99999))

        assert os.listdir(disk) == ["name"]
        assert (disk / "name").read_bytes() == b"old"


def test_a_file_that_cannot_get_its_name_leaves_nothing(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name" / "in").mkdir(parents=True)

    with pytest.raises(OSError, match="directory"):
        files.write_durably(directory, "name", b"data")

    assert os.listdir(tmp_path) == ["name"]


def test_a_file_is_read_up_to_its_limit_and_refused_above(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name").write_bytes(b"12345")

    assert files.read_limited(directory, "name", 5) == b"12345"
    with pytest.raises(SourceError, match="larger than 4 bytes"):
        files.read_limited(directory, "name", 4)


def test_removing_says_whether_there_was_anything(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name").touch()

    assert files.exists(directory, "name")
    assert files.remove(directory, "name")
    assert not files.exists(directory, "name")
    assert not files.remove(directory, "name")


def test_a_link_that_leads_nowhere_exists(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name").symlink_to("nowhere")

    assert files.exists(directory, "name")


def test_all_is_written_also_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    write, reading_writing = os.write, os.pipe()
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))

    files.write_all(reading_writing[1], b"0123456789")

    assert os.read(reading_writing[0], 99) == b"0123456789"
    for descriptor in reading_writing:
        os.close(descriptor)


def test_what_is_created_must_not_be_there_yet(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name").symlink_to("elsewhere")

    with pytest.raises(FileExistsError):
        files.create(directory, "name")
