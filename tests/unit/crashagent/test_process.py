import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.crashagent import process
from services.crashagent.process import _read_cgroup, _started_at, hold
from tests.unit.factories import without_deadline

CONTAINER = "0123456789abcdef" * 4
STATUS = (
    "Name:\tobserver\nUmask:\t0022\nState:\tD\nPid:\t4711\nUid:\t1000\t0\t0\t0\n"
    "Gid:\t100\t0\t0\t0\nNSpid:\t4711\t9\nCoreDumping:\t1\n"
)

Dump = Callable[..., None]


@pytest.fixture
def dumping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dump:
    """Give a function that makes a directory of /proc, as it is while a process is dumped."""

    def make(status: str = STATUS, **files: bytes) -> None:
        (tmp_path / "status").write_text(status)
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)

    monkeypatch.setattr(process, "_open", lambda _: os.open(tmp_path, os.O_RDONLY))
    return make


def read_process(pid: int, own_pid: int | None) -> dict[str, Any]:
    held = hold(pid, own_pid)
    if held is None:
        return {}
    try:
        return held.facts()
    finally:
        held.close()


def test_a_process_that_is_being_dumped_tells_its_numbers(dumping: Dump) -> None:
    dumping(comm=b"observer\n", cmdline=b"observer\0--all\0", cgroup=b"0::/pod/x\n")

    facts = read_process(4711, 9)

    assert facts == {
        "host_pid": 4711,
        "pid": 9,
        "uid": 1000,
        "gid": 100,
        "comm": "observer",
        "cmdline": "observer --all",
        "cgroup": "/pod/x",
        "container_id": "",
    }


def test_nothing_is_told_of_a_process_that_lives_on() -> None:
    assert read_process(os.getpid(), None) == {}


@pytest.mark.parametrize("pid", [2**31 - 1, 0, -1])
def test_nothing_is_told_of_a_process_that_is_not_there(pid: int) -> None:
    assert read_process(pid, None) == {}


def test_nothing_is_told_of_a_process_with_another_pid_of_its_own(dumping: Dump) -> None:
    dumping()

    assert read_process(4711, 10) == {}


@pytest.mark.parametrize(
    "status",
    [
        "",
        STATUS.replace("CoreDumping:\t1", "CoreDumping:\t0"),
        STATUS.replace("CoreDumping:\t1\n", ""),
        STATUS.replace("Uid:\t1000", "Uid:\tx"),
        STATUS.replace("Uid:\t1000\t0\t0\t0\n", "Uid:\t\n"),
    ],
)
def test_nothing_is_told_where_the_status_does_not_say_it(dumping: Dump, status: str) -> None:
    dumping(status)

    assert read_process(4711, None) == {}


@pytest.mark.parametrize("line", ["NSpid:\t4711\t9\n", "Uid:\t1000\t0\t0\t0\n"])
def test_a_kernel_that_lacks_a_line_does_not_end_the_intake(dumping: Dump, line: str) -> None:
    dumping(STATUS.replace(line, ""))

    facts = read_process(4711, None)

    assert facts.get("host_pid", 4711) == 4711


def test_a_name_cannot_forge_a_line_of_the_status(dumping: Dump) -> None:
    # As the kernel writes a name with a newline in it.
    dumping("Name:\tx\\nUid:\\t0\n" + STATUS.partition("\n")[2])

    assert read_process(4711, 9)["uid"] == 1000


def test_hostile_bytes_are_shown_as_text(dumping: Dump) -> None:
    dumping(comm=b"a\xff\nb\n", cmdline=b"\xfe\0\xff\0\0")

    facts = read_process(4711, 9)

    assert (facts["comm"], facts["cmdline"]) == ("a\\xff\nb", "\\xfe \\xff")


def stat_of(name: bytes, ticks: int) -> bytes:
    return b"4711 (" + name + b") D" + b" 0" * 18 + b" %d" % ticks + b" 0" * 30


@given(st.binary(max_size=15), st.integers(0, 10**9))
def test_the_start_is_read_whatever_the_process_is_called(name: bytes, ticks: int) -> None:
    found = _started_at(stat_of(name, ticks)) - _started_at(stat_of(b"sh", 0))

    assert found == ticks * 10**9 // os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", [b") D 1 2 3", b"((", b"))", b"\n) 9 9 9 9", b"a b c"])
def test_a_name_in_parentheses_does_not_move_the_start(name: bytes) -> None:
    assert _started_at(stat_of(name, 100)) == _started_at(stat_of(b"sh", 100))


@pytest.mark.parametrize("stat", [b"", b"4711 (sh) D", stat_of(b"sh", 1)[:20], b")" * 99])
def test_a_start_that_cannot_be_read_is_left_out(dumping: Dump, stat: bytes) -> None:
    dumping(stat=stat)

    assert "started_at" not in read_process(4711, 9)


def test_a_containers_id_is_read_from_its_cgroup() -> None:
    text = f"0::/kubepods.slice/pod1.slice/cri-containerd-{CONTAINER}.scope\n".encode()

    assert _read_cgroup(text)["container_id"] == CONTAINER


def test_the_cgroup_of_version_2_goes_before_longer_ones() -> None:
    found = _read_cgroup(b"4:memory:/a/very/long/path\n0::/short\n")

    assert found["cgroup"] == "/short"


def test_without_version_2_the_longest_cgroup_is_told() -> None:
    found = _read_cgroup(b"4:memory:/a\n3:cpu,cpuacct:/a/b:c\n")

    assert found == {"cgroup": "/a/b:c", "container_id": ""}


@pytest.mark.parametrize("text", [b"", b"\n", b"nothing\n", b"0:x"])
def test_no_cgroup_is_nothing(text: bytes) -> None:
    assert _read_cgroup(text) == {}


@without_deadline
@given(st.binary())
def test_any_cgroup_file_is_read_without_harm(text: bytes) -> None:
    found = _read_cgroup(text)

    assert len(found.get("cgroup", "")) <= 4 * 4096
    assert all(character in "0123456789abcdef" for character in found.get("container_id", ""))
