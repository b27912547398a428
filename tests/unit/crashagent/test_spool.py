import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import CollectorError, SourceError
from common.item import CrashItem, Encoding, to_json
from common.naming import SPOOL, read_source_name, sidecar_name
from common.packing.crew import Crew
from common.packing.sources import StreamSource
from services.crashagent import spool as spools
from services.crashagent.spool import KILLED, Intake, IntakeNote, Spool
from tests.unit.factories import (
    CRASHED_AT,
    Killed,
    Killer,
    core_in,
    elf_core,
    in_place_of_a_file,
    item,
    small_disk,
)

NAME = f"core.observer.9.f5-observer-0.{CRASHED_AT}"
NOTE, PART = f".intake.{CRASHED_AT}.item", f".intake.{CRASHED_AT}.part"
SIDECAR = f".{NAME}.item"


CREW = Crew(1)


@pytest.fixture(params=["raw", "gzip", "zstd", "lz4"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """How the spool writes cores."""
    chosen: Encoding = request.param
    return chosen


@pytest.fixture
def spool(tmp_path: Path, encoding: Encoding) -> Iterator[Spool]:
    with opened(tmp_path, encoding) as made:
        yield made


def taken_in(spool: Spool, crash: CrashItem, core: bytes) -> CrashItem:
    intake = spool.begin(crash)
    fill(intake, core)
    return spool.finish(intake)


def fill(intake: Intake, core: bytes) -> None:
    intake.part.fill(StreamSource.of([core]), lambda: None)
    intake.item = replace(intake.item, packed=intake.part.end(""))


def opened(directory: Path, encoding: Encoding = "raw") -> closing[Spool]:
    return closing(Spool(directory, "node-1", encoding, CREW))


def content(core: Path) -> bytes:
    """Give the core that is in the file, packed or not."""
    with core.open("rb") as file:
        return core_in(file.fileno())


def place(directory: Path, name: str) -> Path:
    """Say where a file of the spool, or of the crash directory beside it, stands."""
    spool = directory / SPOOL
    spool.mkdir(mode=0o700, exist_ok=True)
    return spool / name if name.startswith(".") else directory / name


def listed(directory: Path) -> list[str]:
    """Name all that is in the spool, and in the crash directory beside it."""
    spool = directory / SPOOL
    beside = [name for name in os.listdir(directory) if name != SPOOL]
    return beside + (os.listdir(spool) if spool.exists() else [])


def recovered(directory: Path, encoding: Encoding = "raw") -> list[CrashItem]:
    with opened(directory, encoding) as spool:
        return list(spool.recover())


def cores(directory: Path) -> list[str]:
    return sorted(name for name in listed(directory) if name.startswith("core."))


def test_a_core_comes_in_under_hidden_names_only(spool: Spool, tmp_path: Path) -> None:
    intake = spool.begin(item())

    assert sorted(listed(tmp_path)) == [NOTE, PART]
    intake.close()


def test_a_whole_core_has_its_name_and_its_item_beside_it(spool: Spool, tmp_path: Path) -> None:
    told = taken_in(spool, item(), b"a core")

    assert sorted(listed(tmp_path)) == [SIDECAR, NAME]
    assert told == item(path=str(place(tmp_path, NAME)), encoding=told.encoding, packed=told.packed)
    assert content(place(tmp_path, NAME)) == b"a core"
    assert CrashItem.from_json(place(tmp_path, SIDECAR).read_bytes()) == told


def test_nobody_else_can_read_a_core(spool: Spool, tmp_path: Path) -> None:
    taken_in(spool, item(), b"secret")

    assert [place(tmp_path, name).stat().st_mode & 0o777 for name in (NAME, SIDECAR)] == [0o600] * 2


def test_what_nobody_said_is_read_from_the_core(spool: Spool) -> None:
    crash = item(pid=None, comm="", hostname="")

    told = taken_in(spool, crash, elf_core(pid=42, comm=b"tmm"))

    [name] = read_source_name(os.path.basename(told.path))
    assert (name.process, name.pid, name.host) == ("tmm", 42, "node-1")


def test_a_core_that_says_nothing_has_a_name_all_the_same(spool: Spool) -> None:
    told = taken_in(spool, item(pid=None, comm="", hostname=""), b"")

    [name] = read_source_name(os.path.basename(told.path))
    assert (name.process, name.pid, name.host) == ("unknown", 0, "node-1")


@pytest.mark.parametrize(
    "comm", ["../../etc/passwd", ".", "a\nb", "a/b", "x" * 999, "é😀", "\\xff"]
)
def test_a_hostile_name_stays_in_the_directory(spool: Spool, tmp_path: Path, comm: str) -> None:
    told = taken_in(spool, item(comm=comm, hostname=comm), b"a core")

    assert cores(tmp_path) == [os.path.basename(told.path)]


def test_each_moment_is_nobody_elses(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100, 100, 50, 200])
    monkeypatch.setattr("time.time_ns", lambda: next(times))

    assert [spool.moment() for _ in range(4)] == [100, 101, 102, 200]


def test_two_crashes_of_one_process_are_two_cores(spool: Spool, tmp_path: Path) -> None:
    for core in (b"one", b"two"):
        taken_in(spool, item(crashed_at=spool.moment()), core)

    assert len(cores(tmp_path)) == 2


NOTED = {NOTE: to_json(item(path="/", truncated=True))}
FINISHED = to_json(item(path=f"/var/crash/{NAME}"))
STATES = {
    "the note is empty": {NOTE: b""},
    "the note is half": {NOTE: to_json(item())[:50]},
    "nothing of the core came": NOTED,
    "the part is empty": {**NOTED, PART: b""},
    "some of the core came": {**NOTED, PART: b"a co"},
    "the note is lost": {PART: b"a co"},
    "the item is being written": {**NOTED, PART: b"a core", f".{NOTE}.tmp": FINISHED[:9]},
    "the item is written": {**NOTED, PART: b"a core", f".{NOTE}.tmp": FINISHED},
    "the item has replaced the note": {NOTE: FINISHED, PART: b"a core"},
    "the item has its name": {SIDECAR: FINISHED, PART: b"a core"},
    "the core has its name": {SIDECAR: FINISHED, NAME: b"a core"},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_every_state_is_recovered_as_one_core_and_nothing_else(
    tmp_path: Path, state: dict[str, bytes]
) -> None:
    for name, content in state.items():
        place(tmp_path, name).write_bytes(content)

    told = recovered(tmp_path)

    [name] = cores(tmp_path)
    assert sorted(listed(tmp_path)) == sorted([name, sidecar_name(name)])
    content = state.get(PART, state.get(NAME, b""))
    assert place(tmp_path, name).read_bytes() == content
    assert [os.path.basename(found.path) for found in told] == [name] * (NAME not in state)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_to_recover_once_more_changes_nothing(tmp_path: Path, state: dict[str, bytes]) -> None:
    for name, content in state.items():
        place(tmp_path, name).write_bytes(content)
    recovered(tmp_path)
    before = {name: place(tmp_path, name).read_bytes() for name in listed(tmp_path)}

    assert recovered(tmp_path) == []

    assert {name: place(tmp_path, name).read_bytes() for name in listed(tmp_path)} == before


def test_a_core_that_came_partly_says_so(tmp_path: Path) -> None:
    place(tmp_path, NOTE).write_bytes(NOTED[NOTE])
    place(tmp_path, PART).write_bytes(b"a co")

    [told] = recovered(tmp_path)

    assert (told.truncated, told.truncated_why) == (True, KILLED)
    assert (told.pid, told.signal) == (9, 11)


def test_a_core_that_only_lacked_its_name_is_not_called_partial(tmp_path: Path) -> None:
    place(tmp_path, SIDECAR).write_bytes(FINISHED)
    place(tmp_path, PART).write_bytes(b"a core")

    [told] = recovered(tmp_path)

    assert told == item(path=str(place(tmp_path, NAME)))


def test_several_intakes_are_recovered_the_oldest_first(tmp_path: Path) -> None:
    for moment in (CRASHED_AT + 2, CRASHED_AT, CRASHED_AT + 1):
        note = item(path="/", crashed_at=moment)
        place(tmp_path, f".intake.{moment}.item").write_bytes(to_json(note))

    told = recovered(tmp_path)

    assert [found.crashed_at - CRASHED_AT for found in told] == [0, 1, 2]


@pytest.mark.parametrize("kill_at", range(20))
@pytest.mark.parametrize("kill_again_at", [None, 0, 1, 2, 3, 4, 5])
def test_a_kill_at_any_change_of_the_disk_leaves_one_core(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int,
    kill_again_at: int | None,
    encoding: Encoding,
) -> None:
    try:
        with opened(tmp_path, encoding) as spool, Killer(monkeypatch, kill_at):
            taken_in(spool, item(path="/", truncated=True), b"a core")
    except Killed:
        was_noted = NOTE in listed(tmp_path) or SIDECAR in listed(tmp_path)
    else:
        was_noted = True
    if kill_again_at is not None:
        try:
            with opened(tmp_path, encoding) as spool, Killer(monkeypatch, kill_again_at):
                list(spool.recover())
        except Killed:
            pass

    recovered(tmp_path, encoding)

    assert len(cores(tmp_path)) == was_noted
    assert len(listed(tmp_path)) == 2 * was_noted


def test_nothing_is_taken_up_while_another_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spools, "_PATIENCE", 0.0)
    monkeypatch.setattr(spools, "_PAUSE", 0.0)
    first = Spool(tmp_path, "node-1", "raw", CREW)
    list(first.recover())
    intake, left = (first.begin(item(crashed_at=CRASHED_AT + n, truncated=True)) for n in range(2))
    looks = 0

    def watch_the_first_end() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            fill(intake, b"a core")
            first.finish(intake)
        if looks == 5:
            for each in (intake, left, first):
                each.close()
        return False

    with opened(tmp_path) as second:
        told = list(second.recover(watch_the_first_end))

    assert [(each.crashed_at, each.truncated) for each in told] == [(CRASHED_AT + 1, True)]
    assert len(cores(tmp_path)) == 2
    assert [record.message for record in caplog.records] == [
        "another crashagent is there",
        "core came in partly",
    ]


def test_who_is_stopped_waits_for_nobody_and_takes_up_nothing(tmp_path: Path) -> None:
    place(tmp_path, NOTE).write_bytes(NOTED[NOTE])

    with opened(tmp_path) as first, opened(tmp_path) as second:
        list(first.recover(lambda: False))
        place(tmp_path, NOTE).write_bytes(NOTED[NOTE])
        stopped = iter([False, False, True])
        assert list(second.recover(lambda: next(stopped))) == []

    assert NOTE in listed(tmp_path)


@pytest.mark.parametrize("kill_at", range(6))
def test_a_note_is_whole_whenever_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    with opened(tmp_path) as spool, Killer(monkeypatch, kill_at), suppress(Killed):
        spool.begin(item(path="/", truncated=True), pipe=7).close()

    notes = [place(tmp_path, name) for name in listed(tmp_path) if name == NOTE]
    assert [IntakeNote.from_json(note.read_bytes()).pipe for note in notes] == [7] * len(notes)
    assert len(recovered(tmp_path)) == len(notes)


def test_a_crash_that_cannot_be_noted_for_want_of_room_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        (disk / "others").write_bytes(bytes(fits_on(disk)))

        with opened(disk) as spool, pytest.raises(OSError, match="No space"):
            spool.begin(item())

        assert recovered(disk) == []
        assert listed(disk) == ["others"]


@pytest.mark.parametrize(
    "name",
    [
        ".intake.1.part",
        ".intake.part",
        f".intake.{CRASHED_AT}",
        f".intake.{CRASHED_AT}.other",
        f".intake.{CRASHED_AT}0.item",
        ".intake.٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣.item",
        "core",
        "core.other.1.host.1742738615",
        "_usr_bin_x.0.crash",
    ],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    place(tmp_path, name).write_bytes(b"theirs")

    assert recovered(tmp_path) == []

    assert listed(tmp_path) == [name]


@in_place_of_a_file
def test_what_stands_in_the_place_of_a_part_stops_no_recovery(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(place(tmp_path, ".intake.0000000000000000001.part"))
    place(tmp_path, NOTE).write_bytes(NOTED[NOTE])
    place(tmp_path, PART).write_bytes(b"a core")

    told = recovered(tmp_path)

    assert NAME in [os.path.basename(found.path) for found in told]


def test_on_a_full_disk_the_end_of_the_core_gives_way_to_its_description(
    tmp_path: Path, encoding: Encoding
) -> None:
    core = os.urandom(5 * 2**20)
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        with opened(disk, encoding) as spool:
            intake = spool.begin(item())
            with pytest.raises(OSError, match="No space"):
                fill(intake, core)
            intake.item = replace(intake.item, packed=intake.part.end("it was full"))
            (disk / "others").write_bytes(bytes(fits_on(disk)))

            told = spool.finish(intake)

        assert (told.truncated, told.truncated_why) == (True, "the disk was full")
        assert sorted(listed(disk)) == sorted([SIDECAR, NAME, "others"])
        assert CrashItem.from_json(place(disk, SIDECAR).read_bytes()) == told
        kept = content(place(disk, NAME))
        assert len(kept) >= 2**20
        assert core.startswith(kept)


def fits_on(disk: Path) -> int:
    free = os.statvfs(disk)
    return free.f_bavail * free.f_frsize


def test_the_item_of_a_recovered_core_can_be_read(tmp_path: Path) -> None:
    place(tmp_path, NOTE).write_bytes(b'{"path": "/", "pid": "garbage"}')

    [told] = recovered(tmp_path)

    try:
        found = CrashItem.from_json(place(tmp_path, sidecar_name(cores(tmp_path)[0])).read_bytes())
    except CollectorError as error:
        pytest.fail(str(error))
    assert replace(found, path="") == replace(told, path="")


def test_a_spool_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / SPOOL).mkdir(mode=0o755)

    with pytest.raises(SourceError, match="others may enter it"):
        opened(tmp_path)


def test_a_directory_of_anothers_in_the_place_of_a_name_costs_the_name_only(
    spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / NAME).mkdir()

    told = taken_in(spool, item(), b"a core")

    assert content(Path(told.path)) == b"a core"
    assert os.path.basename(told.path).startswith("core.observer-")


def test_a_crash_directory_that_was_replaced_is_followed(
    tmp_path: Path, encoding: Encoding
) -> None:
    crash_dir = tmp_path / "crash"
    with opened(crash_dir, encoding) as spool:
        crash_dir.rename(tmp_path / "away")

        told = taken_in(spool, item(), b"a core")

    assert content(Path(told.path)) == b"a core"
    assert crash_dir.stat().st_mode & 0o7777 == 0o1777
