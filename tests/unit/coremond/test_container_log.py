import gzip
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.kubelet import KubeletLogs
from common.pod import Pod
from services.coremond.container_log import ContainerLogs, _moment
from tests.unit.factories import CRASHED_AT, in_place_of_a_file, without_deadline

UID = "0" * 32
POD = Pod(namespace="shop", name="web-0", uid=UID, hostname="web-0")
LINES = [f"line {number}" for number in range(50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the directory of a container's logs."""
    path = tmp_path / "pods" / f"shop_web-0_{UID}" / "app"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def logs(tmp_path: Path) -> ContainerLogs:
    return ContainerLogs(KubeletLogs(tmp_path), lines=10, size=10_000)


def cri(*lines: str, at: float = -60) -> str:
    """Write *lines* as a runtime does, *at* seconds from the crash."""
    moment = datetime.fromtimestamp(CRASHED_AT // 10**9 + at, UTC)
    return "".join(f"{moment:%Y-%m-%dT%H:%M:%S}.123456789Z stdout F {line}\n" for line in lines)


def tail(logs: ContainerLogs, container: str = "app") -> str:
    return logs.tail(POD, container, CRASHED_AT).decode("utf-8", "surrogateescape")


def test_the_last_lines_are_told(logs: ContainerLogs, folder: Path) -> None:
    (folder / "0.log").write_text(cri(*LINES))

    assert tail(logs) == cri(*LINES[-10:])


def test_a_log_that_is_shorter_is_told_whole(logs: ContainerLogs, folder: Path) -> None:
    (folder / "0.log").write_text(cri("only"))

    assert tail(logs) == cri("only")


def test_no_more_bytes_are_told_than_so_many_and_no_half_line(tmp_path: Path, folder: Path) -> None:
    line = cri("x" * 50)
    (folder / "0.log").write_text(line * 100)
    logs = ContainerLogs(KubeletLogs(tmp_path), lines=90, size=3 * len(line) + 5)

    assert tail(logs) == line * 3


def test_the_log_that_was_begun_before_the_crash_counts_and_not_that_of_a_restart(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "9.log").write_text(cri("long ago", at=-900))
    (folder / "10.log").write_text(cri("crashed"))
    (folder / "11.log").write_text(cri("restarted", at=5))

    assert tail(logs) == cri("crashed")


def test_a_restart_within_a_second_of_the_crash_is_none_of_it(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("the reason", at=-1))
    (folder / "1.log").write_text(cri("started anew", at=1))  # 0.95 s later

    assert tail(logs) == cri("the reason", at=-1)


def test_of_a_container_that_wrote_nothing_no_line_of_its_restart_is_told(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").touch()
    os.utime(folder / "0.log", ns=(CRASHED_AT, CRASHED_AT - 10**9))
    (folder / "1.log").write_text(cri("started anew", at=1))

    assert tail(logs) == ""


def test_a_crash_that_is_told_in_whole_seconds_may_be_of_what_was_begun_in_it(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("long ago", at=-30))
    (folder / "1.log").write_text(cri("crashed at once", at=0))

    told = logs.tail(POD, "app", CRASHED_AT // 10**9 * 10**9)

    assert told.decode() == cri("crashed at once", at=0)


def test_however_much_was_written_after_the_crash_the_lines_before_it_are_told(
    tmp_path: Path, folder: Path
) -> None:
    before, after = cri(*LINES), cri("x" * 50, at=30)
    (folder / "0.log").write_text(before + after * 500)

    few = ContainerLogs(KubeletLogs(tmp_path), lines=90, size=len(before) // 2)

    assert tail(few).splitlines() == before.splitlines()[-len(tail(few).splitlines()) :]
    assert len(tail(few)) > len(before) // 3
    (folder / "0.log").write_text(before + after * 50_000)
    assert tail(few) == ""


def test_a_log_that_was_rotated_is_told_with_what_was_rotated_away(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("of an earlier start", at=-900))
    (folder / "1.log.20260101-000000").write_text(cri(*LINES[:4], at=-300))
    (folder / "1.log.20260101-000100").write_text(cri(*LINES[4:7], at=-200))
    (folder / "1.log").write_text(cri(*LINES[7:9], at=-100))

    assert tail(logs) == "".join(
        cri(*lines, at=at) for lines, at in ((LINES[:4], -300), (LINES[4:7], -200))
    ) + cri(*LINES[7:9], at=-100)


def test_a_log_that_was_rotated_since_the_crash_is_still_that_of_the_crash(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("of an earlier start", at=-900))
    (folder / "1.log.20260101-000000").write_text(cri("crashed") + cri("a child", at=5))
    (folder / "1.log").write_text(cri("went on", at=60))

    assert tail(logs) == cri("crashed")


def test_of_a_log_that_was_rotated_no_more_is_told_than_of_another(
    tmp_path: Path, folder: Path
) -> None:
    line = cri("x" * 50)
    (folder / "0.log.20260101-000000").write_text(line * 4)
    (folder / "0.log").write_text(line * 4)

    by_lines = ContainerLogs(KubeletLogs(tmp_path), lines=6, size=2**20)
    by_size = ContainerLogs(KubeletLogs(tmp_path), lines=90, size=6 * len(line) + 5)
    within_the_newest = ContainerLogs(KubeletLogs(tmp_path), lines=90, size=3 * len(line) + 60)

    assert [tail(each) for each in (by_lines, by_size)] == [line * 6] * 2
    assert tail(within_the_newest) == line * 3


def test_a_restart_that_has_written_nothing_yet_is_none_of_the_crash(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("crashed"))
    (folder / "1.log").touch()

    assert tail(logs) == cri("crashed")


def test_a_container_that_wrote_nothing_before_it_crashed_has_no_lines_of_an_earlier_one(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("earlier"))
    (folder / "1.log").touch()
    os.utime(folder / "1.log", ns=(CRASHED_AT, CRASHED_AT - 10**9))

    assert tail(logs) == ""


def test_what_a_container_writes_after_the_crash_is_left_out(
    logs: ContainerLogs, folder: Path
) -> None:
    (folder / "0.log").write_text(cri(*LINES) + cri(*LINES, at=30) + cri("last", at=31)[:-1])

    assert tail(logs) == cri(*LINES[-10:])


@pytest.mark.parametrize(
    "text", ["no moment\n", "\xff\n", "9" * 70, "2026-99-99T00:00:00Z x\n", "\n"]
)
def test_a_log_without_moments_counts_as_it_is(
    logs: ContainerLogs, folder: Path, text: str
) -> None:
    (folder / "0.log").write_bytes(text.encode("latin-1"))

    assert logs.tail(POD, "app", CRASHED_AT) == text.encode("latin-1")


def test_a_carriage_return_is_no_line(logs: ContainerLogs, folder: Path) -> None:
    text = cri("\r".join(LINES))
    (folder / "0.log").write_text(text, newline="")

    assert tail(logs) == text


def test_of_one_line_without_an_end_no_more_is_read_than_so_many_bytes(
    logs: ContainerLogs, folder: Path
) -> None:
    with (folder / "0.log").open("wb") as file:
        file.write(cri("begun").encode())
        file.truncate(2**40)

    assert tail(logs) == ""


def test_only_logs_are_read(logs: ContainerLogs, folder: Path) -> None:
    (folder / "0.log").write_text(cri("crashed"))
    for name in (
        "0.log.20260101-000000.gz",
        "0.log.20260101",
        "0.log.20260101-000000.tmp",
        "x.log",
        "2.log.tmp",
        "-3.log",
    ):
        (folder / name).write_bytes(gzip.compress(b"no"))

    assert tail(logs) == cri("crashed")


@in_place_of_a_file
def test_what_is_no_plain_log_is_passed_over(
    logs: ContainerLogs, folder: Path, make: Callable[[Path], object]
) -> None:
    (folder / "0.log").write_text(cri("crashed"))
    make(folder / "7.log")

    is_plain = stat.S_ISREG((folder / "7.log").lstat().st_mode)  # a second name does no harm
    assert tail(logs) == ("secret" if is_plain else cri("crashed"))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_no_link_is_followed_below_the_kubelets_directory(
    tmp_path: Path, folder: Path, level: int
) -> None:
    (folder / "0.log").write_text("secret")
    linked = [folder, folder.parent, folder.parent.parent][level]
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    logs = ContainerLogs(KubeletLogs(tmp_path), lines=10, size=1000)

    assert tail(logs) == ""


@pytest.mark.parametrize("container", ["", ".", "..", "../app", "/etc", "other", "\0", "a" * 300])
def test_a_name_that_leads_elsewhere_has_no_log(
    logs: ContainerLogs, folder: Path, container: str
) -> None:
    (folder / "0.log").write_text("secret")
    (folder.parent / "0.log").write_text("secret")

    assert tail(logs, container) == ""


def test_where_no_log_is_asked_for_or_no_pod_is_known_there_is_none(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "0.log").write_text(cri("x"))
    kubelet = KubeletLogs(tmp_path)
    some, none = (ContainerLogs(kubelet, lines=n, size=1000) for n in (10, 0))

    assert some.tail(POD, "app", CRASHED_AT)
    assert none.tail(POD, "app", CRASHED_AT) == b""
    assert some.tail(None, "app", CRASHED_AT) == b""
    assert some.tail(Pod(namespace="", name="", uid="", hostname=""), "app", CRASHED_AT) == b""
    assert ContainerLogs(None, lines=10, size=1000).tail(POD, "app", CRASHED_AT) == b""


def open_at(path: Path) -> list[str]:
    """Give what this process has open at *path*, or below."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [link for link in found if link.startswith(str(path))]


def test_reading_logs_leaves_nothing_open(
    logs: ContainerLogs, folder: Path, tmp_path: Path
) -> None:
    (folder / "0.log").symlink_to("/etc/passwd")
    os.mkfifo(folder / "1.log")

    for container in ("app", "..", "missing"):
        assert tail(logs, container) == ""

    assert open_at(tmp_path) == []


@without_deadline
@given(
    st.one_of(
        st.binary(max_size=80),
        st.datetimes().map(lambda moment: moment.isoformat().encode()),
        st.datetimes().map(lambda moment: f"{moment.isoformat()}+23:59 x".encode()),
    )
)
def test_any_line_has_a_moment_or_none(line: bytes) -> None:
    assert isinstance(_moment(line), float)


def test_a_moment_has_nanoseconds_and_a_zone() -> None:
    lines = (b"1970-01-01T00:01:00.500000001Z a", b"1970-01-01T01:01:00.5+01:00 stderr P b")

    assert [_moment(line) for line in lines] == [60.5, 60.5]
    assert time.time() > _moment(lines[0])
