"""Killed at any instant, the programs go on as if nothing had happened."""

import array
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from services.bundle import hold_sockets
from tests import crashes
from tests.bundle import BIN, Bundle, wait_until

StartBundle = Callable[..., Bundle]

CRASHES = 200
KILLS = 200
AT_ONCE = 4


class Immortal:
    """Runs a program, starts it again at once whenever it ends, and kills it at random."""

    def __init__(
        self, program: str, bundle: Bundle, env: dict[str, str], chance: random.Random
    ) -> None:
        self._words = [BIN / program]
        self._env = env
        self._chance = chance
        self._log = (bundle.home / f"{program}.log").open("ab")
        self._held = [int(env[name]) for name in ("CRASHAGENT_LISTEN_FD", "CRASHAGENT_KERNEL_FD")]
        self._stop = Event()
        self.kills = 0
        self._process = self._start()
        self._thread = Thread(target=self._live)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, env=self._env, stdout=self._log, pass_fds=self._held)

    def _live(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._chance.uniform(0.0, 0.6))
            if self.kills < KILLS // 2:
                self._process.send_signal(signal.SIGKILL)
                assert self._process.wait() == -signal.SIGKILL
                self.kills += 1
                self._process = self._start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._process, self._log:
            self._process.terminate()
            # One that has only just started has no handler yet.
            assert self._process.wait(30) in {0, -signal.SIGTERM}


@contextmanager
def immortals(bundle: Bundle, seed: int) -> Iterator[list[Immortal]]:
    env = bundle.env
    hold_sockets(env)
    programs = [
        Immortal(name, bundle, env, random.Random(f"{seed} {name}"))
        for name in ("coremond", "crashagent")
    ]
    with ExitStack() as stack:
        for program in programs:
            stack.callback(program.stop)
        yield programs


def crash_many(program: Path, number: int, chance: random.Random) -> set[int]:
    """Let *number* processes crash, some of them at once; give their pids."""
    pids: set[int] = set()
    running: list[subprocess.Popen[bytes]] = []
    while len(pids) < number or running:
        if len(pids) < number and len(running) < AT_ONCE:
            victim = subprocess.Popen([program, "segv", str(chance.randrange(4))])
            pids.add(victim.pid)
            running.append(victim)
        time.sleep(chance.uniform(0.0, 0.25))
        running = [victim for victim in running if victim.poll() is None]
    return pids


@pytest.mark.timeout(280)
@pytest.mark.usefixtures("real_kernel")
def test_200_kills_during_200_crashes_lose_and_double_nothing(
    home: Path, crash_program: Path
) -> None:
    bundle = Bundle(home, {"COREMON_CORES_MAX_FILES": "0", "COREMON_SCAN_INTERVAL": "1s"})
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)

    with immortals(bundle, seed) as programs:
        with crashes.by_file(bundle):
            pids = crash_many(crash_program, CRASHES // 2, chance)
        with crashes.by_apport(bundle, at_once=128):
            pids |= crash_many(crash_program, CRASHES - CRASHES // 2, chance)
        wait_until(lambda: sum(p.kills for p in programs) == KILLS, "the kills", 120)
        wait_until(lambda: len(bundle.stored()) >= CRASHES, f"{CRASHES} cores of {pids}", 60)
        wait_until(lambda: not bundle.leftovers(), "what is left over to go")

    records = bundle.stored()
    print(f"{sum(record['truncated'] for record in records)} of them came in partly")
    assert len(pids) == CRASHES
    strangers = [(r["comm"], r["exe"], r["arrived"]) for r in records if r["pid"] not in pids]
    assert not strangers, "others crashed on this machine meanwhile"
    assert sorted(record["pid"] for record in records) == sorted(pids)
    assert {record["state"] for record in bundle.records()} == {"stored"}
    assert {bundle.core(record).stat().st_nlink for record in records} == {1}
    assert bundle.corectl("verify").returncode == 0


def test_a_conversion_that_is_killed_is_done_again_and_no_more(start_bundle: StartBundle) -> None:
    bundle = start_bundle(COREMON_WORKERS="1")
    source = bundle.home / "core"
    with source.open("wb") as file:
        for _ in range(400):
            file.write(random.randbytes(2**20))
    source.rename(bundle.crash_dir / "core.big.7.f5-observer-0.1742738615173108860")
    wait_until(lambda: list(bundle.store_dir.glob(".core.*.tmp")), "the conversion")
    others = [bundle.pid_of("crashagent"), bundle.pid_of("qkview-collect")]

    killed = bundle.kill("coremond")
    [record] = bundle.wait_for_stored()

    wait_until(lambda: bundle.pid_of("coremond") not in {0, killed}, "coremond's next start")
    assert [bundle.pid_of("crashagent"), bundle.pid_of("qkview-collect")] == others
    assert record["size"] == 400 * 2**20
    wait_until(lambda: not bundle.leftovers(), "the source to go")
    assert bundle.corectl("verify").returncode == 0


def test_a_core_whose_intake_is_killed_is_kept_as_far_as_it_came(bundle: Bundle) -> None:
    sender = crashes.Sender(bundle.apport_socket)
    sender.send_message(b"7 11 0 1")
    sender.write(b"\x7fELF" + bytes(2**20))
    [part] = wait_until(lambda: list(bundle.spool.glob(".intake.*.part")), "the intake")
    wait_until(lambda: part.stat().st_size or part.stat().st_blocks, "its first bytes")

    bundle.kill("crashagent")
    [record] = bundle.wait_for_stored()

    assert (record["pid"], record["signal"], record["truncated"]) == (7, 11, True)
    assert record["truncated_why"] == "crashagent was ended while the core came in"
    wait_until(lambda: not bundle.leftovers(), "the source to go")
    sender.close()


def test_a_crash_that_was_accepted_and_not_noted_yet_outlives_crashagent(bundle: Bundle) -> None:
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sender:
        sender.connect(str(bundle.apport_socket))
        wait_until(lambda: crashes.is_accepted(bundle.apport_socket), "crashagent to accept it")

        bundle.kill("crashagent")
        rights = array.array("i", [reading])
        sender.sendmsg([b"8 11 0 1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    os.close(reading)
    os.write(writing, b"the core")
    os.close(writing)
    [record] = bundle.wait_for_stored()
    assert (record["pid"], record["size"], record["truncated"]) == (8, 8, False)


def test_without_its_keeper_crashagent_starts_afresh_and_loses_nothing(bundle: Bundle) -> None:
    crashagent = psutil.Process(bundle.pid_of("crashagent"))
    [keeper] = crashagent.children()
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        sender.write(b"the ")
        wait_until(lambda: list(bundle.spool.glob(".intake.*.part")), "the intake")

        keeper.kill()

        bundle.wait_for("keeper ended")
        sender.write(b"core")
    [record] = bundle.wait_for_stored()
    assert (record["size"], record["truncated"]) == (8, False)
    wait_until(lambda: bundle.pid_of("crashagent") not in {0, crashagent.pid}, "its next start")
    next_one = psutil.Process(bundle.pid_of("crashagent"))
    [another] = wait_until(next_one.children, "another keeper")
    assert another.pid != keeper.pid


def test_a_crash_that_comes_while_crashagent_is_down_waits_for_it(bundle: Bundle) -> None:
    bundle.ask("stopProcess", "crashagent")
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"9 6 0 1")
        sender.write(b"the core")
    assert bundle.pid_of("crashagent") == 0

    bundle.ask("startProcess", "crashagent")

    [record] = bundle.wait_for_stored()
    assert (record["pid"], record["signal"], record["size"]) == (9, 6, 8)


def test_qkview_collect_comes_back_and_the_others_do_not_notice(bundle: Bundle) -> None:
    others = [bundle.pid_of("coremond"), bundle.pid_of("crashagent")]

    killed = bundle.kill("qkview-collect")

    wait_until(lambda: bundle.pid_of("qkview-collect") not in {0, killed}, "its next start")
    assert [bundle.pid_of("coremond"), bundle.pid_of("crashagent")] == others
