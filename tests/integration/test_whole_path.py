"""From a real crash to a verified core, through the three supervised programs."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import crashes, loglines
from tests.bundle import Bundle, wait_until

pytestmark = pytest.mark.usefixtures("real_kernel")

StartBundle = Callable[..., Bundle]

PAGE = """\
"ts"="2025-03-23 14:01:36.867"|"l"="info"|"m"="POD_NAME is not set; defaulting to hostname"\
|"lt"="A"|"proc"="crashagent"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.867"|"l"="info"|"m"="listen and serve"\
|"lt"="A"|"proc"="crashagent"|"addr"="/run/apport.socket"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.903"|"l"="error"|"m"="failed to read levels file \
/logs/.minlevel.yaml: open /logs/.minlevel.yaml: no such file or directory"\
|"lt"="A"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.906"|"l"="info"|"m"="coremond started"\
|"lt"="A"|"version"="0.7.27+0.0.6"|"commitHash"="359bc2a"|"buildDate"="2025-03-13T19:53:15Z"\
|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.906"|"l"="info"|"m"="coremon dest"\
|"lt"="A"|"dest"="/var/cores/k3d-minibip-server-0"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.948"|"l"="error"|"m"="failed to read levels file \
/logs/.minlevel.yaml: open /logs/.minlevel.yaml: no such file or directory"\
|"lt"="A"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:36.953"|"l"="info"|"m"="grpc server is starting up"\
|"lt"="A"|"proc"="qkd"|"address"="0.0.0.0:19891"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:37.107"|"l"="error"|"m"="no such file or directory"\
|"lt"="A"|"path"="/logs/.minlevel.yaml"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:01:37.150"|"l"="error"|"m"="no such file or directory"\
|"lt"="A"|"proc"="qkd"|"path"="/logs/.minlevel.yaml"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:03:35.923"|"l"="info"|"m"="new core file detected"\
|"lt"="A"|"file"="/var/crash/core.observer.9.f5-observer-0.1742738615173108860"\
|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:03:35.950"|"l"="info"|"m"="failed to list pods"\
|"lt"="A"|"err"="no cluster in sight"|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:03:35.950"|"l"="info"|"m"="creating coredump"\
|"lt"="A"|"src"="/var/crash/core.observer.9.f5-observer-0.1742738615173108860"\
|"dst"="/var/cores/k3d-minibip-server-0/core.f5-observer-0.f5-observer.observer.9.1742738615173108860"\
|"ct"="f5-coremond"|"v"="1.0"
"ts"="2025-03-23 14:03:36.996"|"l"="info"|"m"="deleting src core file"\
|"lt"="A"|"src"="/var/crash/core.observer.9.f5-observer-0.1742738615173108860"\
|"dst"="/var/cores/k3d-minibip-server-0/core.f5-observer-0.f5-observer.observer.9.1742738615173108860"\
|"ct"="f5-coremond"|"v"="1.0"
"""
"""The programs' lines of the product page, with the reason of this scenario in `err`."""

START_UP = 9
"""So many of them come from three programs that start at once: their order among each other is
left open, each program's own is not."""


def comparable(line: str, places: dict[str, str]) -> str:
    """Take the times, ids and places out of a line; its texts and its fields' order stay."""
    for there, here in places.items():
        line = line.replace(here, there)
    fields = loglines.parse(line)
    fields["ts"] = ""
    for build in ("version", "commitHash", "buildDate"):
        if build in fields:
            fields[build] = ""
    for name in ("file", "src", "dst"):
        if name in fields:
            before, pid, rest = _around_pid(fields[name])
            fields[name] = f"{before}.PID.{rest}" if pid.isdigit() else fields[name]
    return json.dumps(fields)


def _around_pid(path: str) -> tuple[str, str, str]:
    parts = path.split(".")
    place = parts.index("observer") + 1
    host = parts[place + 1 : -1]
    return ".".join(parts[:place]), parts[place], ".".join([*host, str(len(parts[-1]))])


LEVELS = (
    "failed to read levels file /logs/.minlevel.yaml: "
    "open /logs/.minlevel.yaml: no such file or directory"
)
"""Said by coremond and by qkview-collect in the same words, by neither with its name."""


def in_order(lines: list[str], program: str) -> list[str]:
    """Give the lines that are *program*'s and nobody else's."""
    return [
        line
        for line in lines
        if json.loads(line).get("proc", "coremond") == program and json.loads(line)["m"] != LEVELS
    ]


def test_the_product_pages_own_scenario_logs_the_pages_lines(
    start_bundle: StartBundle, certificates: Path
) -> None:
    # Port 0: any that is free, for the page's may not be.
    bundle = start_bundle(QKVIEW_ADDRESS="0.0.0.0:0", QKVIEW_TLS_DIR=str(certificates))
    places = {
        "0.0.0.0:19891": bundle.wait_for("grpc server is starting up")["address"],
        "/run/apport.socket": str(bundle.apport_socket),
        "/logs/.minlevel.yaml": bundle.settings["COREMON_LEVELS_FILE"],
        "/var/cores/k3d-minibip-server-0": str(bundle.store_dir),
        "/var/crash": str(bundle.crash_dir),
    }
    wait_until(lambda: len(bundle.events()) >= START_UP, "the lines of the start")

    with crashes.by_apport(bundle):
        crashes.kill_victim(crashes.start_victim("observer", "f5-observer-0"))
        bundle.wait_for("deleting src core file")

    page = [comparable(line, {}) for line in PAGE.splitlines()]
    ours = [comparable(line, places) for line in bundle.lines if loglines.is_ours(line)]
    assert sorted(ours[:START_UP]) == sorted(page[:START_UP])
    for program in ("crashagent", "coremond", "qkd"):
        assert in_order(ours[:START_UP], program) == in_order(page[:START_UP], program)
    said = [json.loads(line)["m"] for line in ours[:START_UP]]
    assert said.index(LEVELS) < said.index("coremond started")
    assert ours[START_UP:] == page[START_UP:]


@pytest.fixture
def certificates(home: Path) -> Path:
    """Make a certificate of its own authority, as a Secret would mount it."""
    directory = home / "tls"
    directory.mkdir()
    openssl = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=coremond -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.crt"
    )
    subprocess.run(openssl.split(), cwd=directory, check=True, capture_output=True)
    shutil.copy(directory / "tls.crt", directory / "ca.crt")
    return directory


@pytest.mark.parametrize("way", ["segv", "abort", "threads", "overflow"])
def test_a_c_program_that_crashes_is_stored_whole(
    bundle: Bundle, crash_program: Path, way: str
) -> None:
    with crashes.by_file(bundle):
        pid = crashes.run_to_death(crash_program, way)

    [record] = bundle.wait_for_stored()
    expected = signal.SIGABRT if way == "abort" else signal.SIGSEGV
    assert (record["process"], record["pid"]) == ("crash", pid)
    assert record["signal"] == expected
    assert (record["elf"], record["truncated"]) == (True, False)
    assert bundle.corectl("verify").returncode == 0


def test_every_tool_agrees_with_the_kernels_own_core(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    for tool, package in {"gzip": "gzip", "rhash": "rhash", "gdb": "gdb"}.items():
        if not shutil.which(tool):
            pytest.skip(f"missing: {tool} (Debian package {package})")
    bundle = start_bundle(COREMON_DELETE_SRC="false")
    with crashes.by_file(bundle):
        crashes.run_to_death(crash_program, "threads", "8")
        [record] = bundle.wait_for_stored()
    [original] = bundle.crash_dir.glob("core.*")
    core = bundle.core(record)

    dumped = bundle.home / "dumped.core"
    assert bundle.corectl("dump", record["id"], "-o", str(dumped)).returncode == 0

    assert subprocess.run(["gzip", "-t", core]).returncode == 0
    gunzipped = subprocess.run(["gunzip", "-c", core], capture_output=True, check=True).stdout
    assert gunzipped == original.read_bytes() == dumped.read_bytes()
    assert gzip.decompress(core.read_bytes()) == gunzipped
    checked = subprocess.run(
        ["rhash", "--check", core.name + ".crc"], cwd=core.parent, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    assert hashlib.sha256(core.read_bytes()).hexdigest() == record["sha256"]
    assert dumped.stat().st_blocks <= original.stat().st_blocks
    assert backtrace(crash_program, dumped) == backtrace(crash_program, original)


def backtrace(program: Path, core: Path) -> list[str]:
    """Let gdb show every thread's stack."""
    words = ["gdb", "-nx", "-batch", "-ex", "thread apply all bt", str(program), str(core)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    frames = [line for line in shown.splitlines() if line.startswith("#")]
    assert any(" main (" in frame for frame in frames)
    assert len(frames) > 32
    return frames


def test_a_python_program_is_stored_under_its_pods_name(bundle: Bundle) -> None:
    with crashes.by_file(bundle):
        pid = crashes.kill_victim(crashes.start_victim("python3.11", "f5-tmm-pn4tq"))
        [record] = bundle.wait_for_stored()

    assert (record["pod"], record["container"]) == ("f5-tmm-pn4tq", "f5-tmm")
    assert (record["process"], record["pid"]) == ("python3.11", pid)
    assert record["identity"]["by"] == "hostname"
    assert record["name"].startswith(f"core.f5-tmm-pn4tq.f5-tmm.python3%2E11.{pid}.")


def test_apport_hands_in_what_the_kernel_gives_and_proc_tells_the_rest(
    bundle: Bundle, crash_program: Path
) -> None:
    with crashes.by_apport(bundle):
        pid = crashes.run_to_death(crash_program, "threads", "16")
        [record] = bundle.wait_for_stored()

    assert record["arrived"] == "apport"
    assert (record["pid"], record["host_pid"], record["signal"]) == (pid, pid, signal.SIGSEGV)
    assert record["exe"] == str(crash_program)
    assert record["cmdline"] == f"{crash_program} threads 16"
    assert record["started_at"] < record["crashed_at"]
    assert (record["uid"], record["gid"], record["dumpable"]) == (os.getuid(), os.getgid(), 1)
    assert (record["elf"], record["truncated"]) == (True, False)
    assert record["data"] > 16 * 2**20
    assert bundle.corectl("verify").returncode == 0


def test_a_crash_storm_loses_nothing(start_bundle: StartBundle, crash_program: Path) -> None:
    bundle = start_bundle(COREMON_CORES_MAX_FILES="0")

    with crashes.by_apport(bundle, at_once=128):
        victims = [subprocess.Popen([crash_program, "segv", "1"]) for _ in range(60)]
        for victim in victims:
            victim.wait(60)
        records = bundle.wait_for_stored(60)

    assert {record["pid"] for record in records} == {victim.pid for victim in victims}
    assert not any(record["truncated"] for record in records)
    assert bundle.corectl("verify").returncode == 0
    wait_until(lambda: not bundle.leftovers(), "every source to go")
