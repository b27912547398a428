"""What goes wrong on nodes, and what the bundle makes of it."""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from common.item import CrashItem
from tests import crashes
from tests.bundle import BIN, Bundle, wait_until

StartBundle = Callable[..., Bundle]

NAME = "core.observer.9.f5-observer-0.1742738615173108860"


def put_core(bundle: Bundle, name: str = NAME, content: bytes = b"no ELF core") -> Path:
    """Put a file into the crash directory as crashagent does: complete, by a rename."""
    hidden = bundle.crash_dir / f".{name}.new"
    hidden.write_bytes(content)
    return hidden.rename(bundle.crash_dir / name)


@pytest.fixture
def inject(bundle: Bundle) -> Iterator[Callable[[list[bytes]], None]]:
    """Give a function that sends frames to coremond's queue, as they are."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 1000
        socket.connect(f"ipc://{bundle.run_dir}/items.sock")

        def send(frames: list[bytes]) -> None:
            socket.send_multipart(frames)

        yield send


def test_a_work_item_adds_what_only_its_sender_knows(
    bundle: Bundle, inject: Callable[[list[bytes]], None]
) -> None:
    hidden = bundle.home / "hidden"
    hidden.mkdir()
    outside = hidden / NAME
    outside.write_bytes(b"no ELF core")
    os.link(outside, bundle.crash_dir / NAME)  # a second name: refused until the other is gone

    outside.unlink()
    item = CrashItem(path=str(bundle.crash_dir / NAME), signal=11, uid=1000, exe="/bin/observer")
    inject(item.to_wire())

    [record] = bundle.wait_for_stored()
    assert (record["signal"], record["uid"], record["exe"]) == (11, 1000, "/bin/observer")
    assert record["pod"] == "f5-observer-0"


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"crash/1"],
        [b"crash/99", b"{}"],
        [b"crash/1", b"{"],
        [b"crash/1", b'{"path": 3}'],
        [b"crash/1", b'{"path": "relative"}'],
        [b"crash/1", b'{"path": "/x", "signal": "eleven"}'],
        [b"crash/1", b'{"path": "/' + b"x" * 70_000 + b'"}'],
        [b"crash/1", b"[" * 60_000],
        [bytes(range(256)), bytes(range(256))],
    ],
    ids=lambda frames: repr(frames)[:40],
)
def test_a_message_that_is_none_is_logged_and_dropped(
    bundle: Bundle, inject: Callable[[list[bytes]], None], frames: list[bytes]
) -> None:
    pid = bundle.pid_of("coremond")

    inject(frames)

    refused = bundle.wait_for("work item refused")
    assert refused["effect"] == "it is dropped"
    put_core(bundle)
    bundle.wait_for_stored()
    assert bundle.pid_of("coremond") == pid


def test_an_item_that_comes_twice_is_one_crash(
    bundle: Bundle, inject: Callable[[list[bytes]], None]
) -> None:
    path = put_core(bundle)
    for _ in range(20):
        inject(CrashItem(path=str(path)).to_wire())
    bundle.wait_for_stored()
    for _ in range(20):
        inject(CrashItem(path=str(path)).to_wire())
    put_core(bundle, NAME.replace("observer", "other", 1))

    assert len(bundle.wait_for_stored(2)) == 2


@pytest.mark.parametrize("path", ["/etc/passwd", "{crash}/../secret", "{crash}/sub/core.x", "/"])
def test_an_item_for_a_path_outside_is_refused(
    bundle: Bundle, inject: Callable[[list[bytes]], None], path: str
) -> None:
    path = path.format(crash=bundle.crash_dir)
    (bundle.home / "secret").write_text("secret")

    inject(CrashItem(path=path).to_wire())

    assert bundle.wait_for("work item refused")["path"] == path
    assert (bundle.home / "secret").exists()
    assert bundle.records() == []


def test_what_is_no_file_is_never_opened(bundle: Bundle) -> None:
    target = bundle.home / "target"
    target.write_text("not yours")
    (bundle.crash_dir / "core.link.1.host.1742738615").symlink_to(target)
    (bundle.crash_dir / "core.folder.2.host.1742738615").mkdir()
    fifo = bundle.crash_dir / "core.fifo.3.host.1742738615"
    os.mkfifo(fifo)
    put_core(bundle)  # its event makes the others seen with it, at the next scan at the latest

    bundle.wait_for_stored()
    for kind in ("a symbolic link", "a directory", "a FIFO"):
        bundle.wait_for("core file refused", reason=kind)

    # A writer that does not wait finds no reader: nobody has the FIFO open.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    assert len(bundle.records()) == 1
    assert target.read_text() == "not yours"
    assert len(bundle.corectl("list", "-q").stdout.splitlines()) <= 2


def test_a_file_that_is_still_written_is_left_alone(bundle: Bundle) -> None:
    path = bundle.crash_dir / NAME
    with path.open("wb") as file:
        file.write(b"first half, ")
        file.flush()
        bundle.corectl("submit", str(path))
        time.sleep(0.5)
        assert bundle.records() == []
        file.write(b"second half")

    [record] = bundle.wait_for_stored()
    assert record["size"] == len(b"first half, second half")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", {"elf": False, "truncated": False, "size": 0}),
        (b"\x7fELF", {"elf": False, "truncated": False, "size": 4}),
        (b"plain text", {"elf": False, "truncated": False, "size": 10}),
    ],
)
def test_what_is_no_core_is_stored_as_it_is(
    bundle: Bundle, content: bytes, expected: dict[str, object]
) -> None:
    put_core(bundle, content=content)

    [record] = bundle.wait_for_stored()
    assert {key: record[key] for key in expected} == expected
    restored = subprocess.run(
        ["gunzip", "-c", bundle.core(record)], capture_output=True, check=True
    ).stdout
    assert restored == content


@pytest.mark.usefixtures("real_kernel")
def test_a_core_that_is_cut_off_is_stored_and_marked(
    start_bundle: StartBundle, crash_program: Path
) -> None:
    bundle = start_bundle(COREMON_DELETE_SRC="false")
    with crashes.by_file(bundle):
        crashes.run_to_death(crash_program, "segv", "4")
        bundle.wait_for_stored()
    [whole] = bundle.crash_dir.glob("core.*")

    put_core(bundle, NAME, whole.read_bytes()[: 2**20])

    record = next(r for r in bundle.wait_for_stored(2) if r["crashed_at"] == 1742738615173108860)
    assert (record["elf"], record["truncated"]) == (True, True)
    assert "bytes of it are missing" in record["truncated_why"]
    assert "truncated" in bundle.corectl("list", record["id"]).stdout


def test_a_levels_file_works_while_running_also_when_it_is_swapped(
    start_bundle: StartBundle, home: Path
) -> None:
    (home / "a").mkdir()
    (home / "a" / "levels").write_text("default: info\n")
    (home / "minlevel.yaml").symlink_to("data/levels")
    (home / "data").symlink_to("a")
    bundle = start_bundle()
    put_core(bundle)
    bundle.wait_for_stored()
    assert not bundle.find("failed to read levels file")

    (home / "b").mkdir()
    (home / "b" / "levels").write_text("default: info\ncoremond: error\ncrashagent: debug\n")
    (home / "next").symlink_to("b")
    (home / "next").rename(home / "data")  # as the kubelet swaps a ConfigMap
    time.sleep(2.5)  # it is looked at once a second

    seen = len(bundle.lines)
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"9 6 0 1")
    bundle.wait_for_stored(2)
    bundle.wait_for("crash taken in", since=seen)
    assert not bundle.find("creating coredump", since=seen)

    (home / "b" / "levels").write_text("default: loud\n")
    text = f"failed to read levels file {home}/minlevel.yaml: default: expected one of"
    wait_until(lambda: any(text in line for line in bundle.lines[seen:]), "the complaint")
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"10 6 0 1")
    bundle.wait_for_stored(3)
    assert not bundle.find("creating coredump", since=seen)


def test_a_full_disk_costs_time_and_no_core(small_disk: Path, home: Path) -> None:
    bundle = Bundle(home, {"COREMON_SCAN_INTERVAL": "1s"})
    with bundle:
        bundle.store_dir.mkdir(exist_ok=True)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(5 * 2**20))
        path = put_core(bundle, content=random.randbytes(6 * 2**20))

        failed = bundle.wait_for("core could not be stored")

        assert failed["reason"] == "the disk is full"
        assert path.exists()
        # It is tried again and again; in between, nothing of it is left.
        wait_until(lambda: os.listdir(bundle.store_dir) == [".lock"], "what was written to go")
        assert bundle.find("deleting src core file") is None

        ballast.unlink()
        [record] = bundle.wait_for_stored()
        assert record["size"] == 6 * 2**20
        assert bundle.corectl("verify").returncode == 0
        wait_until(lambda: not path.exists(), "the source to go")


def test_status_sees_a_full_disk(small_disk: Path, home: Path) -> None:
    with Bundle(home) as bundle:
        wait_until(lambda: bundle.corectl("status").returncode == 0, "a healthy bundle")

        (small_disk / "ballast").write_bytes(bytes(8 * 2**20 - 64 * 1024))

        status = bundle.corectl("status")
        assert status.returncode == 1
        assert "full" in status.stdout + status.stderr


def test_a_source_that_stays_is_converted_once_also_over_restarts(home: Path) -> None:
    bundle = Bundle(home, {"COREMON_DELETE_SRC": "false", "COREMON_SCAN_INTERVAL": "200ms"})
    with bundle:
        put_core(bundle)
        bundle.wait_for_stored()
        time.sleep(0.6)

    with bundle:
        time.sleep(0.6)
    bundle.settings |= {"COREMON_RETENTION": "1s", "COREMON_CORES_INTERVAL": "100ms"}
    with bundle:
        # The retention takes the source too; a copy of it with the same name is another file.
        wait_until(lambda: not bundle.stored(), "the retention")

    assert len([e for e in bundle.events() if e["m"] == "creating coredump"]) == 1
    assert [record["state"] for record in bundle.records()] == ["removed"]


@pytest.mark.parametrize("rotate", ["false", "true"])
def test_the_limit_holds_a_crash_loop_and_the_interval_ends_the_hold(
    start_bundle: StartBundle, rotate: str
) -> None:
    bundle = start_bundle(
        COREMON_CORES_MAX_FILES="2", COREMON_RETENTION_INTERVAL="4s", COREMON_ROTATE=rotate
    )

    def crash() -> None:
        put_core(bundle, f"core.observer.9.f5-observer-0.{time.time_ns()}")

    for _ in range(5):
        crash()
    held = wait_until(
        lambda: [r for r in bundle.records() if r["state"] == "held" and r["count"] == 3],
        "three crashes in one record of held ones",
    )
    assert len(bundle.wait_for_stored(2)) == 2
    wait_until(lambda: not list(bundle.crash_dir.glob("core.*")), "the sources to go")

    reached = max(record["crashed_at"] for record in bundle.stored())
    wait_until(lambda: time.time_ns() > reached + 4 * 10**9, "the end of the interval")
    crash()

    newest = wait_until(
        lambda: [r for r in bundle.stored() if r["crashed_at"] > reached], "one more core"
    )
    assert len(newest) == 1
    assert len(bundle.stored()) == (2 if rotate == "true" else 3)
    assert bundle.wait_for("core not kept")["until"] > bundle.events()[0]["ts"]
    assert held[0]["reason"] == "the limit of 2 cores of this process is reached"


def test_cores_go_when_they_are_too_old(start_bundle: StartBundle) -> None:
    bundle = start_bundle(COREMON_RETENTION="2s", COREMON_CORES_INTERVAL="500ms")
    put_core(bundle)
    [record] = bundle.wait_for_stored()

    removed = bundle.wait_for("core removed")

    assert removed["reason"] == "older than COREMON_RETENTION"
    wait_until(lambda: not bundle.core(record).exists(), "the core to go")
    [record] = bundle.records()
    assert record["state"] == "removed"


def gone(path: Path) -> bool:
    return not path.exists()


def test_the_quota_takes_from_the_loop_and_spares_the_quiet(start_bundle: StartBundle) -> None:
    bundle = start_bundle(COREMON_MAX_USE="3500K", COREMON_CORES_MAX_FILES="0")
    put_core(bundle, "core.quiet.1.web-0.1742738600000000000", random.randbytes(2**20))
    bundle.wait_for_stored()

    for n in range(1, 6):
        name = f"core.loop.2.job-0.17427386{n:02d}000000000"
        put_core(bundle, name, random.randbytes(2**20))
        source = bundle.crash_dir / name
        wait_until(partial(gone, source), f"{name} to go")

    kept = {(r["process"], r["crashed_at"] // 10**9) for r in bundle.stored()}
    assert kept == {("quiet", 1742738600), ("loop", 1742738604), ("loop", 1742738605)}


def test_a_wrong_setting_is_shown_before_anything_starts(home: Path) -> None:
    bundle = Bundle(home, {"COREMON_ROTATE": "maybe", "COREMON_RETENTION": "5 minutes"})

    ended = subprocess.run(
        [BIN / "coremond-bundle"], env=bundle.env, capture_output=True, text=True, timeout=30
    )

    assert ended.returncode == os.EX_CONFIG
    assert "COREMON_ROTATE='maybe'" in ended.stderr
    assert "COREMON_RETENTION='5 minutes'" in ended.stderr


@pytest.mark.parametrize("program", ["coremond", "crashagent"])
def test_a_program_with_wrong_settings_lists_them_all_and_exits_78(
    home: Path, program: str
) -> None:
    wrong = {"COREMON_MAX_CORE": "big", "COREMON_KEEP_FREE": "200%", "COREMON_CRASH_DIR": "here"}
    bundle = Bundle(home, {})

    ended = subprocess.run(
        [BIN / program], env=bundle.env | wrong, capture_output=True, text=True, timeout=30
    )

    assert ended.returncode == os.EX_CONFIG
    assert all(f"{name}='{value}'" in ended.stdout for name, value in wrong.items())


def test_a_second_start_is_told_of_the_first(bundle: Bundle) -> None:
    second = subprocess.run(
        [BIN / "coremond-bundle"], env=bundle.env, capture_output=True, text=True, timeout=30
    )
    of_others = {
        "COREMON_RUN_DIR": str(bundle.home / "other"),
        "COREMON_CRASH_DIR": str(bundle.home / "crash-2"),
        "NODE_NAME": "node-2",
    }
    Path(of_others["COREMON_CRASH_DIR"]).mkdir()

    def start_beside(shared: str) -> subprocess.CompletedProcess[str]:
        settings = of_others | {shared: bundle.env.get(shared, "node-1")}
        return subprocess.run(
            [BIN / "coremond"],
            env=bundle.env | settings,
            capture_output=True,
            text=True,
            timeout=30,
        )

    in_its_store, at_its_crashes = start_beside("NODE_NAME"), start_beside("COREMON_CRASH_DIR")

    assert second.returncode == os.EX_CONFIG
    assert "another program listens there" in second.stderr
    assert in_its_store.returncode == at_its_crashes.returncode == os.EX_CONFIG
    assert "another coremond keeps its cores there" in in_its_store.stdout
    assert "another coremond takes what comes in there" in at_its_crashes.stdout
    put_core(bundle)
    bundle.wait_for_stored()


def test_lines_are_never_torn(start_bundle: StartBundle, home: Path) -> None:
    (home / "minlevel.yaml").write_text("default: debug\n")
    bundle = start_bundle(COREMON_CORES_MAX_FILES="0")
    for n in range(150):
        long = "x" * 180
        put_core(bundle, f"core.{long}.{n + 1}.f5-observer-0.{1742738615173108860 + n}")
        with crashes.Sender(bundle.apport_socket) as sender:
            sender.send_message(b"not numbers " + b'\xff\n"|' * 40)
    bundle.wait_for_stored(300)
    bundle.stop()

    ours = [line for line in bundle.lines if '"lt"="A"' in line]
    assert len(ours) > 900
    assert len(bundle.events()) == len(ours)  # each parses, strictly, from its first byte
    assert all(event["v"] == "1.0" for event in bundle.events())


def test_the_output_may_be_a_file(home: Path) -> None:
    bundle = Bundle(home)
    output = home / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([BIN / "coremond-bundle"], env=bundle.env, stdout=file)
        with process:
            wait_until(lambda: b"grpc server is starting up" in output.read_bytes(), "the start")
            process.terminate()
            assert process.wait(60) == 0

    lines = output.read_text().splitlines()
    bundle.lines = lines
    assert bundle.find("coremond started")
    assert sum("INFO stopped: " in line for line in lines) == 3
    assert lines[0].startswith("20")


def test_records_are_json_that_others_read(bundle: Bundle) -> None:
    put_core(bundle, os.fsdecode(b"core.na\xff\nme.9.host.1742738615"))
    bundle.wait_for_stored()

    [path] = bundle.store_dir.glob("*.json")
    record = json.loads(path.read_text())
    assert record["process"] == "na\\xff\nme"
    assert record["name"] == "core.host.host.na%5Cxff%0Ame.9.1742738615000000000"


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_makes_the_loop_give_way_where_space_is_to_stay_free(home: Path) -> None:
    settings = {
        "COREMON_KEEP_FREE": "5%",
        "COREMON_CORES_MAX_FILES": "0",
        "COREMON_SCAN_INTERVAL": "1s",
    }
    with Bundle(home, settings) as bundle:
        put_core(bundle, "core.quiet.1.web-0.1742738600000000000", random.randbytes(2**20))
        bundle.wait_for_stored()

        for n in range(1, 5):
            name = f"core.loop.2.job-0.17427386{n:02d}000000000"
            put_core(bundle, name, random.randbytes(3 * 2**20))
            wait_until(partial(gone, bundle.crash_dir / name), f"{name} to go")

        kept = {(r["process"], r["crashed_at"] // 10**9) for r in bundle.stored()}
        assert kept == {("quiet", 1742738600), ("loop", 1742738603), ("loop", 1742738604)}


@pytest.mark.parametrize("program", ["coremond", "crashagent", "qkview-collect"])
def test_a_program_explains_itself_and_touches_nothing(home: Path, program: str) -> None:
    bundle = Bundle(home, {"COREMON_CRASH_DIR": str(home / "none")})

    asked = subprocess.run(
        [BIN / program, "--help"], env=bundle.env, capture_output=True, text=True, timeout=30
    )
    wrong = subprocess.run(
        [BIN / program, "--bogus"], env=bundle.env, capture_output=True, text=True, timeout=30
    )

    assert (asked.returncode, wrong.returncode) == (0, 2)
    assert "coremond-bundle" in asked.stdout
    assert not (home / "none").exists()


def test_the_programs_end_with_supervisord_however_that_ends(bundle: Bundle) -> None:
    pids = [process["pid"] for process in bundle.processes()]
    assert len(pids) == 3

    bundle.kill_supervisord()

    for pid in pids:
        wait_until(partial(gone, Path(f"/proc/{pid}")), f"{pid} to end")


def test_a_setting_that_there_is_not_is_told(home: Path) -> None:
    bundle = Bundle(home, {"COREMON_RETENSION": "1d", "QKVIEW_SERVICE_HOST": "10.0.0.1"})
    with (home / "stderr").open("w+") as stderr:
        words = [str(BIN / "coremond-bundle"), "-c", "/nowhere.conf"]

        subprocess.run(words, env=bundle.env, stderr=stderr, stdout=stderr, timeout=30)
        stderr.seek(0)
        said = stderr.read()

    assert "COREMON_RETENSION: there is no such setting; it is ignored" in said
    assert "QKVIEW_SERVICE_HOST" not in said
