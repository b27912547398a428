"""What may arrive at the Apport socket and in the crash directory, and what must not come of it."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import crashes
from tests.bundle import BIN, Bundle, wait_until

StartBundle = Callable[..., Bundle]

NOBODY = 65534
STARVING = 160


def hand_in(bundle: Bundle, message: bytes = b"9 11 0 1", core: bytes = b"the core") -> None:
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(message)
        sender.write(core)


def as_nobody(bundle: Bundle, code: str) -> "subprocess.Popen[bytes]":
    """Run Python *code* as a user of the node who owns nothing, in the crash directory."""
    if os.geteuid() != 0:
        pytest.skip("missing: root, to become another user")
    bundle.home.chmod(0o755)
    bundle.crash_dir.chmod(0o1777)
    # The interpreter may stand where only root can start it, so it changes the user itself.
    become = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    script = f"import os,fcntl,signal,time\n{become}\nprint('go', flush=True)\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=bundle.crash_dir, stdout=subprocess.PIPE
    )


def test_a_socket_that_never_gives_is_not_read_from(start_bundle: StartBundle) -> None:
    bundle = start_bundle(CRASHAGENT_MAX_INTAKES="1")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2**30)
        ours.send(b"a")
        crashes.forward(bundle.apport_socket, b"8 11 0 1", theirs.fileno())

        hand_in(bundle)

        [record] = bundle.wait_for_stored()
    assert record["pid"] == 9
    bundle.wait_for("apport message refused", reason="its descriptor is no pipe and no file")


def test_who_says_nothing_keeps_nobody_waiting(start_bundle: StartBundle) -> None:
    bundle = start_bundle(CRASHAGENT_MAX_INTAKES="1", CRASHAGENT_IDLE_TIMEOUT="2s")
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(300)]
    for connection in silent:
        connection.connect(str(bundle.apport_socket))

    hand_in(bundle)

    bundle.wait_for_stored()
    bundle.wait_for("sender said nothing")
    wait_until(lambda: all(map(is_closed, silent)), "all of them to be closed")
    for connection in silent:
        connection.close()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def test_no_crash_is_thrown_away_for_want_of_descriptors(home: Path) -> None:
    bundle = Bundle(home, {"COREMON_CORES_MAX_FILES": "0", "CRASHAGENT_MAX_INTAKES": "4"})
    # Each crash that is noted holds two descriptors until its core has come.
    bundle.command = ["sh", "-c", f"ulimit -n 300; exec {BIN}/coremond-bundle"]
    with bundle:
        senders = [crashes.Sender(bundle.apport_socket) for _ in range(STARVING)]
        for number, sender in enumerate(senders, 1):
            sender.send_message(f"{number} 11 0 1".encode())
        time.sleep(0.5)  # long enough for all descriptors to be taken
        threads = [threading.Thread(target=finish, args=(sender,)) for sender in senders]
        for thread in threads:
            thread.start()

        records = bundle.wait_for_stored(STARVING)
        for thread in threads:
            thread.join()

    assert {record["pid"] for record in records} == set(range(1, STARVING + 1))
    assert not bundle.find("crash lost")


def finish(sender: crashes.Sender) -> None:
    sender.write(b"the core")
    sender.close()


def test_a_lease_of_another_user_holds_nobody_up(bundle: Bundle) -> None:
    hostile = as_nobody(
        bundle,
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "fd = os.open('.mine', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "os.rename('.mine', 'core.leased'); print('held', flush=True); time.sleep(60)",
    )
    with hostile:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == b"go\n"
        assert hostile.stdout.readline() == b"held\n"

        hand_in(bundle)

        bundle.wait_for_stored()
        hostile.kill()


@pytest.mark.parametrize(
    "code",
    [
        "os.truncate(os.open('.q', os.O_RDWR | os.O_CREAT), 2**62); os.rename('.q', 'core.x')",
        "[open(f'core.p.9999999999.host.170000000{n}', 'w').write('x') for n in range(9)]",
        "[os.mkdir(f'core.d{n}') for n in range(50)]; os.mkdir('.core.x.item')",
    ],
    ids=["a hole without end", "pids that cannot be", "directories"],
)
def test_files_of_another_user_stop_nothing(start_bundle: StartBundle, code: str) -> None:
    bundle = start_bundle(
        COREMON_MAX_CORE="1M", COREMON_SCAN_INTERVAL="500ms", COREMON_CORES_MAX_FILES="0"
    )
    with as_nobody(bundle, code) as hostile:
        hostile.wait(30)
    pids = [process["pid"] for process in bundle.processes()]

    hand_in(bundle)

    wait_until(partial(has_pid, bundle, 9), "the real crash to be stored")
    assert [process["pid"] for process in bundle.processes()] == pids
    bundle.stop()
    with bundle:
        assert not bundle.find("crash record unreadable")


def has_pid(bundle: Bundle, pid: int) -> bool:
    return any(record["pid"] == pid and record["arrived"] == "apport" for record in bundle.stored())


def test_a_disk_that_others_fill_ends_nobody(small_disk: Path, home: Path) -> None:
    bundle = Bundle(
        home,
        {"COREMON_KEEP_FREE": "20%", "COREMON_CORES_INTERVAL": "300ms", "COREMON_RETENTION": "1s"},
    )
    with bundle:
        hand_in(bundle, core=os.urandom(2**20))
        bundle.wait_for_stored()
        pid = bundle.pid_of("coremond")
        with (small_disk / "ballast").open("wb") as ballast:
            fill(ballast.fileno())

        bundle.wait_for("core removed")

        assert bundle.pid_of("coremond") == pid
        assert [record["state"] for record in bundle.records()] == ["removed"]


def fill(descriptor: int) -> None:
    for size in (2**16, 4096, 1):
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError:
            continue


def test_a_cores_directory_that_was_replaced_is_found_again(bundle: Bundle) -> None:
    bundle.wait_for("coremon dest")
    bundle.store_dir.rename(bundle.home / "away")

    hand_in(bundle)

    assert bundle.wait_for_stored()


def test_a_stop_is_not_held_up_by_who_says_nothing(bundle: Bundle) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(bundle.apport_socket))
        wait_until(lambda: crashes.is_accepted(bundle.apport_socket), "crashagent to accept it")

        bundle.ask("stopProcess", "crashagent")

    stopped = "stopped: crashagent (exit status 0)"
    wait_until(lambda: any(stopped in line for line in bundle.lines), "supervisord to say so")
