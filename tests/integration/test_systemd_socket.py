"""What the real systemd-coredump hands in, as the kernel's helper, is a crash like any other."""

import fcntl
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import crashes, kernel
from tests.bundle import Bundle
from tests.systemd_coredump import Unpacked

pytestmark = pytest.mark.usefixtures("real_kernel")

StartBundle = Callable[..., Bundle]

SOCKET = Path("/run/systemd/coredump")
"""It knows no other."""
AS = "import socket, subprocess, sys; socket.sethostname(sys.argv[1]); subprocess.run(sys.argv[2])"
LOCK = Path("/tmp/systemd-coredump-socket.lock")


@pytest.fixture(scope="module")
def unpacked() -> Unpacked:
    found = Unpacked()
    if what := found.missing():
        pytest.skip(f"missing: {what}")
    return found


@pytest.fixture
def bundle(own_socket: None, start_bundle: StartBundle) -> Bundle:
    return start_bundle(CRASHAGENT_SYSTEMD_SOCKET=str(SOCKET))


@pytest.fixture
def own_socket() -> Iterator[None]:
    """Have the one path for ourselves; whoever listens there is to be started after this."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_served():
            pytest.skip(f"missing: {SOCKET}, where another program listens")
        yield
        if not is_served():
            SOCKET.unlink(missing_ok=True)


def is_served() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(SOCKET)) == 0


@contextmanager
def by_systemd(bundle: Bundle, unpacked: Unpacked) -> Iterator[None]:
    """Let the kernel hand cores to it, as the systemd of that version says."""
    helper = bundle.home / "h"
    unpacked.write_helper(helper)
    with kernel.core_pattern(f"|{helper} %P %u %g %s %t %c %h", pipe_limit=16):
        yield


def test_a_crash_that_it_hands_in_is_known_and_whole(
    bundle: Bundle, unpacked: Unpacked, crash_program: Path
) -> None:
    with by_systemd(bundle, unpacked):
        pid = crashes.run_to_death(crash_program, "segv")
        [record] = bundle.wait_for_stored()

    assert record["arrived"] == "systemd"
    assert (record["pid"], record["host_pid"]) == (pid, pid)
    assert (record["uid"], record["gid"], record["signal"]) == (0, 0, 11)
    assert (record["comm"], record["exe"]) == ("crash", str(crash_program))
    assert record["cmdline"] == f"{crash_program} segv"
    assert (record["capture"], record["truncated"]) == ("resident", False)
    assert record["details"]["COREDUMP_TIMESTAMP"].isdecimal()
    assert bundle.find("coredump message malformed") is None
    assert b"main" in backtrace(bundle, record["id"], crash_program)


def backtrace(bundle: Bundle, crash: str, program: Path) -> bytes:
    core = bundle.home / "core"
    dumped = bundle.corectl("dump", crash, "-o", str(core))
    assert dumped.returncode == 0, dumped.stderr
    words = ["gdb", "-nx", "-batch", "-ex", "bt", str(program), str(core)]
    try:
        return subprocess.run(words, capture_output=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        pytest.skip("missing: gdb, which reads the core")


def test_a_crash_is_streamed_where_its_memory_is_not_to_be_read(
    own_socket: None, start_bundle: StartBundle, unpacked: Unpacked, crash_program: Path
) -> None:
    bundle = start_bundle(CRASHAGENT_SYSTEMD_SOCKET=str(SOCKET), CRASHAGENT_RESIDENT="false")

    with by_systemd(bundle, unpacked):
        crashes.run_to_death(crash_program, "segv")
        [record] = bundle.wait_for_stored()

    assert (record["capture"], record["truncated"]) == ("stream", False)
    assert b"main" in backtrace(bundle, record["id"], crash_program)


def test_a_process_in_namespaces_of_its_own_is_known_by_both_its_pids(
    bundle: Bundle, unpacked: Unpacked, crash_program: Path
) -> None:
    host = "../../x\n\"'"

    with by_systemd(bundle, unpacked):
        subprocess.run(
            ["unshare", "--pid", "--fork", "--uts", sys.executable, "-c", AS, host, crash_program],
            check=True,
        )
        [record] = bundle.wait_for_stored()

    assert record["pid"] < record["host_pid"]
    assert (record["comm"], record["hostname"]) == ("crash", host)
    assert not record["truncated"]


def test_crashes_at_once_all_arrive(
    bundle: Bundle, unpacked: Unpacked, crash_program: Path
) -> None:
    with by_systemd(bundle, unpacked):
        started = [subprocess.Popen([crash_program, "segv"]) for _ in range(3)]
        for process in started:
            process.wait(60)
        records = bundle.wait_for_stored(3)

    assert {record["pid"] for record in records} == {process.pid for process in started}
    assert not any(record["truncated"] for record in records)
