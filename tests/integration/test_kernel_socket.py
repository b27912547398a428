"""Crashes that the kernel itself hands in, through its coredump socket."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from common.packing.restoring import restore
from tests import kernel
from tests.bundle import Bundle, wait_until
from tests.crashes import kill_victim, run_to_death, start_victim

StartBundle = Callable[..., Bundle]

NOBODY = 65534
AT_ONCE = 50

pytestmark = pytest.mark.usefixtures("coredump_socket")

# Calls itself as it is told, in namespaces of its own, and crashes.
HOSTILE = """
import os, resource, signal, socket, sys
comm, host = map(os.fsencode, sys.argv[1:])
open("/proc/self/comm", "wb", buffering=0).write(comm or b"\\0")
if host:
    socket.sethostname(host)
os.kill(os.getpid(), signal.SIGSEGV) if os.getpid() != 1 else os.abort()
"""
MUCH = (
    "import mmap, os; area = mmap.mmap(-1, 24 * 2**30, 0x4022); area[0] = 1;"
    "print(flush=True); os.abort()"
)
"""Anonymous private memory that takes the kernel many seconds to write."""


@contextmanager
def by_socket(bundle: Bundle, mode: str = "@@") -> Iterator[None]:
    """Have the kernel hand crashes to the bundle."""
    with kernel.core_pattern(f"{mode}{socket_of(bundle)}"):
        yield


def socket_of(bundle: Bundle) -> Path:
    return bundle.run_dir / "kernel.sock"


def restored(bundle: Bundle, record: dict[str, Any]) -> Path:
    """Unpack a record's core into a file."""
    target = bundle.home / f"{record['id']}.core"
    with bundle.core(record).open("rb") as packed, target.open("w+b") as file:
        restore(packed.fileno(), file.fileno())
    return target


def run_python(code: str, *words: str, **given: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code, *words], **given)


@pytest.mark.parametrize("mode", ["@", "@@"])
def test_a_crash_is_stored_whole_with_all_that_is_known(
    bundle: Bundle, crash_program: Path, mode: str
) -> None:
    with by_socket(bundle, mode):
        pid = run_to_death(crash_program, "segv", "4")
        [record] = bundle.wait_for_stored()

    expected = {
        "arrived": "kernel-socket",
        "capture": "resident",
        "pid": pid,
        "host_pid": pid,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "signal": signal.SIGSEGV,
        "comm": "crash",
        "exe": str(crash_program),
        "cmdline": f"{crash_program} segv 4",
        "dumpable": 1,
        "elf": True,
        "truncated": False,
        "truncated_why": "",
    }
    assert {name: record[name] for name in expected} == expected
    assert record["size"] > 4 * 2**20
    assert bundle.corectl("verify").returncode == 0
    assert bundle.leftovers() == []


@pytest.mark.parametrize("way", ["segv", "threads"])
def test_others_read_the_core(bundle: Bundle, crash_program: Path, way: str) -> None:
    for needed in ("gdb", "readelf"):
        if not shutil.which(needed):
            pytest.skip(f"missing: {needed}")
    with by_socket(bundle):
        run_to_death(crash_program, way)
        [record] = bundle.wait_for_stored()
    core = restored(bundle, record)

    headers = subprocess.run(["readelf", "-lnW", core], capture_output=True, text=True, check=True)
    gdb = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "thread apply all bt", crash_program, core],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "NT_PRSTATUS" in headers.stdout
    assert headers.stderr == ""
    assert "main (argc=" in gdb.stdout
    assert gdb.stdout.count("\nThread ") == (33 if way == "threads" else 1)
    assert "Cannot access memory" not in gdb.stdout + gdb.stderr


def test_a_crash_of_another_user_is_that_users(bundle: Bundle, crash_program: Path) -> None:
    program = shutil.copy(crash_program, bundle.home / "crash-it")
    bundle.home.chmod(0o755)
    with by_socket(bundle):
        process = subprocess.Popen([program], user=NOBODY, group=NOBODY, extra_groups=[])
        assert process.wait(60) == -signal.SIGSEGV
        [record] = bundle.wait_for_stored()

    assert (record["uid"], record["gid"], record["pid"]) == (NOBODY, NOBODY, process.pid)
    assert record["capture"] == "resident"
    assert bundle.core(record).stat().st_uid == os.getuid()


def test_all_that_streams_is_taken_where_memory_is_not_to_be_read(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(CRASHAGENT_RESIDENT="false")
    with by_socket(bundle):
        run_to_death(crash_program, "segv", "4")
        [record] = bundle.wait_for_stored()

    assert (record["capture"], record["truncated"]) == ("stream", False)


HOSTILE_NAMES = {
    "path": b"../../x",
    "newline": b"a\nUid:\t0\n",
    "quotes": b"\"'|=\\",
    "invalid": b"\xff\xfe\x80",
    "dash": b"-",
    "dots": b"..",
    "empty": b"",
    "parentheses": b") R 1 1",
    "specifier": b"%p %P",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_hostile_process_in_namespaces_of_its_own_is_one_crash(
    bundle: Bundle, name: bytes
) -> None:
    words = ["unshare", "-r", "-p", "-m", "-u", "-i", "-n", "-f", "--kill-child"]
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("missing: namespaces that may be made (unshare -r -p -m -u)")
    beside = sorted(os.listdir(bundle.home))
    with by_socket(bundle):
        # The process 1 of a pid namespace dies of no signal that it sends itself: its child does.
        script = f"import os\nif os.fork() == 0:\n exec({HOSTILE!r})\nos.wait()"
        subprocess.run([*words, sys.executable, "-c", script, name, name], timeout=60)
        [record] = bundle.wait_for_stored()

    shown = name[:15].decode(errors="backslashreplace") or "unknown"
    assert record["comm"] == shown
    assert record["pid"] == 2
    assert record["host_pid"] > 2
    assert record["uid"] == os.getuid()  # as we see it; it takes itself for root
    assert (record["capture"], record["truncated"]) == ("resident", False)
    if name:
        assert record["pod"] == name.decode(errors="backslashreplace")
    assert bundle.leftovers() == []
    assert sorted({*os.listdir(bundle.home)} - {"minlevel.yaml"}) == beside
    assert bundle.corectl("verify").returncode == 0
    assert bundle.corectl("list").returncode == 0


def test_who_is_killed_in_the_middle_of_the_dump_is_cut_and_marked(
    start_bundle: StartBundle,
) -> None:
    bundle = start_bundle(CRASHAGENT_RESIDENT="false")
    with by_socket(bundle):
        with run_python(MUCH, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            wait_until(lambda: any_part(bundle), "the core to come in")
            process.kill()
        [record] = bundle.wait_for_stored()

    assert record["truncated"]
    assert "bytes of it are missing" in record["truncated_why"]
    assert (record["pid"], record["signal"]) == (process.pid, signal.SIGABRT)


def any_part(bundle: Bundle) -> bool:
    return any(path.stat().st_size > 0 for path in bundle.spool.glob(".intake.*.part"))


def test_who_connects_and_does_not_crash_is_refused(bundle: Bundle, crash_program: Path) -> None:
    with socket.socket(socket.AF_UNIX) as pretender:
        pretender.connect(str(socket_of(bundle)))
        with suppress(BrokenPipeError):  # it is refused already
            pretender.send(b"\x7fELF" + bytes(4096))

        refused = bundle.wait_for("coredump connection refused")

        assert (
            refused["reason"] == f"the process {os.getpid()}, which connected, is not being dumped"
        )
        pretender.settimeout(30)
        with suppress(ConnectionResetError):
            assert pretender.recv(1) == b""
    with by_socket(bundle):
        run_to_death(crash_program)
        assert len(bundle.wait_for_stored()) == 1
    assert bundle.leftovers() == []


def test_who_connects_first_and_then_crashes_is_one_crash(bundle: Bundle) -> None:
    code = (
        "import os, socket; s = socket.socket(socket.AF_UNIX);"
        f"s.connect({str(socket_of(bundle))!r}); s.send(b'\\x7fELF forged');"
        "print(flush=True); os.abort()"
    )
    with by_socket(bundle):
        with run_python(code, stdout=subprocess.PIPE) as process, not_served(bundle):
            assert process.stdout is not None
            process.stdout.readline()
            wait_until(lambda: is_dumping(process.pid), "the crash")  # both are seen at once
        records = bundle.wait_for_stored()

    assert [record["pid"] for record in records] == [process.pid]


@contextmanager
def not_served(bundle: Bundle) -> Iterator[None]:
    """Keep crashagent from taking anything in."""
    agent = bundle.pid_of("crashagent")
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent, signal.SIGCONT)


def test_who_is_gone_before_it_is_taken_in_is_a_crash(bundle: Bundle) -> None:
    # With @, the kernel waits for nobody once all of a small core is said.
    small = 'import os; open("/proc/self/coredump_filter", "w").write("0"); os.abort()'
    with by_socket(bundle, "@"):
        with not_served(bundle), run_python(small) as process:
            assert process.wait(60) == -signal.SIGABRT
        [record] = bundle.wait_for_stored()

    assert (record["pid"], record["signal"]) == (process.pid, signal.SIGABRT)
    assert (record["arrived"], record["truncated"]) == ("kernel-socket", False)


def test_who_is_killed_before_it_is_taken_in_is_a_crash(
    bundle: Bundle, crash_program: Path
) -> None:
    with by_socket(bundle):
        with not_served(bundle), subprocess.Popen([crash_program]) as process:
            wait_until(lambda: is_dumping(process.pid), "the crash")
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
        [record] = bundle.wait_for_stored()

    assert record["truncated"]
    assert record["size"] == 0


def is_dumping(pid: int) -> bool:
    return "CoreDumping:\t1" in Path(f"/proc/{pid}/status").read_text()


def test_many_crashes_at_once_are_all_stored(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="0")
    with by_socket(bundle):
        processes = [subprocess.Popen([crash_program, "segv", "1"]) for _ in range(AT_ONCE)]
        for process in processes:
            assert process.wait(60) == -signal.SIGSEGV
        records = bundle.wait_for_stored(AT_ONCE)

    assert {record["pid"] for record in records} == {process.pid for process in processes}
    assert {record["capture"] for record in records} == {"resident"}
    assert not any(record["truncated"] for record in records)
    assert bundle.leftovers() == []


def test_no_crash_is_forgotten_while_crashagent_is_killed(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="0")
    pids = []
    with by_socket(bundle):
        for number in range(30):
            process = subprocess.Popen([crash_program, "segv", "1"])
            if number % 10 == 5:
                bundle.kill("crashagent")
            process.wait(60)
            pids.append(process.pid)
        wait_until(lambda: len(bundle.records()) >= 27, "nearly all")

    assert len({record["pid"] for record in bundle.records()}) >= 27


def test_a_core_that_is_too_large_is_cut_and_marked(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_MAX_CORE="3M")
    with by_socket(bundle):
        run_to_death(crash_program, "segv", "16")
        [record] = bundle.wait_for_stored()

    assert record["truncated"]
    assert f"more than {3 * 2**20} bytes of data" in record["truncated_why"]
    assert record["signal"] == signal.SIGSEGV


@pytest.mark.parametrize("resident", ["true", "false"])
def test_a_full_disk_costs_the_core_and_not_the_record(
    small_disk: Path, home: Path, crash_program: Path, resident: str
) -> None:
    bundle = Bundle(home, {"CRASHAGENT_RESIDENT": resident})
    bundle.settings["COREMON_CRASH_DIR"] = str(small_disk / "crash")
    noise = "import os; kept = os.urandom(32 * 2**20); os.abort()"
    with bundle, by_socket(bundle):
        with run_python(noise) as process:
            assert process.wait(60) == -signal.SIGABRT
        cut = bundle.wait_for("core came in partly")

        assert "No space left" in cut["reason"] or "disk was full" in cut["reason"]
        assert bundle.pid_of("crashagent")


def test_two_crashes_of_a_program_with_threads_are_two(bundle: Bundle, crash_program: Path) -> None:
    with by_socket(bundle):
        pids = {run_to_death(crash_program, "threads") for _ in range(2)}
        records = bundle.wait_for_stored(2)

    assert {record["pid"] for record in records} == pids
    assert {record["tid"] for record in records} == pids


def test_a_victim_is_told_by_the_name_of_its_host(bundle: Bundle) -> None:
    with by_socket(bundle):
        pid = kill_victim(start_victim("observer", "f5-observer-0"))
        [record] = bundle.wait_for_stored()

    assert (record["pod"], record["process"], record["pid"]) == ("f5-observer-0", "observer", pid)


def test_a_collector_that_sees_no_other_processes_takes_what_streams(
    home: Path, crash_program: Path
) -> None:
    bundle = Bundle(home)
    apart = "unshare --pid --fork --kill-child=SIGTERM --mount-proc"  # which ignores SIGTERM itself
    script = f'{apart} "$@" & trap "kill -KILL $!" TERM; wait'
    bundle.command = ["sh", "-c", script, "sh", *bundle.command]
    with bundle, kernel.core_pattern(f"@@{bundle.run_dir}/kernel.sock"):
        pid = run_to_death(crash_program, "segv", "1")

        [record] = bundle.wait_for_stored()

    assert (record["capture"], record["truncated"]) == ("stream", False)
    assert (record["comm"], record["pid"], record["host_pid"]) == ("crash", pid, None)
