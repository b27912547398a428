"""`corectl host` and `corectl intake` on the real kernel: what is set, arrives, is put back."""

import array
import json
import os
import resource
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from common.elf import read_notes
from common.naming import read_source_name
from tests import crashes, kernel
from tests.bundle import BIN, PATIENCE, Bundle, wait_until

pytestmark = pytest.mark.usefixtures("real_kernel")

HOSTILE = ["../../x", "a\nb", "\"'`$(x)`", "-", "--", "-P1", "%p", b"\xff\xfe", "..", "x" * 64]
WORDS = ["-P1", "-p7", "-i7", "-u1000", "-g100", "-s11", "-t1742738615", "-d2", "-F", "-hvm"]


def core_pattern() -> str:
    return kernel.SETTINGS["core_pattern"].read_text().removesuffix("\n")


def pipe_limit() -> str:
    return kernel.SETTINGS["core_pipe_limit"].read_text().strip()


class Host:
    """Owns a folder with what the programs would have, and runs corectl there as the operator."""

    def __init__(self, home: Path, settings: dict[str, str]) -> None:
        self.home = home
        self.crash_dir = Path(settings["COREMON_CRASH_DIR"])
        self.settings = settings
        # A core_pattern has room for short paths only, and BIN may have a long one.
        self.corectl = home / "corectl"
        self.corectl.symlink_to(BIN / "corectl")
        self.env_file = home / "e"
        self.env_file.write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()))

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [self.corectl, *words]
        env = {**os.environ, **self.settings}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=PATIENCE * 2, **options
        )

    def host(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("--env", self.env_file, "host", *words, **options)

    def intake(self, core: bytes, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
        """Run the helper as the kernel does: no environment, standard output and error closed."""
        command = [str(self.corectl), "intake", "--env", str(self.env_file), *words]
        return subprocess.run(
            ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], env={}, input=core, timeout=PATIENCE
        )

    def cores(self) -> list[Path]:
        return sorted(self.crash_dir.glob("core*")) if self.crash_dir.exists() else []


@pytest.fixture
def host(home: Path) -> Host:
    return Host(
        home,
        {
            "COREMON_RUN_DIR": str(home / "run"),
            "COREMON_CRASH_DIR": str(home / "crash"),
            "COREMON_CORES_DIR": str(home / "cores"),
            "CRASHAGENT_APPORT_SOCKET": str(home / "apport.socket"),
            "COREMON_KEEP_FREE": "0",
            "NODE_NAME": "node-1",
        },
    )


@pytest.fixture
def unset() -> Iterator[None]:
    """Borrow the kernel's settings, as a host has them that nobody has prepared."""
    with kernel.core_pattern("core"):
        yield


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[socket.socket]:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(backlog)
        door.settimeout(PATIENCE)
        yield door


def receive(door: socket.socket) -> tuple[bytes, list[int], bytes]:
    """Take one message: what it says, how many descriptors came, and what the first one holds."""
    connection, _ = door.accept()
    with connection:
        message, ancillary, _, _ = connection.recvmsg(65536, 4096)
        assert connection.recv(1) == b""
    found = array.array("i")
    for level, kind, data in ancillary:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        found.frombytes(data)
    with open(found[0], "rb") as core:
        return message, list(found), core.read()


# prepare and restore


@pytest.mark.usefixtures("unset")
def test_a_file_pattern_is_prepared_takes_a_crash_and_is_put_back(
    host: Host, crash_program: Path
) -> None:
    prepared = host.host("prepare", "--mode", "file")
    pattern = core_pattern()
    mode = stat.S_IMODE(host.crash_dir.stat().st_mode)
    checked = host.host("check", "--json")
    pid = crashes.run_to_death(crash_program)
    restored = host.host("restore")

    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert (pattern, mode) == (f"{host.crash_dir}/core.%e.%p.%h.%t", 0o1777)
    assert (checked.returncode, json.loads(checked.stdout)["ok"]) == (0, True)
    assert [read_source_name(core.name)[0].pid for core in host.cores()] == [pid]
    assert (restored.returncode, core_pattern()) == (0, "core")
    assert host.crash_dir.exists(), "there is a core in it"


@pytest.mark.usefixtures("unset")
def test_a_second_restore_has_nothing_to_do_and_nothing_is_left(host: Host) -> None:
    host.host("prepare", "--mode", "file")

    first, second = host.host("restore"), host.host("restore")

    assert "core_pattern is core again" in first.stdout
    assert (second.returncode, second.stderr) == (0, "")
    assert "nothing to restore" in second.stdout
    assert not host.crash_dir.exists()
    assert [*(host.home / "run").iterdir()] == []


def test_what_the_host_had_survives_every_further_prepare(host: Host) -> None:
    with kernel.core_pattern("|/bin/false %p", pipe_limit=7):
        for mode in ("file", "pipe", "pipe", "file"):
            assert host.host("prepare", "--mode", mode).returncode == 0
        limit_of_file = pipe_limit()
        host.host("prepare", "--mode", "pipe")
        limit_of_pipe = pipe_limit()
        host.host("restore")

        assert (limit_of_file, limit_of_pipe) == ("7", "16")
        assert (core_pattern(), pipe_limit()) == ("|/bin/false %p", "7")


@pytest.mark.usefixtures("unset")
def test_what_somebody_else_has_set_since_stays(host: Host) -> None:
    host.host("prepare", "--mode", "pipe")
    kernel.SETTINGS["core_pattern"].write_text("/theirs/core\n")

    restored = host.host("restore")

    assert restored.returncode == 0
    assert "core_pattern is /theirs/core, which somebody else has set since" in restored.stdout
    assert (core_pattern(), pipe_limit()) == ("/theirs/core", "0")


@pytest.mark.usefixtures("unset")
def test_a_prepare_after_somebody_else_keeps_what_they_set(host: Host) -> None:
    host.host("prepare", "--mode", "file")
    kernel.SETTINGS["core_pattern"].write_text("/theirs/core\n")
    host.host("prepare", "--mode", "file")

    host.host("restore")

    assert core_pattern() == "/theirs/core"


@pytest.mark.usefixtures("unset")
def test_a_directory_that_is_there_is_opened_to_every_user(host: Host) -> None:
    host.crash_dir.mkdir(mode=0o755)
    before = host.host("check")
    kernel.SETTINGS["core_pattern"].write_text(kernel.file_pattern(host.crash_dir))
    closed = host.host("check")
    kernel.SETTINGS["core_pattern"].write_text("core")

    host.host("prepare", "--mode", "file")

    assert (before.returncode, closed.returncode) == (1, 1)
    assert "corectl: core_pattern is no absolute path" in before.stderr
    assert f"chmod 1777 {host.crash_dir}" in closed.stderr
    assert stat.S_IMODE(host.crash_dir.stat().st_mode) == 0o1777
    assert host.host("check").returncode == 0


@pytest.mark.usefixtures("unset")
def test_auto_takes_the_socket_where_crashagent_listens_and_the_file_elsewhere(host: Host) -> None:
    host.host("prepare")
    without = core_pattern()
    path = host.home / "run" / "kernel.sock"
    with listening(path):
        path.chmod(0o600)
        prepared = host.host("prepare", "--mode", "auto")
        with_socket = core_pattern()
        checked = json.loads(host.host("check", "--json").stdout)

    assert without == f"{host.crash_dir}/core.%e.%p.%h.%t"
    if checked["facts"]["release"].startswith(("5.", "6.1.", "6.6.", "6.12.")):
        assert with_socket == without
        return
    assert with_socket.lstrip("@") == str(path)
    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert [way["name"] for way in checked["ways"] if way["works"]] == ["kernel-socket"]


@pytest.mark.usefixtures("unset", "coredump_socket")
def test_a_socket_where_nobody_listens_is_refused_and_nothing_is_touched(host: Host) -> None:
    prepared = host.host("prepare", "--mode", "socket")

    assert (prepared.returncode, core_pattern()) == (1, "core")
    assert "every core would be lost; start the bundle first" in prepared.stderr
    assert not (host.home / "run").exists()
    assert not host.crash_dir.exists()


@pytest.mark.usefixtures("unset", "coredump_socket")
@pytest.mark.parametrize("word", ["--force", "--if-asked"])
def test_a_socket_where_nobody_listens_yet_is_set_by_force_and_for_what_comes_after(
    host: Host, word: str
) -> None:
    host.settings["COREMOND_OVERRIDE_CORE_PATTERN"] = "true"

    prepared = host.host("prepare", "--mode", "socket", word)
    checked = host.host("check")

    assert prepared.returncode == 0
    assert core_pattern() == f"@@{host.home}/run/kernel.sock"
    assert "nobody listens" in prepared.stderr
    assert checked.returncode == 1
    assert "crashagent does not listen" in checked.stderr


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("said", ["", "false"])
def test_an_init_container_sets_nothing_unless_it_is_asked(host: Host, said: str) -> None:
    host.settings["COREMOND_OVERRIDE_CORE_PATTERN"] = said

    done = host.host("prepare", "--mode", "file", "--if-asked")

    assert (done.returncode, core_pattern()) == (0, "core")
    assert "COREMOND_OVERRIDE_CORE_PATTERN is not true" in done.stdout
    assert not host.crash_dir.exists()


@pytest.mark.usefixtures("unset")
def test_an_init_container_sets_the_pattern_if_it_is_asked(host: Host) -> None:
    host.settings["COREMOND_OVERRIDE_CORE_PATTERN"] = "true"

    host.host("prepare", "--mode", "file", "--if-asked")

    assert core_pattern() == f"{host.crash_dir}/core.%e.%p.%h.%t"


@pytest.mark.usefixtures("unset")
def test_a_pattern_that_is_too_long_is_refused_and_nothing_is_touched(host: Host) -> None:
    host.settings["COREMON_CRASH_DIR"] = str(host.home / ("x" * 120))

    done = host.run("host", "prepare", "--mode", "file")

    assert done.returncode == 1
    assert "a core_pattern may have 127" in done.stderr
    assert core_pattern() == "core"
    assert not (host.home / "run").exists()


@pytest.mark.usefixtures("unset")
def test_a_pipe_that_would_not_know_the_settings_is_refused(host: Host) -> None:
    bare = host.run("host", "prepare", "--mode", "pipe")
    far = host.home / ("e" * 100)
    far.write_bytes(host.env_file.read_bytes())
    too_far = host.run("--env", far, "host", "prepare", "--mode", "pipe")

    assert (bare.returncode, too_far.returncode, core_pattern()) == (1, 1, "core")
    assert "it has no environment" in bare.stderr
    assert f"there is no room for --env {far}" in too_far.stderr


# intake


def test_the_helper_hands_over_its_standard_input_and_what_it_knows(host: Host) -> None:
    with listening(host.home / "apport.socket") as door:
        done = host.intake(b"the core", *WORDS, "--", "!usr!bin!tmm")

        message, descriptors, core = receive(door)

    assert done.returncode == 0
    assert message.startswith(b"coremond/1 ")
    assert json.loads(message.removeprefix(b"coremond/1 ")) == {
        "host_pid": 1,
        "pid": 7,
        "tid": 7,
        "uid": 1000,
        "gid": 100,
        "signal": 11,
        "crashed_at": 1742738615 * 10**9,
        "dumpable": 2,
        "hostname": "vm",
        "exe": "/usr/bin/tmm",
    }
    assert (len(descriptors), core) == (1, b"the core")
    assert host.cores() == []


def test_a_pid_that_the_kernels_descriptor_denies_is_not_told(host: Host) -> None:
    pidfd = os.pidfd_open(os.getpid())
    command: list[str | Path] = [host.corectl, "intake", "--env", host.env_file, f"-F{pidfd}"]
    with listening(host.home / "apport.socket") as door:
        for words in (["-P4711", "-p7"], [f"-P{os.getpid()}"]):
            subprocess.run([*command, *words], env={}, input=b"", pass_fds=[pidfd], check=True)
        said = [json.loads(receive(door)[0].removeprefix(b"coremond/1 ")) for _ in range(2)]
    os.close(pidfd)

    assert said == [{"pid": 7}, {"host_pid": os.getpid()}]


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    with listening(path):
        pass
    yield


@contextmanager
def _full(path: Path) -> Iterator[None]:
    with listening(path, backlog=0):
        waiting = []
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        except BlockingIOError:
            yield
        for connection in waiting:
            connection.close()


@contextmanager
def _no_socket(path: Path) -> Iterator[None]:
    path.write_bytes(b"")
    yield


@pytest.mark.parametrize("state", [_refusing, _full, _no_socket])
def test_a_crashagent_that_cannot_be_reached_costs_no_core(
    host: Host, state: Callable[[Path], Any]
) -> None:
    with state(host.home / "apport.socket"):
        done = host.intake(b"the core", *WORDS, "--", "!usr!bin!tmm")

    [core] = host.cores()
    assert done.returncode == 0
    assert core.read_bytes() == b"the core"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["-P", "-p", "-i", "-u", "-g", "-s", "-t", "-c", "-d", "-F", "-h", "--"],
        ["-P%P", "-px", "-s-1", "-t99999999999999999999", "-d9", "--", "surplus", "more"],
        [b"\xff", b"-h\xff\n", b"--", b"\xff/../../etc"],
        ["--help-me", "--env", "/dev/null", "x" * 5000],
    ],
)
def test_no_words_cost_a_core(host: Host, words: list[str | bytes]) -> None:
    done = host.intake(b"the core", *words)

    [core] = host.cores()
    assert done.returncode == 0
    assert core.read_bytes() == b"the core"
    assert sorted(path.name for path in host.home.iterdir()) == ["corectl", "crash", "e"]


def test_a_core_that_nothing_can_take_is_told_in_the_kernels_log(host: Host) -> None:
    host.crash_dir.write_text("no directory")
    with open("/dev/kmsg", "rb", buffering=0, opener=_without_waiting) as log:
        log.seek(0, os.SEEK_END)
        done = host.intake(b"the core", *WORDS, "--", f"!{host.home.name}")

        lines = _lines(log)

    assert done.returncode == 1
    assert any(b"corectl intake: a core is lost: crashagent cannot be" in line for line in lines)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _lines(log: Any) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            if (line := log.read(8192)) is None:
                return found
        except BrokenPipeError:  # a line was overwritten before it was read
            continue
        found.append(line)


def test_the_helper_imports_nothing_that_is_slow(host: Host) -> None:
    code = (
        "import sys; from services.corectl.__main__ import main\n"
        f"status = main(['intake', '--env', '{host.home}/none', *sys.argv[1:]])\n"
        "slow = {'argparse', 'dataclasses', 'inspect', 'msgspec', 'logging', 'zmq', 'grpc'}\n"
        "print(status, *sorted(slow & set(sys.modules)))\n"
    )
    unreached = "services.corectl.intake.DEFAULTS['CRASHAGENT_APPORT_SOCKET']"
    with listening(host.home / "apport.socket") as door:
        path = str(host.home / "apport.socket")
        code = f"import services.corectl.intake\n{unreached} = {path!r}\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", code, *WORDS], env={}, input=b"", capture_output=True
        )
        message, _, _ = receive(door)

    assert done.stdout == b"0\n"
    assert message.startswith(b"coremond/1 ")


# The kernel's own helper


@pytest.mark.usefixtures("unset")
def test_a_real_crash_goes_to_a_file_where_crashagent_is_not_there(
    host: Host, crash_program: Path
) -> None:
    prepared = host.host("prepare", "--mode", "pipe")
    checked = host.host("check")
    pid = crashes.run_to_death(crash_program)

    [core] = wait_until(host.cores, "the core")
    with core.open("rb") as file:
        notes = read_notes(lambda size, place: os.pread(file.fileno(), size, place))
    [name] = read_source_name(core.name)
    assert (prepared.returncode, checked.returncode) == (0, 0)
    assert "cores go to" in checked.stdout
    assert notes is not None
    assert (notes.pid, notes.comm, name.pid, name.process) == (pid, "crash", pid, "crash")
    assert name.host == socket.gethostname()
    assert notes.expected_size <= core.stat().st_size


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_host_name_is_a_name_and_no_more(host: Host, name: str | bytes) -> None:
    text = os.fsdecode(name)
    host.host("prepare", "--mode", "pipe")

    victim = crashes.start_victim("../x y", text)
    pid = crashes.kill_victim(victim)

    [core] = wait_until(host.cores, "the core")
    [reading] = read_source_name(core.name)
    assert (reading.process, reading.pid) == ("../x y", pid)
    assert reading.host == {
        "../../x": "..!..!x",
        "..": "!.",
    }.get(text, os.fsencode(text).decode("utf-8", "backslashreplace"))
    assert sorted(p.name for p in host.home.iterdir()) == ["corectl", "crash", "e", "run"]


def test_a_real_crash_goes_through_crashagent_with_all_that_the_kernel_says(
    bundle: Bundle, crash_program: Path
) -> None:
    host = Host(bundle.home, bundle.settings)
    with kernel.core_pattern("core"):
        host.host("prepare", "--mode", "pipe")
        pid = crashes.run_to_death(crash_program)
        [record] = bundle.wait_for_stored()

    facts = (
        "pid",
        "host_pid",
        "tid",
        "uid",
        "gid",
        "signal",
        "comm",
        "exe",
        "hostname",
        "dumpable",
    )
    assert {name: record[name] for name in facts} == {
        "pid": pid,
        "host_pid": pid,
        "tid": pid,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "signal": 11,
        "comm": "crash",
        "exe": str(crash_program),
        "hostname": socket.gethostname(),
        "dumpable": 1,
    }
    assert (record["elf"], record["truncated"]) == (True, False)
    assert bundle.leftovers() == []


# doctor


@pytest.mark.parametrize("mode", ["file", "pipe", "socket"])
def test_doctor_follows_a_crash_to_its_stored_core(bundle: Bundle, mode: str) -> None:
    host = Host(bundle.home, bundle.settings)
    with kernel.core_pattern("core"):
        host.host("prepare", "--mode", mode)
        done = host.host("doctor", "--timeout", "20s")
        new = bundle.corectl("list", "--new")

    [record] = bundle.stored()
    assert (done.returncode, done.stderr) == (0, "")
    assert (new.returncode, new.stderr) == (1, "No new coredumps found.\n")
    core = bundle.core(record)
    assert done.stdout.splitlines()[-1] == f"rm {core} {core}.crc"
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert [step for step in steps if step in {"core_pattern", "kernel", "intake", "coremond"}] == [
        "core_pattern",
        "kernel",
        "intake",
        "coremond",
    ]
    assert "FAILED" not in done.stdout
    assert record["id"] in done.stdout
    assert record["comm"].startswith("doctor-")


def test_doctor_names_the_pattern_that_is_not_ours(host: Host) -> None:
    with kernel.core_pattern("|/bin/false"):
        done = host.host("doctor")

    assert done.returncode == 1
    assert done.stdout == "core_pattern  FAILED\n"
    assert done.stderr.startswith("corectl: core_pattern throws every core away (|/bin/false)")


@pytest.mark.usefixtures("unset")
def test_doctor_names_the_kernel_that_wrote_no_core(host: Host) -> None:
    host.host("prepare", "--mode", "file")

    done = host.host("doctor", preexec_fn=_allow_no_core)

    assert done.returncode == 1
    assert "kernel        FAILED" in done.stdout
    assert "the kernel wrote no core" in done.stderr
    assert "RLIMIT_CORE" in done.stderr
    assert host.cores() == []


def _allow_no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("mode", ["file", "pipe"])
def test_doctor_names_coremond_where_the_core_waits_for_it(host: Host, mode: str) -> None:
    host.host("prepare", "--mode", mode)

    done = host.host("doctor", "--timeout", "1s")

    assert done.returncode == 1
    assert "coremond      FAILED" in done.stdout
    assert f"the core is in {host.crash_dir}, and not stored" in done.stderr
    assert "coremond does not answer" in done.stderr
    assert "start the bundle" in done.stderr


@pytest.mark.usefixtures("unset")
def test_doctor_names_the_intake_that_kept_the_core_to_itself(host: Host) -> None:
    with listening(host.home / "apport.socket") as door:
        taker = Thread(target=_swallow, args=[door], daemon=True)
        taker.start()
        host.host("prepare", "--mode", "pipe")

        done = host.host("doctor", "--timeout", "1s")
        door.shutdown(socket.SHUT_RDWR)

    taker.join(PATIENCE)
    assert done.returncode == 1
    assert "intake        FAILED" in done.stdout
    assert "crashagent never told of it" in done.stderr


def _swallow(door: socket.socket) -> None:
    """Take whatever comes, and do nothing with it."""
    try:
        while True:
            connection, _ = door.accept()
            with connection:
                message, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
                for descriptor in descriptors:
                    with open(descriptor, "rb") as core:
                        core.read()
                assert message or not descriptors
    except OSError:
        return


def set_from_its_own_mounts(pattern: str, host: str) -> subprocess.CompletedProcess[str]:
    """Set the pattern as a container would, which has the host's mount namespace at *host*."""
    code = (
        "import sys; from pathlib import Path; from services.corectl.sysctl import Sysctls;"
        "Sysctls(host=Path(sys.argv[1])).write('core_pattern', sys.argv[2])"
    )
    command = ["unshare", "--mount", sys.executable, "-c", code, host, pattern]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_socket_is_set_from_a_mount_namespace_that_is_not_the_host_s(
    coredump_socket: None,
) -> None:
    pattern = "@@/run/coremond/kernel.sock"

    with kernel.core_pattern("core"):
        done = set_from_its_own_mounts(pattern, f"/proc/{os.getpid()}/ns/mnt")
        found = core_pattern()

    assert (done.returncode, found) == (0, pattern), done.stderr


def test_without_the_host_s_mount_namespace_a_socket_is_refused_with_the_remedy(
    coredump_socket: None,
) -> None:
    with kernel.core_pattern("core"):
        done = set_from_its_own_mounts("@@/run/coremond/kernel.sock", "/nowhere")
        found = core_pattern()

    assert "it takes hostPID: true" in done.stderr
    assert found == "core"
