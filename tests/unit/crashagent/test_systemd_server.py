"""Whatever comes to systemd-coredump's socket: a core that is there is kept, and nobody waits."""

import array
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from common.daemon import Stop
from common.disk import DiskLimits
from common.errors import ConfigError
from common.holds import Hold, HoldsFile, write_holds
from common.identity import Identifier
from common.item import CrashItem
from common.packing.crew import Crew
from common.workload import stem
from services.crashagent import systemd, systemd_connection
from services.crashagent.intakes import Intakes
from services.crashagent.listener import open_listener
from services.crashagent.measures import Measures
from services.crashagent.process import Held, _read_status
from services.crashagent.receive import Limits
from services.crashagent.spool import Spool
from services.crashagent.systemd import SystemdServer
from services.crashagent.turned_away import TurnedAway
from tests.bundle import wait_until
from tests.unit.factories import events_said, numbers_of

CORE = b"the core"
FIELDS = (
    b"COREDUMP_PID=2147483647",
    b"COREDUMP_UID=1000",
    b"COREDUMP_GID=100",
    b"COREDUMP_SIGNAL=11",
    b"COREDUMP_COMM=observer",
    b"COREDUMP_HOSTNAME=node-2",
)
MALFORMED, REFUSED = "coredump message malformed", "coredump message refused"
SILENT, LOST = "sender said nothing", "crash lost"


class House:
    """crashagent with this way in alone."""

    def __init__(self, home: Path, idle_timeout: float) -> None:
        self.crash_dir, self.run_dir = home / "crash", home / "run"
        self.run_dir.mkdir(mode=0o700)
        self.path = home / "coredump"
        self.taken: list[CrashItem] = []
        self.measures = Measures()
        self.stop = Stop()
        self._idle_timeout = idle_timeout
        self._stack = ExitStack()

    def start(self) -> None:
        enter = self._stack.enter_context
        limits = Limits(idle_timeout=5, timeout=5, disk=DiskLimits())
        listener = enter(open_listener(self.path, socket.SOCK_SEQPACKET))
        spool = enter(closing(Spool(self.crash_dir, "node-1", "raw", enter(Crew(1)))))
        holds = HoldsFile(self.run_dir)
        turned_away = enter(
            closing(
                TurnedAway(holds, Identifier("node-1"), spool, self.taken.append, self.measures)
            )
        )
        intakes = Intakes(
            spool.finish, limits, most=2, tell=self.taken.append, measures=self.measures
        )
        self._stack.callback(intakes.stop)
        server = SystemdServer(
            listener,
            spool,
            intakes,
            turned_away,
            self.measures,
            idle_timeout=self._idle_timeout,
        )
        self._thread = Thread(target=server.serve, args=[self.stop])
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._stack.close()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def wait_for(self, number: int = 1) -> list[CrashItem]:
        wait_until(lambda: len(self.taken) >= number, f"{number} items", 10)
        return self.taken

    def core(self) -> bytes:
        """Wait for the one core there is, and read it."""
        [item] = self.wait_for()
        return Path(item.path).read_bytes()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., House]]:
    with ExitStack() as stack:

        def started(idle_timeout: float = 10) -> House:
            made = House(tmp_path, idle_timeout)
            made.start()
            stack.callback(made.end)
            return made

        yield started


@pytest.fixture
def house(start: Callable[..., House]) -> House:
    return start()


@contextmanager
def core_pipe() -> Iterator[int]:
    """Give a pipe with a core in it."""
    reading, writing = os.pipe()
    os.write(writing, CORE)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def send(connection: socket.socket, *descriptors: int, said: bytes = b"") -> None:
    rights = array.array("i", descriptors)
    connection.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with suppress(BlockingIOError):
        return connection.recv(1) == b""
    return False


def say(connection: socket.socket, *fields: bytes) -> None:
    for datagram in fields or FIELDS:
        connection.send(datagram)


def hand_in(house: House) -> None:
    with house.connect() as connection, core_pipe() as core:
        say(connection)
        send(connection, core)


def open_descriptors() -> set[str]:
    """Name what this process has open of pipes and connections."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(("pipe:", "socket:", "anon_inode:[pidfd]")):
                found.add(f"{name} {target}")
    return found


def test_what_is_said_of_a_crash_comes_with_its_core(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()

    hand_in(house)

    assert house.core() == CORE
    [item] = house.taken
    assert (item.arrived, item.host_pid, item.uid, item.gid) == ("systemd", 2**31 - 1, 1000, 100)
    assert (item.signal, item.comm, item.hostname) == (11, "observer", "node-2")
    assert (item.truncated, item.capture) == (False, "stream")
    assert MALFORMED not in events_said(caplog)
    assert open_descriptors() == before


def test_what_a_dead_listener_left_is_cleared_away(
    start: Callable[..., House], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "coredump"))
    house = start()

    hand_in(house)

    assert house.core() == CORE
    assert stat.S_IMODE(house.path.stat().st_mode) == 0o600


def test_a_living_listener_keeps_its_socket(house: House) -> None:
    with pytest.raises(ConfigError, match="another program listens there"):
        open_listener(house.path, socket.SOCK_SEQPACKET)


def test_who_is_stopped_before_he_serves_ends_as_others_do(home: Path) -> None:
    house = House(home, idle_timeout=5)
    house.stop.set()

    house.start()

    house.end()
    assert house.taken == []


def test_a_core_may_come_with_nothing_said(house: House) -> None:
    with house.connect() as connection, core_pipe() as core:
        send(connection, core)

    assert house.core() == CORE
    assert house.taken[0].host_pid is None


def test_a_core_may_be_a_file(house: House, tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(CORE)
    with house.connect() as connection, (tmp_path / "core").open("rb") as core:
        send(connection, core.fileno())

    assert house.core() == CORE


def hold_whoever_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, uid: int
) -> list[tuple[int, int | None]]:
    """Take processes for such as are being dumped; give who was asked for."""
    asked: list[tuple[int, int | None]] = []

    class Another(Held):
        @property
        def uid(self) -> int:
            return uid

        def facts(self) -> dict[str, Any]:
            return {"host_pid": self._pid, "comm": "crash"}

        def open(self, name: str) -> int:
            raise PermissionError

    def hold(pid: int, own_pid: int | None = None) -> Held:
        asked.append((pid, own_pid))
        directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
        return Another(directory, pid, _read_status(directory))

    monkeypatch.setattr(systemd, "hold", hold)
    return asked


def test_the_process_is_found_by_its_pidfd_whatever_number_is_said(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hold_whoever_is_asked_for(monkeypatch, uid=0)
    pidfd = os.pidfd_open(os.getpid())
    with house.connect() as connection, core_pipe() as core, open("/etc/passwd", "rb") as other:
        say(connection, *FIELDS, b"COREDUMP_PROC_STATUS=NSpid:\t4711\t9\n")
        send(connection, core)
        send(connection, pidfd)
        send(connection, other.fileno())
    os.close(pidfd)

    assert house.core() == CORE
    assert asked == [(os.getpid(), 9)]
    assert (house.taken[0].host_pid, house.taken[0].comm) == (os.getpid(), "crash")


def test_a_process_of_another_user_is_not_the_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_whoever_is_asked_for(monkeypatch, uid=0)

    hand_in(house)

    assert house.core() == CORE
    assert house.taken[0].comm == "observer"


def test_a_second_descriptor_that_is_no_pidfd_is_closed(house: House) -> None:
    before = open_descriptors()
    with house.connect() as connection, core_pipe() as core, core_pipe() as another:
        send(connection, core)
        for _ in range(5):
            send(connection, another)

    assert house.core() == CORE
    wait_until(lambda: open_descriptors() == before, "all to be closed")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((b"COREDUMP_UID=x",), "UID: expected a number"),
        ((b"COREDUMP_UID=1", b"COREDUMP_UID=2"), "a second UID"),
        ((b"COREDUMP_COMM=a\0b",), "a NUL in COMM"),
        ((b"nonsense",), "expected <name>=<value>"),
        ((b"COREDUMP_X=1",) * 300, "more than 256 fields"),
    ],
)
def test_the_core_is_kept_without_fields_that_are_wrong(
    fields: tuple[bytes, ...], reason: str, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as connection, core_pipe() as core:
        say(connection, *fields)
        send(connection, core)

    assert house.core() == CORE
    assert MALFORMED in events_said(caplog)
    assert reason in reason_of(MALFORMED, caplog)


def reason_of(text: str, caplog: pytest.LogCaptureFixture) -> str:
    """Give the reason of the first line that says *text*."""
    found = next(record for record in caplog.records if record.getMessage() == text)
    return str(vars(found))


def test_a_field_of_megabytes_is_read_as_far_as_it_is_of_use(house: House) -> None:
    with house.connect() as connection, core_pipe() as core:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        size = connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4
        say(connection, b"COREDUMP_CMDLINE=" + b"a" * size, b"COREDUMP_UID=7")
        send(connection, core)

    assert house.core() == CORE
    assert (house.taken[0].uid, len(house.taken[0].cmdline)) == (7, 4096)


def test_fields_behind_the_core_are_passed_over(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as connection, core_pipe() as core:
        say(connection)
        send(connection, core)
        say(connection, b"COREDUMP_CGROUP=/later")

    assert house.core() == CORE
    assert (house.taken[0].comm, house.taken[0].cgroup) == ("observer", "")
    assert "a field behind the core" in reason_of(MALFORMED, caplog)


def test_a_core_that_comes_with_a_field_is_kept(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as connection, core_pipe() as core:
        send(connection, core, said=b"COREDUMP_UID=7")

    assert house.core() == CORE
    assert house.taken[0].uid == 7
    assert "a field with a descriptor" in reason_of(MALFORMED, caplog)


def test_of_several_descriptors_at_once_the_first_is_the_core(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()
    with house.connect() as connection, core_pipe() as core, open("/dev/null", "rb") as null:
        say(connection)
        send(connection, core, *[null.fileno()] * 252)

    assert house.core() == CORE
    assert "253 descriptors at once" in reason_of(MALFORMED, caplog)
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["directory", "socket", "device", "pidfd"])
def test_a_descriptor_that_is_no_pipe_and_no_file_is_refused(
    kind: str, house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()
    ours, theirs = socket.socketpair()
    wrong = {
        "directory": lambda: os.open(tmp_path, os.O_RDONLY),
        "socket": lambda: os.dup(theirs.fileno()),
        "device": lambda: os.open("/dev/zero", os.O_RDONLY),
        "pidfd": lambda: os.pidfd_open(os.getpid()),
    }[kind]()
    with ours, theirs, house.connect() as connection:
        say(connection)
        send(connection, wrong)
        os.close(wrong)

        wait_until(lambda: REFUSED in events_said(caplog), "the refusal")

    wait_until(lambda: open_descriptors() == before, "all to be closed")
    hand_in(house)
    assert house.core() == CORE


def test_an_end_before_the_core_is_refused(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with house.connect() as connection:
        say(connection)

    wait_until(lambda: REFUSED in events_said(caplog), "the refusal")
    assert "6 fields came, and no core" in reason_of(REFUSED, caplog)


def test_an_empty_datagram_without_a_descriptor_is_the_end(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as connection:
        say(connection)
        connection.send(b"")

        wait_until(lambda: REFUSED in events_said(caplog), "the refusal")
        wait_until(lambda: is_closed(connection), "the end")


def test_who_only_looks_is_not_worth_a_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.connect().close()

    hand_in(house)

    house.wait_for()
    assert set(events_said(caplog)) <= {"connection without a message", "crash taken in"}


def test_who_is_silent_or_slow_keeps_nobody_waiting(
    start: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    house = start(idle_timeout=1.5)
    with house.connect() as silent, house.connect() as slow:
        say(slow, FIELDS[0])
        started = time.monotonic()

        hand_in(house)

        house.wait_for()
        assert time.monotonic() - started < 1
        for _ in range(3):  # what comes in drops does not make it last longer
            time.sleep(0.2)
            say(slow, b"COREDUMP_X=1")
        wait_until(lambda: is_closed(silent) and is_closed(slow), "both to be closed", 5)
        assert events_said(caplog).count(SILENT) == 2


def test_who_never_ends_is_ended(
    start: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    house = start(idle_timeout=1)
    with house.connect() as endless:

        def talk() -> None:
            with suppress(OSError):
                while True:
                    endless.send(b"COREDUMP_ENVIRON=" + b"a" * 1000)

        talking = Thread(target=talk)
        talking.start()
        time.sleep(0.3)

        hand_in(house)

        assert house.core() == CORE
        talking.join(10)
        assert not talking.is_alive()
        assert SILENT in events_said(caplog)


def test_a_sender_that_stays_after_its_core_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd_connection, "GRACE", 0.3)
    with house.connect() as connection, core_pipe() as core:
        say(connection)
        send(connection, core)

        assert house.core() == CORE


def test_no_more_than_so_many_wait_and_the_oldest_goes(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(systemd, "MOST_WAITING", 3)
    with ExitStack() as stack:
        first, *others = [stack.enter_context(house.connect()) for _ in range(5)]

        hand_in(house)

        house.wait_for()
        wait_until(lambda: is_closed(first), "the first to be closed")
        assert not is_closed(others[-1])
        assert "too many others wait" in reason_of(SILENT, caplog)


def test_a_crash_waits_for_a_descriptor_that_is_not_to_be_had(house: House) -> None:
    with house.connect() as connection, core_pipe() as core:
        say(connection)
        time.sleep(0.3)  # it is accepted
        with no_descriptors_left():
            send(connection, core)
            time.sleep(0.5)
            assert house.taken == []

        assert house.core() == CORE


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    # Those that are free below the highest that is open are taken.
    filling = [os.open("/dev/null", os.O_RDONLY)]
    highest = max(map(int, os.listdir("/proc/self/fd")))
    while filling[-1] < highest:
        filling.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)


def test_a_crash_that_nobody_would_keep_is_counted(house: House) -> None:
    until = time.time_ns() + 10**11
    hold = Hold(
        namespace="",
        workload=stem("node-2"),
        container=stem("node-2"),
        process="observer",
        until=until,
        reason="too many",
    )
    write_holds(house.run_dir, [hold])
    before = open_descriptors()

    hand_in(house)
    hand_in(house)

    # Counts are written once a second: there may be one in between.
    wait_until(lambda: sum(item.count for item in house.taken) == 2, "both to be counted")
    item = house.taken[0]
    assert (item.turned_away, item.held_until) == ("too many", until)
    assert (item.arrived, item.comm, item.hostname) == ("systemd", "observer", "node-2")
    assert Path(item.path).read_bytes() == b""
    wait_until(lambda: open_descriptors() == before, "its core to be closed")


def test_what_is_nearly_said_when_crashagent_stops_is_heard(house: House) -> None:
    with house.connect() as connection, core_pipe() as core:
        say(connection)
        time.sleep(0.2)
        house.stop.set()
        time.sleep(0.1)
        send(connection, core)

    assert house.core() == CORE


def test_who_says_nothing_does_not_keep_crashagent_from_stopping(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as connection:
        say(connection)
        time.sleep(0.2)
        started = time.monotonic()
        house.end()

        assert time.monotonic() - started < 3
        assert is_closed(connection)
    assert REFUSED in events_said(caplog)


def test_a_crash_is_counted_once_it_is_whole(house: House) -> None:
    hand_in(house)
    house.wait_for()

    found = numbers_of(house.measures.registry)
    assert found["intake_total systemd"] == 1
    assert found["intake_bytes_total"] == len(CORE)
    assert found["intake_seconds_count released"] == found["intake_seconds_count whole"] == 1
    assert found["intake_refused_total systemd"] == found["intake_lost_total systemd"] == 0


def test_who_sends_no_core_is_counted_and_who_only_looks_is_not(house: House) -> None:
    house.connect().close()
    with house.connect() as connection:
        say(connection)

    wait_until(
        lambda: numbers_of(house.measures.registry)["intake_refused_total systemd"] == 1, "a count"
    )
    assert house.taken == []
