"""The image, built and run as README says, by podman."""

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from common import __version__
from tests import kernel, podman
from tests.bundle import ROOT, wait_until
from tests.podman import BASE, Collector, Podman

Start = Callable[..., Collector]

IMAGE = "localhost/coremond:test"
DEBUG = "localhost/coremond:debug"
COMMIT = "359bc2a"
DATE = "2025-03-13T19:53:15Z"
MOST = 150_000_000
"""Bytes that the image may add to its base."""
NOBODY = 10001
SOMEBODY = 4242
POD = "f5-observer-0"
ABORT = "import os; os.abort()"
NO_LEVELS = (
    "failed to read levels file /logs/.minlevel.yaml: "
    "open /logs/.minlevel.yaml: no such file or directory"
)
PAGE = {
    "POD_NAME is not set; defaulting to hostname",
    "listen and serve",
    "coremond started",
    "coremon dest",
    "grpc server is starting up",
    "no such file or directory",
}
"""What the programs say on the product page, but for what two of them say without a name."""

HARDENED = (
    *("--read-only", "--tmpfs=/run", "--tmpfs=/tmp"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
)
# As README's table has them.
FOR_FILES = ("--cap-add=DAC_READ_SEARCH", "--cap-add=LEASE")
FOR_MEMORY = ("--cap-add=DAC_READ_SEARCH", "--cap-add=SYS_PTRACE", "--pid=host")
FOR_HOST_NAMES = (*FOR_MEMORY, "--cap-add=SYS_ADMIN")

pytestmark = pytest.mark.timeout(900)  # the first one builds


@pytest.fixture(scope="module")
def containers() -> Iterator[Podman]:
    if what := podman.missing():
        pytest.skip(f"missing: {what}")
    with Podman() as opened:
        opened.make_base()
        yield opened


@pytest.fixture(scope="module")
def image(containers: Podman) -> str:
    words = ["--file=container/Dockerfile", f"--build-arg=COMMIT_HASH={COMMIT}"]
    words.append(f"--build-arg=BUILD_DATE={DATE}")
    containers.build(*words, f"--tag={IMAGE}")
    return IMAGE


@pytest.fixture
def start(containers: Podman, image: str, home: Path) -> Iterator[Start]:
    """Give a function that starts the image with the options it is given."""
    with ExitStack() as stack:

        def enter(*options: str, **given: Any) -> Collector:
            return stack.enter_context(Collector(containers, image, home, *options, **given))

        yield enter


@pytest.fixture
def readme_shell(containers: Podman, image: str, home: Path) -> Callable[[str], str]:
    """Give a function that runs README's commands, for which podman is called docker."""
    quoted = shlex.join(containers.words)
    script = f"""#!/bin/sh
command=$1
shift
case $command in
    build) exec {quoted} build {shlex.join(containers.in_build())} "$@" ;;
    run) exec {quoted} run {shlex.join(podman.IN_CONTAINER)} "$@" ;;
esac
"""
    (home / "bin").mkdir()
    (home / "bin" / "docker").write_text(script)
    (home / "bin" / "docker").chmod(0o755)
    env = os.environ | {"PATH": f"{home}/bin:{os.environ['PATH']}"}

    def run(command: str) -> str:
        words = ["sh", "-euc", command]
        ended = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def readme_command(start: str) -> str:
    """Find the command in README that starts so."""
    text = (ROOT / "README.md").read_text().replace("\\\n", "")
    [command] = [line for line in text.splitlines() if line.startswith(start)]
    return command


def by_file() -> AbstractContextManager[None]:
    return kernel.core_pattern(kernel.file_pattern(Path("/var/crash")))


def by_socket(collector: Collector) -> AbstractContextManager[None]:
    return kernel.core_pattern(f"@@{collector.run_dir}/kernel.sock")


def reached_by_kernel(home: Path) -> dict[str, Any]:
    """Give what has the kernel find its socket: its path is the same inside and outside."""
    return {"settings": {"COREMON_RUN_DIR": f"{home}/run"}}


def where_it_is(home: Path) -> str:
    return f"--volume={home}/run:{home}/run"


def crash(
    containers: Podman, home: Path, user: int = SOMEBODY, host: str = POD, code: str = ABORT
) -> None:
    """Have a process crash in a container of its own."""
    folder = f"--volume={home}/crash:/var/crash"
    podman.crash(containers, IMAGE, folder, user=user, host=host, code=code)


def size_of(containers: Podman, name: str) -> int:
    [told] = containers.ask("image", "inspect", name)
    return int(told["Size"])


def test_the_image_adds_little_to_its_base(containers: Podman, image: str) -> None:
    added = size_of(containers, image) - size_of(containers, BASE)

    assert added <= MOST


def test_what_only_builds_and_tests_need_is_not_in_it(containers: Podman, image: str) -> None:
    found = containers.contain("--entrypoint=find", image, "/opt/coremond", "/src", check=False)

    names = {Path(line).name for line in found.stdout.splitlines()}
    assert {"coremond-bundle", "kubernetes", "grpc", "services"} <= names
    assert {"pip", "setuptools", "tests", "aiohttp", "pygments"}.isdisjoint(names)
    assert "'/src': No such file" in found.stderr


def test_what_is_not_in_it_is_not_missed(containers: Podman, image: str) -> None:
    modules = "kubernetes.client, kubernetes.config, kubernetes.watch, rich.progress, rich.table"
    code = f"import {modules}; print(kubernetes.client.CoreV1Api().list_node)"

    told = containers.contain("--read-only", "--entrypoint=python3", image, "-c", code)

    assert "CoreV1Api.list_node" in told.stdout


def test_it_says_what_it_is(containers: Podman, image: str) -> None:
    [told] = containers.ask("image", "inspect", image)

    expected = {
        "title": "Coremond",
        "licenses": "Apache-2.0",
        "version": __version__,
        "revision": COMMIT,
        "created": DATE,
    }
    prefix = "org.opencontainers.image."
    assert {name: told["Labels"].get(prefix + name) for name in expected} == expected


def test_debuggers_are_in_the_debug_image_only(containers: Podman, image: str) -> None:
    look = ("--entrypoint=sh", "-c", "gdb --version; eu-stack --version; coremond-bundle --help")
    containers.build("--file=container/Dockerfile", "--target=debug", f"--tag={DEBUG}")

    small = containers.contain(look[0], image, *look[1:]).stdout
    large = containers.contain(look[0], DEBUG, *look[1:]).stdout

    assert "GNU gdb" not in small
    assert "usage: coremond-bundle" in small
    assert "GNU gdb" in large
    assert "eu-stack (elfutils)" in large
    assert "usage: coremond-bundle" in large


def test_the_commands_of_the_readme_build_and_run_it(
    containers: Podman, readme_shell: Callable[[str], str], home: Path
) -> None:
    readme_shell(readme_command("docker build "))
    [built] = containers.ask("image", "inspect", "localhost/coremond:latest")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True)
    run = readme_command("docker run ")
    for folder in ("crash", "cores"):
        (home / folder).mkdir()
        run = run.replace(f" -v /var/{folder}:", f" -v {home}/{folder}:")

    readme_shell(run)

    def is_well() -> bool:
        return containers.run("healthcheck", "run", "coremond", check=False).returncode == 0

    try:
        wait_until(is_well, "a well collector")
        assert (
            built["Labels"]["org.opencontainers.image.revision"] == commit.stdout.decode().strip()
        )
        assert (home / "cores" / "node-1").is_dir()
    finally:
        containers.run("rm", "--force", "--time=10", "coremond")


def test_the_log_reads_as_on_the_product_page(start: Start) -> None:
    collector = start()
    running = "entered RUNNING state, process has stayed up for > than 1 seconds (startsecs)"
    for text, times in {running: 3, '"m"="no such file or directory"': 2}.items():
        wait_until(lambda: sum(text in line for line in collector.lines) == times, text)  # noqa: B023

    def own(pattern: str) -> list[str]:
        return [found[1] for line in collector.lines if (found := re.search(pattern, line))]

    def said(**program: str) -> list[str]:
        texts = [(event["m"], event.get("proc", "")) for event in collector.events()]
        return [text for text, name in texts if name == program.get("proc", "") and text in PAGE]

    programs = ["coremond", "crashagent", "qkview-collect"]
    assert own("CRIT Supervisor is (running as root)") == ["running as root"]
    assert own(r"INFO supervisord started with pid (\d+)$") == ["1"]
    assert own(r"INFO spawned: '(\S+)' with pid \d+$") == programs
    assert own(rf"INFO success: (\S+) {re.escape(running)}") == programs
    assert said(proc="crashagent") == [
        "POD_NAME is not set; defaulting to hostname",
        "listen and serve",
    ]
    assert said(proc="qkd") == ["grpc server is starting up", "no such file or directory"]
    assert said() == ["coremond started", "coremon dest", "no such file or directory"]
    assert [event["m"] for event in collector.events()].count(NO_LEVELS) == 2
    assert collector.find("listen and serve", addr="/run/apport.socket")
    assert collector.find("coremon dest", dest="/var/cores/node-1")
    started = collector.wait_for("coremond started")
    facts = {"version": __version__, "commitHash": COMMIT, "buildDate": DATE}
    assert facts.items() <= started.items()


def test_supervisord_is_process_1(start: Start) -> None:
    collector = start()

    told = collector.execute("cat", "/proc/1/cmdline").stdout.split("\0")

    assert told[1:3] == ["-m", "supervisor.supervisord"]


@pytest.mark.parametrize("user", [0, NOBODY, SOMEBODY])
def test_it_is_well_with_nothing_but_its_directories(start: Start, user: int) -> None:
    levels = {"COREMON_LEVELS_FILE": "/etc/coremond/minlevel.yaml"}
    collector = start(*HARDENED, user=user, settings=levels)

    wait_until(collector.is_well, "a well collector")
    assert [event for event in collector.events() if event["l"] in {"error", "critical"}] == []
    assert collector.execute("touch", "/logs/file", "/opt/file").returncode != 0
    assert collector.execute("id", "-u").stdout == f"{user}\n"


@pytest.mark.usefixtures("real_kernel")
def test_a_crash_in_another_container_is_stored_by_way_of_a_file(
    start: Start, containers: Podman, home: Path
) -> None:
    collector = start(*HARDENED, *FOR_FILES)
    with by_file():
        crash(containers, home)
    [record] = collector.wait_for_stored()
    collector.wait_for("deleting src core file")

    expected = {"comm": "python3", "uid": SOMEBODY, "pod": POD, "arrived": "file"}
    assert {name: record[name] for name in expected} == expected
    assert collector.corectl("verify").returncode == 0
    assert collector.leftovers() == []
    texts = [event["m"] for event in collector.events()]
    page = ["new core file detected", "creating coredump", "deleting src core file"]
    assert [text for text in texts if text in page] == page


@pytest.mark.usefixtures("real_kernel")
@pytest.mark.parametrize(
    ("also", "then"),
    [(["--cap-add=FOWNER"], "deleting src core file"), ([], "source could not be deleted")],
    ids=["with FOWNER", "without"],
)
def test_a_source_in_a_directory_of_another_user_goes_with_one_more_capability(
    start: Start, containers: Podman, home: Path, also: list[str], then: str
) -> None:
    collector = start(*HARDENED, *FOR_FILES, *also)
    os.chown(home / "crash", NOBODY, NOBODY)
    with by_file():
        crash(containers, home)

    source = Path(collector.wait_for(then)["src"])

    [record] = collector.stored()
    assert record["uid"] == SOMEBODY
    wait_until(lambda: (home / "crash" / source.name).exists() != bool(also), "its end")


@pytest.mark.usefixtures("real_kernel")
def test_another_user_takes_the_cores_that_it_may_read(
    start: Start, containers: Podman, home: Path
) -> None:
    collector = start(*HARDENED, user=NOBODY)
    with by_file():
        crash(containers, home)
        refused = collector.wait_for("core file refused")
        crash(containers, home, user=NOBODY, host="another-0")  # else the names may be the same
    [record] = collector.wait_for_stored()

    left = (home / "crash" / Path(refused["src"]).name).stat()
    assert "Permission denied" in refused["reason"]
    assert (left.st_uid, stat.S_IMODE(left.st_mode)) == (SOMEBODY, 0o600)
    assert record["uid"] == NOBODY
    assert collector.core(record).stat().st_uid == NOBODY


@pytest.mark.usefixtures("coredump_socket")
@pytest.mark.parametrize("names", [True, False], ids=["with host names", "without"])
def test_a_crash_in_another_container_is_stored_by_way_of_the_kernel(
    start: Start, containers: Podman, home: Path, names: bool
) -> None:
    also = FOR_HOST_NAMES if names else FOR_MEMORY
    collector = start(*HARDENED, *also, where_it_is(home), **reached_by_kernel(home))
    with by_socket(collector):
        crash(containers, home)
        [record] = collector.wait_for_stored()

    expected = {"comm": "python3", "uid": SOMEBODY, "capture": "resident", "truncated": False}
    assert {name: record[name] for name in expected} == expected
    assert record["arrived"] == "kernel-socket"
    assert record["exe"].startswith("/usr/bin/python3")
    assert re.fullmatch("[0-9a-f]{64}", record["container_id"])
    assert (record["hostname"] == POD) == names
    assert collector.corectl("verify").returncode == 0
    assert collector.leftovers() == []


@pytest.mark.usefixtures("coredump_socket")
def test_another_user_takes_every_crash_that_the_kernel_streams(
    start: Start, containers: Podman, home: Path
) -> None:
    shared = where_it_is(home)
    collector = start(*HARDENED, shared, user=NOBODY, **reached_by_kernel(home))
    with by_socket(collector):
        crash(containers, home)
        [record] = collector.wait_for_stored()

    assert (record["uid"], record["capture"]) == (SOMEBODY, "stream")
    assert record["truncated"] is False
    assert collector.corectl("verify").returncode == 0


def test_the_health_check_fails_once_a_program_stops(start: Start) -> None:
    collector = start()
    wait_until(collector.is_well, "a well collector")
    address = "unix:///run/coremond/supervisor.sock"

    collector.execute("supervisorctl", "-s", address, "stop", "crashagent")

    def is_given_up() -> bool:
        assert not collector.is_well()
        return bool(collector.state()["Health"]["Status"] == "unhealthy")

    wait_until(is_given_up, "enough failures after the start")


def test_it_stops_by_itself_when_it_is_asked_to(start: Start, containers: Podman) -> None:
    collector = start()

    containers.run("stop", "--time=10", collector.name)  # then it is killed, which ends with 137

    assert collector.state()["ExitCode"] == 0
    assert any("stopped: coremond (exit status 0)" in line for line in collector.lines)


def test_wrong_settings_end_it_with_a_line_for_each(containers: Podman, image: str) -> None:
    wrong = ["--env=COREMON_MAX_USE=plenty", "--env=CRASHAGENT_TIMEOUT=soon"]

    ended = containers.contain(*wrong, image, check=False)

    assert ended.returncode == os.EX_CONFIG
    lines = [line for line in ended.stderr.splitlines() if line.startswith("coremond-bundle: ")]
    assert len(lines) == 2
    for word in ("COREMON_MAX_USE='plenty'", "CRASHAGENT_TIMEOUT='soon'"):
        assert any(word in line for line in lines), lines


@pytest.mark.usefixtures("real_kernel")
def test_a_full_disk_costs_the_core_and_not_its_record(
    small_disk: Path, start: Start, containers: Podman, home: Path
) -> None:
    collector = start(*HARDENED, *FOR_FILES)
    with by_file():
        crash(containers, home, code="import os; kept = os.urandom(32 * 2**20); os.abort()")
    [record] = wait_until(collector.records, "the record")

    assert record["state"] == "held"
    assert "no space" in record["reason"]
    assert collector.is_well()
