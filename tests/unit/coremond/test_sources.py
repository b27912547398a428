import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.files import opened_directory
from common.item import MESSAGE_LIMIT, to_json
from common.naming import SPOOL, sidecar_name
from common.record import Source
from services.coremond import sources
from tests.unit.factories import CRASHED_AT, events_said, in_place_of_a_file, item

NAME = f"core.observer.9.f5-observer-0.{CRASHED_AT}"
SIDECAR = sidecar_name(NAME)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / SPOOL).mkdir(mode=0o700)
    with opened_directory(tmp_path) as descriptor:
        yield descriptor


def test_the_item_beside_a_source_is_read(tmp_path: Path, directory: int) -> None:
    (tmp_path / SPOOL / SIDECAR).write_bytes(to_json(item()))

    assert sources.read_sidecar(directory, NAME) == item()


def test_without_an_item_there_is_none(directory: int, caplog: pytest.LogCaptureFixture) -> None:
    assert sources.read_sidecar(directory, NAME) is None
    assert events_said(caplog) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff" * 99, b" " * MESSAGE_LIMIT + to_json(item())]
)
def test_an_item_that_cannot_be_read_is_refused(
    tmp_path: Path, directory: int, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / SPOOL / SIDECAR).write_bytes(content)

    assert sources.read_sidecar(directory, NAME) is None
    assert events_said(caplog) == ["item file refused"]


def test_an_item_of_another_user_is_refused(
    tmp_path: Path, directory: int, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to give a file to another user")
    (tmp_path / SPOOL / SIDECAR).write_bytes(to_json(item(comm="forged")))
    os.chown(tmp_path / SPOOL / SIDECAR, 12345, 12345)

    assert sources.read_sidecar(directory, NAME) is None
    assert events_said(caplog) == ["item file refused"]


@in_place_of_a_file
def test_what_stands_in_the_place_of_an_item_is_refused(
    tmp_path: Path, directory: int, make: Callable[[Path], object]
) -> None:
    make(tmp_path / SPOOL / SIDECAR)

    assert sources.read_sidecar(directory, NAME) is None


def test_a_source_goes_with_its_item(tmp_path: Path, directory: int) -> None:
    for name in (NAME, f"{SPOOL}/{SIDECAR}", "core.other"):
        (tmp_path / name).touch()

    sources.remove_source(directory, NAME)

    assert sorted(os.listdir(tmp_path)) == [SPOOL, "core.other"]
    assert os.listdir(tmp_path / SPOOL) == []


def described(path: Path) -> Source:
    return Source.of(path.name, path.lstat())


@pytest.mark.parametrize("name", [NAME, os.fsdecode(b"core.\xff%2E\n")])
def test_a_source_is_there_as_long_as_it_is_the_very_file(
    tmp_path: Path, directory: int, name: str
) -> None:
    (tmp_path / name).write_bytes(b"a core")
    source = described(tmp_path / name)

    assert sources.is_there(directory, source)
    (tmp_path / name).write_bytes(b"another core")
    assert not sources.is_there(directory, source)
    (tmp_path / name).unlink()
    assert not sources.is_there(directory, source)


def test_a_source_is_still_there_when_its_disk_has_another_number(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / NAME).write_bytes(b"a core")
    before = described(tmp_path / NAME)

    after_a_restart = replace(before, device=before.device + 1)

    assert sources.is_there(directory, after_a_restart)


@pytest.mark.parametrize("name", ["core%00", "", "%2F", "x" * 999])
def test_a_source_that_cannot_be_is_not_there(directory: int, name: str) -> None:
    source = Source(name=name, device=0, inode=0, size=0, changed_at=0)

    assert not sources.is_there(directory, source)


def swept(directory: int, path: Path) -> list[str]:
    sources.remove_stale_sidecars(directory)
    return sorted(os.listdir(path / SPOOL))


def test_an_item_whose_source_is_gone_goes_too(tmp_path: Path, directory: int) -> None:
    (tmp_path / SPOOL / SIDECAR).touch()

    assert swept(directory, tmp_path) == []


def test_an_item_stays_as_long_as_its_source(tmp_path: Path, directory: int) -> None:
    (tmp_path / NAME).touch()
    (tmp_path / SPOOL / SIDECAR).touch()

    assert swept(directory, tmp_path) == [SIDECAR]


def test_an_item_stays_while_its_core_comes_in(tmp_path: Path, directory: int) -> None:
    part = f".intake.{CRASHED_AT}.part"
    for name in (part, SIDECAR):
        (tmp_path / SPOOL / name).touch()

    assert swept(directory, tmp_path) == sorted([part, SIDECAR])


def test_without_a_spool_there_is_nothing_to_remove(tmp_path: Path, directory: int) -> None:
    (tmp_path / SPOOL).rmdir()

    sources.remove_stale_sidecars(directory)

    assert os.listdir(tmp_path) == []


def test_a_spool_that_is_not_ours_alone_is_not_looked_into(tmp_path: Path, directory: int) -> None:
    (tmp_path / SPOOL / SIDECAR).write_bytes(to_json(item(comm="forged")))
    (tmp_path / SPOOL).chmod(0o777)

    assert sources.read_sidecar(directory, NAME) is None
    assert swept(directory, tmp_path) == [SIDECAR]
