"""What `corectl intake` leaves in the crash directory where crashagent is not there."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from common.naming import is_core_name, read_source_name
from common.packing.sparse import write_data
from services.corectl import intake_file
from services.corectl.intake_words import Facts

MIB = 2**20
FACTS: Facts = {"pid": 9, "hostname": "h", "exe": "/usr/bin/tmm", "crashed_at": 1742738615 * 10**9}


@contextmanager
def sent(core: bytes) -> Iterator[int]:
    """Send *core* through a pipe, as the kernel does."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            pipe.write(core)

    writer = Thread(target=write)
    writer.start()
    yield reading
    os.close(reading)
    writer.join()


def keep(folder: Path, core: bytes, facts: Facts = FACTS, **settings: str) -> Path:
    all_settings = {"COREMON_CRASH_DIR": str(folder), "COREMON_KEEP_FREE": "0", **settings}
    with sent(core) as source:
        return folder / intake_file.keep(facts, all_settings, source)


def test_a_core_is_kept_whole_and_its_zeros_are_holes(tmp_path: Path) -> None:
    core = b"\x7fELF" + os.urandom(5000) + bytes(5 * MIB) + b"end" + bytes(3 * MIB)

    path = keep(tmp_path, core)

    assert path.read_bytes() == core
    assert path.stat().st_blocks * 512 < MIB
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_its_name_is_that_of_the_file_pattern(tmp_path: Path) -> None:
    path = keep(tmp_path, b"core")

    [name] = read_source_name(path.name)
    assert is_core_name(path.name)
    assert (name.process, name.pid, name.host) == ("tmm", 9, "h")
    assert name.crashed_at == FACTS["crashed_at"]


def test_a_name_that_is_taken_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    first, second = keep(tmp_path, b"first"), keep(tmp_path, b"second")

    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert read_source_name(second.name)[0].crashed_at == int(FACTS["crashed_at"]) + 1


def test_a_link_in_the_names_place_is_not_followed(tmp_path: Path) -> None:
    name = keep(tmp_path, b"core").name
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "target")

    path = keep(tmp_path, b"core")

    assert path.name != name
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["../../x", "..", ".", "/etc/x", "a\nb", "\udcff", "-", "x" * 400])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "crash"

    path = keep(folder, b"core", {"hostname": name, "exe": f"/bin/{name}", "pid": 9})

    assert [*folder.iterdir()] == [path]
    assert [*tmp_path.iterdir()] == [folder]
    assert is_core_name(path.name)


def test_of_a_crash_that_nothing_is_known_of_the_core_is_kept(tmp_path: Path) -> None:
    path = keep(tmp_path, b"core", {})

    assert path.name.startswith("core.unknown.0.")
    assert path.read_bytes() == b"core"


def test_a_directory_that_is_missing_is_made_for_everybody(tmp_path: Path) -> None:
    path = keep(tmp_path / "a" / "crash", b"core")

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o1777


@pytest.mark.parametrize(("dumpable", "owner"), [(1, 4711), (2, os.geteuid()), (0, os.geteuid())])
def test_a_core_is_its_users_only_if_the_kernel_says_so(
    tmp_path: Path, dumpable: int, owner: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: root (only it may give files away)")

    path = keep(tmp_path, b"core", FACTS | {"uid": 4711, "gid": 4712, "dumpable": dumpable})

    assert path.stat().st_uid == owner


def test_a_core_with_too_much_data_is_cut_short(tmp_path: Path) -> None:
    path = keep(tmp_path, os.urandom(4 * MIB), COREMON_MAX_CORE="2M")

    assert path.stat().st_size == 2 * MIB


def test_a_disk_that_must_keep_space_free_takes_no_more(tmp_path: Path) -> None:
    path = keep(tmp_path, os.urandom(4 * MIB), COREMON_KEEP_FREE="100%")

    assert path.stat().st_size == MIB


def test_what_came_before_the_disk_was_full_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_one(target: int, block: memoryview, place: int) -> int:
        if place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_data(target, block, place)

    monkeypatch.setattr(intake_file, "write_data", write_one)
    core = os.urandom(4 * MIB)

    path = keep(tmp_path, core)

    assert path.read_bytes() == core[:MIB]


def test_a_file_system_that_has_only_files_with_names_does_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keep(tmp_path, b"first")
    open_file = os.open

    def open_named(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return open_file(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", open_named)

    second = keep(tmp_path, b"second")

    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert {*tmp_path.iterdir()} == {first, second}
