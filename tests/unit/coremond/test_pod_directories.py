import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from common.kubelet import KubeletLogs
from common.naming import SPOOL, sidecar_name
from common.pod import Pod
from services.coremond import pod_directories
from services.coremond.crash_files import CrashFiles, PodFiles
from services.coremond.file_pattern import FilePattern
from services.coremond.pod_directories import PodDirectories
from services.coremond.settings import Retention
from services.coremond.source_directories import SourceDirectories
from services.coremond.watch import Found, SourceDirectory
from tests.unit.factories import CRASHED_AT, House, elf_core, item

PATTERN = FilePattern("core.%e.%p.%h.%t")
CORE = f"core.observer.9.web-0.{CRASHED_AT}"
LONG_AGO = 10**9


def uid_of(number: int) -> str:
    return str(UUID(int=number))


UID, OTHER_UID = uid_of(1), uid_of(2)
NAME, OTHER_NAME = f"shop_web-0_{UID}", f"twin_web-0_{OTHER_UID}_app"


class Crash:
    """A crash directory with those of pods in it; *over* has the uids of those that are no more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.over: set[str] = set()
        self.ours = SourceDirectory(path, CrashFiles(PATTERN), is_ours=True, sources_go=True)
        self.ours.open()
        self.pods = PodDirectories(
            self.ours, lambda pod: PodFiles(PATTERN, pod), lambda pod: pod.uid in self.over
        )
        self.all = SourceDirectories(self.pods, self.ours)

    def make(self, name: str, *, age: float = 0) -> Path:
        path = self.path / name
        path.mkdir()
        if age:
            os.utime(path, (age, age))
        return path

    def names(self) -> list[str]:
        """Give the names of the directories that are followed now."""
        self.pods.refresh()
        return sorted(directory.path.name for directory in self.pods.all)


def open_below(path: Path) -> int:
    """Count the descriptors that this process has of what is, or was, below *path*."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return len([link for link in links if link.startswith(f"{path}/")])


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[Crash]:
    made = Crash(tmp_path / "crash")
    yield made
    made.all.close()


def test_the_directories_of_pods_are_found_with_what_is_in_them(crash: Crash) -> None:
    for name in (NAME, OTHER_NAME):
        (crash.make(name) / CORE).touch()

    found = crash.all.all()

    assert {(each.directory.path.name, each.name) for each in found} == {
        (NAME, CORE),
        (OTHER_NAME, CORE),
    }


def test_a_directory_that_comes_is_noticed_and_then_each_core_in_it(crash: Crash) -> None:
    crash.all.all()
    own = crash.make(NAME)
    assert crash.all.changed() == (set(), True)
    crash.all.all()

    (own / CORE).write_bytes(b"x")

    completed, everything = crash.all.changed()
    assert {each.path for each in completed} == {str(own / CORE)}
    assert not everything


def test_a_core_that_is_completed_as_a_directory_comes_is_heard_of_as_well(crash: Crash) -> None:
    own = crash.make(NAME)
    crash.all.all()
    for path in (own / CORE, crash.path / CORE):
        path.write_bytes(b"x")
    crash.make(OTHER_NAME)

    completed, everything = crash.all.changed()

    assert {each.path for each in completed} == {str(own / CORE), str(crash.path / CORE)}
    assert everything


def test_one_directory_stays_the_same_to_who_looks_again(crash: Crash) -> None:
    crash.make(NAME)
    assert crash.names() == [NAME]
    before = crash.pods.all

    assert crash.names() == [NAME]

    assert crash.pods.all == before


def test_a_directory_that_was_made_anew_is_another(crash: Crash) -> None:
    crash.make(NAME).joinpath(CORE).touch()
    [before] = crash.all.all()
    shutil.rmtree(crash.path / NAME)
    crash.make(NAME).joinpath(CORE).touch()

    [after] = crash.all.all()

    assert before != after
    assert after.directory.names() == {CORE}
    assert before.directory.names() == set()


def test_a_directory_under_another_name_is_that_pods(crash: Crash) -> None:
    own = crash.make(NAME)
    assert crash.names() == [NAME]
    own.rename(crash.path / OTHER_NAME)

    assert crash.names() == [OTHER_NAME]


def test_what_goes_while_somebody_handles_a_source_in_it_can_still_be_read(crash: Crash) -> None:
    own = crash.make(NAME)
    (own / CORE).write_bytes(b"x")
    [found] = crash.all.all()
    shutil.rmtree(own)
    assert crash.names() == []

    with pytest.raises(FileNotFoundError):
        os.stat(found.name, dir_fd=found.directory.descriptor)
    assert found.directory.names() == set()


def test_a_directory_that_nobody_needs_any_more_is_closed(crash: Crash) -> None:
    for name in (NAME, OTHER_NAME):
        crash.make(name)
    for _ in range(5):
        crash.names()
    assert open_below(crash.path) == 2
    for name in (NAME, OTHER_NAME):
        (crash.path / name).rmdir()

    crash.names()

    assert open_below(crash.path) == 0


# Who may say that a directory is a pod's.


def test_a_directory_of_another_user_is_no_pods(crash: Crash) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to give a directory to another user")
    os.chown(crash.make(NAME), 65534, 65534)
    crash.make(OTHER_NAME)

    assert crash.names() == [OTHER_NAME]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/tmp"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.touch(),
        os.mkfifo,
    ],
)
def test_what_is_no_directory_is_no_pods(crash: Crash, make: Callable[[Path], object]) -> None:
    crash.names()
    make(crash.path / NAME)
    assert crash.pods.changed() == (set(), False)
    crash.make(OTHER_NAME)

    assert crash.names() == [OTHER_NAME]


def test_directories_of_others_ask_for_no_look_and_nobody_is_asked_about_their_pods(
    crash: Crash,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to give a directory to another user")
    asked: list[str] = []
    crash.pods._is_over = lambda pod: bool(asked.append(pod.uid))  # type: ignore[func-returns-value]
    crash.names()
    for number in range(100):
        os.chown(crash.make(f"a_b_{uid_of(number)}"), 65534, 65534)
    crash.make("a_b_" + uid_of(100)).rmdir()

    assert crash.pods.changed() == (set(), False)
    assert crash.names() == []
    assert asked == []


def test_what_is_not_called_as_a_pods_is_none(crash: Crash) -> None:
    for name in ("x", "a_b_c", f"{NAME}_a_b", f"_{NAME}", "a_b_" + "g" * 32, "core.dir"):
        crash.make(name)

    assert crash.names() == []


def test_a_core_in_a_pods_directory_is_stored_under_the_pod_and_goes(tmp_path: Path) -> None:
    own = tmp_path / "crash" / f"{NAME}_sidecar"
    own.mkdir(parents=True)
    with House(tmp_path, keep=Retention(cores_max_files=0)) as house:
        (own / f"core.observer.9.bank-0.{CRASHED_AT}").write_bytes(elf_core())

        house.handle_all()

        [record] = house.store.records()
        assert (record.namespace, record.pod, record.container) == ("shop", "web-0", "sidecar")
        assert (record.identity.by, record.identity.container_by) == ("pod-uid", "directory")
        assert record.kubernetes
        assert (record.kubernetes.uid, os.listdir(own)) == (UID, [])


def test_what_crashagent_says_is_never_believed_in_a_pods_directory(tmp_path: Path) -> None:
    own = tmp_path / "crash" / NAME
    with House(tmp_path) as house:
        name = house.add(elf_core())
        (own / SPOOL).mkdir(parents=True, mode=0o700)
        told = item(turned_away="forged", comm="forged")
        (own / SPOOL / sidecar_name(name)).write_bytes(told.to_wire()[1])
        (house.crash_dir / name).rename(own / name)

        house.handle_all()

        [record] = house.store.records()
        assert (record.state, record.pod, record.process) == ("stored", "web-0", "observer")


# Those that go.


def test_the_empty_directory_of_a_pod_that_is_no_more_goes(crash: Crash) -> None:
    dead = crash.make(NAME, age=LONG_AGO)
    alive = crash.make(OTHER_NAME, age=LONG_AGO)
    crash.over = {UID}

    assert crash.names() == [OTHER_NAME]

    assert (dead.exists(), alive.exists()) == (False, True)


@pytest.mark.parametrize("content", [CORE, ".hidden"])
def test_what_is_left_in_the_directory_of_a_dead_pod_keeps_it(crash: Crash, content: str) -> None:
    dead = crash.make(NAME)
    (dead / content).touch()
    os.utime(dead, (LONG_AGO, LONG_AGO))
    crash.over = {UID}

    assert crash.names() == [NAME]


def test_a_pod_that_is_just_gone_keeps_its_directory_for_a_while(crash: Crash) -> None:
    crash.make(NAME)
    crash.over = {UID}

    assert crash.names() == [NAME]


def test_a_directory_that_somebody_else_made_never_goes(crash: Crash) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to give a directory to another user")
    forged = crash.make(NAME, age=LONG_AGO)
    os.chown(forged, 65534, 65534)
    crash.over = {UID}

    assert crash.names() == []
    assert forged.exists()


@pytest.mark.parametrize("logs", [[], [NAME], [f"shop_web-0_{UID}", f"a_b_{uid_of(7)}"]])
def test_no_directory_of_a_pod_goes_that_has_logs_or_where_there_are_none(
    tmp_path: Path, logs: list[str]
) -> None:
    for name in ["pods", *(f"pods/{each}" for each in logs)]:
        (tmp_path / name).mkdir()
    kubelet, crash = KubeletLogs(tmp_path), Crash(tmp_path / "crash")
    crash.pods._is_over = kubelet.is_over
    own = crash.make(NAME, age=LONG_AGO)

    assert crash.names() == [NAME]
    assert own.exists()
    crash.all.close()


# Very many.


def test_thousands_of_directories_are_bounded_and_leave_descriptors_for_cores(
    crash: Crash,
) -> None:
    for number in range(2000):
        crash.make(f"shop_web-{number}_{uid_of(number)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        followed = crash.names()
        for _ in range(2):
            crash.names()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert len(followed) == 300


def test_the_dead_take_no_place_from_the_living(
    crash: Crash, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_directories, "_MOST_PODS", 5)
    for number in range(20):
        crash.make(f"shop_web-{number:02}_{uid_of(number)}")
    crash.over = {uid_of(number) for number in range(17)}

    followed = crash.names()

    assert len(followed) == 5
    assert {f"shop_web-{number}_{uid_of(number)}" for number in (17, 18, 19)} < set(followed)


def test_without_watches_left_the_directories_are_looked_through_all_the_same(
    crash: Crash, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "no watches")

    monkeypatch.setattr(crash.pods._events, "add_watch", refuse)
    (crash.make(NAME) / CORE).touch()

    [first] = crash.all.all()
    [again] = crash.all.all()

    assert first == again == Found(crash.pods.all[0], CORE)


def test_a_pods_directory_is_the_pods_that_it_is_called_after(crash: Crash) -> None:
    made: list[Pod] = []
    crash.pods._make = lambda pod: made.append(pod) or PodFiles(PATTERN, pod)  # type: ignore[func-returns-value]
    crash.make(OTHER_NAME)

    crash.names()

    [pod] = made
    assert (pod.namespace, pod.name, pod.uid) == ("twin", "web-0", OTHER_UID)
    assert [each.name for each in pod.containers] == ["app"]
