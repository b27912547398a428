import contextlib
import gzip
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import zmq

from common.answering import Answering
from common.buildinfo import VERSION
from common.item import CoreEvent, CrashItem
from common.naming import RECORD_SUFFIX
from common.record import CrashRecord, Source
from common.workqueue import EventSender, ItemReceiver, events_endpoint, items_endpoint
from tests import loglines
from tests.bundle import BIN, wait_until
from tests.certificates import Authority
from tests.store import CRASHED_AT, Store, core_of, crash

NODE = "node-1"
TIMEOUT = 30
HOUR = 3600 * 10**9
PAGE = 4096


class Operator:
    """Owns a folder with what the programs would have, and runs corectl there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run_dir = home / "run"
        self.crash_dir = home / "crash"
        self.apport_socket = home / "apport.socket"
        self.run_dir.mkdir()
        self.crash_dir.mkdir()
        self.store = Store(home / "cores" / NODE)
        self.settings = {
            "COREMON_RUN_DIR": str(self.run_dir),
            "COREMON_CRASH_DIR": str(self.crash_dir),
            "COREMON_CORES_DIR": str(home / "cores"),
            "COREMON_LEVELS_FILE": str(home / "levels.yaml"),
            "CRASHAGENT_APPORT_SOCKET": str(self.apport_socket),
            "QKVIEW_ADDRESS": "127.0.0.1:0",
            "COREMON_METRICS_ADDRESS": "off",
            "QKVIEW_TLS_DIR": str(home / "tls"),
            "NODE_NAME": NODE,
            "TZ": "UTC",
        }

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.settings}

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        command = [BIN / "corectl", *words]
        return subprocess.run(command, env=self.env, cwd=self.home, timeout=TIMEOUT, **given)

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        command = [BIN / "corectl", *words]
        return subprocess.Popen(command, env=self.env, cwd=self.home, text=True, **options)

    def ids(self, *words: str) -> list[str]:
        """List as JSON, and give the ids."""
        return [record["id"] for record in json.loads(self.run("list", "--json", *words).stdout)]

    def on_terminal(self, *words: str) -> tuple[str, int]:
        """Run corectl on a terminal of its own; give what it shows there, and its status."""
        ours, theirs = pty.openpty()
        process = self.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
            while data := terminal.read(65536):
                shown += data
        return shown.decode(), process.wait(TIMEOUT)


@pytest.fixture
def home() -> Iterator[Path]:
    # In /tmp, for pytest's own folders are too deep for the path of a socket.
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def operator(home: Path) -> Operator:
    return Operator(home)


@pytest.fixture
def crashes(operator: Operator) -> list[CrashRecord]:
    """Three crashes: one stored, one held seven times, one whose core retention removed."""
    add = operator.store.add
    return [
        add(b"first", pid=11, crashed_at=CRASHED_AT - 2 * HOUR),
        add(pid=22, comm="tmm", exe="/usr/bin/tmm", state="held", reason="limit", count=7),
        add(pid=33, comm="bgpd", state="removed", reason="age", crashed_at=CRASHED_AT + HOUR),
    ]


# list


def test_list_shows_a_line_for_each_crash_oldest_first(
    operator: Operator, crashes: list[CrashRecord]
) -> None:
    done = operator.run("list")

    title, *lines = done.stdout.splitlines()
    assert title.split()[:6] == ["TIME", "PID", "UID", "GID", "SIG", "COREFILE"]
    assert title.split()[6:] == ["EXE", "POD", "CONTAINER", "SIZE", "NEW", "ID"]
    assert [line.split()[4] for line in lines] == ["11", "22", "33"]
    assert lines[0].startswith("Sun 2025-03-23 12:03:35 UTC")
    assert "present" in lines[0]
    assert "none x7" in lines[1]
    assert "removed" in lines[2]
    assert [line.split()[-1] for line in lines] == [record.id for record in crashes]
    assert (done.returncode, done.stderr) == (0, "")


def test_list_tells_truncated_and_missing_cores(operator: Operator) -> None:
    operator.store.add(pid=1, truncated=True)
    gone = operator.store.add(pid=2)
    operator.store.path(gone).unlink()

    lines = operator.run("list", "-q").stdout.splitlines()

    assert [word for line in lines for word in ("truncated", "missing") if word in line] == [
        "truncated",
        "missing",
    ]


def test_list_can_be_asked_for_less(operator: Operator, crashes: list[CrashRecord]) -> None:
    first, second, third = (record.id for record in crashes)

    assert operator.ids() == [first, second, third]
    assert operator.ids("-r") == [third, second, first]
    assert operator.ids("-1") == [third]
    assert operator.ids("-n", "2", "-r") == [third, second]
    assert operator.ids("--since", "2025-03-23 14:00") == [second, third]
    assert operator.ids("--until", "2025-03-23T14:00Z") == [first]
    assert operator.ids("tmm", "11") == [first, second]
    assert operator.ids("/usr/bin/tmm", first[:6]) == [first, second]


def test_since_takes_a_duration_ago(operator: Operator, crashes: list[CrashRecord]) -> None:
    old, new = crashes[0], operator.store.add(pid=44, crashed_at=os.stat("/proc/self").st_ctime_ns)

    assert operator.ids("--since", "2h") == [new.id]
    assert operator.ids("--until", "2h", "-r")[-1] == old.id


def test_list_as_json_is_one_document_of_the_records(
    operator: Operator, crashes: list[CrashRecord]
) -> None:
    read = json.loads(operator.run("list", "--json").stdout)

    assert read == [json.loads(record.to_json()) for record in crashes]


@pytest.mark.parametrize("command", ["list", "info", "verify", "dump"])
def test_no_match_is_said_and_is_a_failure(
    operator: Operator, crashes: list[CrashRecord], command: str
) -> None:
    done = operator.run(command, "nothing")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "No coredumps found.\n"


def test_a_node_without_a_store_has_no_cores(operator: Operator) -> None:
    shutil.rmtree(operator.store.directory)

    done = operator.run("list", "--json")

    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert done.stderr == "No coredumps found.\n"


def test_a_broken_record_is_told_and_passed_over(
    operator: Operator, crashes: list[CrashRecord]
) -> None:
    operator.store.path(crashes[0], RECORD_SUFFIX).write_text("{\x1b[2J")

    done = operator.run("list", "-q")

    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith("corectl: crash record unreadable: core.")
    assert "\x1b" not in done.stderr


def test_what_a_process_chose_cannot_steer_the_terminal(operator: Operator) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J[bold]x[/bold]\u202e\n"
    operator.store.add(comm=hostile, exe=hostile, cmdline=hostile, pod=hostile, reason=hostile)

    for command in (["list"], ["info"], ["list", "--json"], ["verify"], ["info", "--json"]):
        shown = operator.run(*command).stdout
        assert shown.replace("\n", "").isprintable(), command
    shown, _ = operator.on_terminal("list")
    assert "\x1b]0;" not in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown
    shown, _ = operator.on_terminal("list", "--json")
    assert json.loads(shown)[0]["comm"] == hostile


def test_a_terminal_gets_colours_and_whole_ids(
    operator: Operator, crashes: list[CrashRecord]
) -> None:
    operator.settings["TERM"] = "xterm-256color"

    shown, code = operator.on_terminal("list")

    assert code == 0
    assert "\x1b[" in shown
    assert all(record.id in shown for record in crashes)


def test_a_reader_that_leaves_ends_it_quietly(operator: Operator) -> None:
    for pid in range(1, 300):
        record = crash(pid=pid, state="held", cmdline="x" * 4000)
        operator.store.path(record, RECORD_SUFFIX).write_bytes(record.to_json())
    reader, writer = os.pipe()
    process = operator.start("list", "--json", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    os.read(reader, 10)
    os.close(reader)

    _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")


# info


def test_info_tells_all_of_the_newest(operator: Operator, crashes: list[CrashRecord]) -> None:
    done = operator.run("info")

    facts = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines())
    assert facts["ID"] == crashes[2].id
    assert facts["State"] == "removed"
    assert facts["Reason"] == "age"
    assert facts["Crashed at"] == "Sun 2025-03-23 15:03:35 UTC"


def test_info_tells_of_every_match(operator: Operator, crashes: list[CrashRecord]) -> None:
    texts = operator.run("info", "11", "22").stdout.split("\n\n")

    assert [f"ID: {record.id}" in text for record, text in zip(crashes, texts, strict=False)] == [
        True,
        True,
    ]


# verify


def test_verify_is_content_with_whole_cores(operator: Operator, crashes: list[CrashRecord]) -> None:
    done = operator.run("verify")

    assert (done.returncode, done.stdout) == (0, f"{crashes[0].core}: OK\n")


def test_verify_names_each_damage(operator: Operator) -> None:
    add, path = operator.store.add, operator.store.path
    whole, flipped, gone, unsummed, short = (add(core_of(9999), pid=pid) for pid in range(1, 6))
    content = bytearray(path(flipped).read_bytes())
    content[-20] ^= 1
    path(flipped).write_bytes(content)
    path(gone).unlink()
    path(unsummed, ".gz.crc").write_text(f"{unsummed.core} 00000000\n")
    path(short).write_bytes(path(short).read_bytes()[:-1])

    done = operator.run("verify")
    read = json.loads(operator.run("verify", "--json").stdout)

    assert done.returncode == 1
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found == read
    assert found[whole.core] == "OK"
    assert "CRC-32" in found[flipped.core]
    assert found[gone.core] == "a file is missing"
    assert "the .crc file says" in found[unsummed.core]
    assert f"{short.packed - 1} bytes, not {short.packed}" in found[short.core]


# dump


def test_dump_restores_the_core_sparsely_for_its_owner_only(operator: Operator) -> None:
    content = b"head" + bytes(4 * 2**20) + b"tail"
    record = operator.store.add(content)

    done = operator.run("dump", "-o", "out")

    out = operator.home / "out"
    assert done.returncode == 0
    assert out.read_bytes() == content
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.stat().st_blocks * 512 < len(content) // 2
    assert f"ID: {record.id}" in done.stderr
    assert "PID: 9 (observer)" in done.stderr


def test_dump_takes_the_newest_match(operator: Operator) -> None:
    operator.store.add(b"old", crashed_at=CRASHED_AT)
    operator.store.add(b"new", crashed_at=CRASHED_AT + 1)

    assert operator.run("dump", "observer").stdout == "new"


def test_dump_goes_into_a_pipe_and_into_files_that_are_there(operator: Operator) -> None:
    content = b"head" + bytes(2 * PAGE) + b"tail"
    operator.store.add(content)
    appended = operator.home / "appended"
    appended.write_bytes(b"before")

    with appended.open("ab") as target:
        assert operator.run("dump", stdout=target).returncode == 0
    with (operator.home / "new").open("wb") as target:
        assert operator.run("dump", stdout=target).returncode == 0
    with open(os.devnull, "wb") as target:
        assert operator.run("dump", stdout=target).returncode == 0

    assert operator.run("dump").stdout.encode() == content
    assert appended.read_bytes() == b"before" + content
    assert (operator.home / "new").read_bytes() == content


def test_dump_replaces_a_file_only_when_forced(operator: Operator) -> None:
    operator.store.add(b"a core")
    out = operator.home / "out"
    out.write_bytes(b"precious")

    refused = operator.run("dump", "-o", out)
    assert (refused.returncode, out.read_bytes()) == (1, b"precious")
    assert "is there already; --force replaces it" in refused.stderr

    assert operator.run("dump", "--force", "-o", out).returncode == 0
    assert out.read_bytes() == b"a core"


def test_dump_never_replaces_what_is_no_file(operator: Operator) -> None:
    operator.store.add(b"a core")
    link = operator.home / "link"
    link.symlink_to("/dev/null")

    done = operator.run("dump", "--force", "-o", link)

    assert (done.returncode, link.is_symlink()) == (1, True)
    assert "no regular file" in done.stderr


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_dump_that_fails_leaves_nothing_behind(operator: Operator, force: list[str]) -> None:
    record = operator.store.add(core_of(3 * 2**20))
    path = operator.store.path(record)
    path.write_bytes(path.read_bytes()[: 2 * 2**20])
    if force:
        (operator.home / "out").write_bytes(b"precious")
    before = sorted(operator.home.iterdir())

    done = operator.run("dump", "-o", "out", *force)

    assert done.returncode == 1
    assert "damaged gzip: " in done.stderr
    assert f"at byte {2 * 2**20}" in done.stderr
    assert sorted(operator.home.iterdir()) == before
    assert not force or (operator.home / "out").read_bytes() == b"precious"


def test_dump_says_why_a_core_is_not_there(operator: Operator, crashes: list[CrashRecord]) -> None:
    operator.store.path(crashes[0]).unlink()

    reasons = [operator.run("dump", pid).stderr.splitlines()[-1] for pid in ("11", "22", "33")]

    assert reasons == [
        f"corectl: {crashes[0].core}: it is recorded as stored, but its file is gone",
        "corectl: its core was never stored: limit",
        "corectl: its core was removed: age",
    ]


def test_dump_does_not_fill_a_terminal_with_a_core(operator: Operator) -> None:
    operator.store.add(b"a core")

    shown, code = operator.on_terminal("dump")

    assert code == 1
    assert "Refusing to dump core to tty (use shell redirection or specify --output=)." in shown
    assert "a core" not in shown


# watch and submit


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


def watched(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]], *words: str, event: CoreEvent
) -> str:
    """Tell *event* until corectl has shown it, end that with Ctrl-C, and give the line."""
    process = operator.start("watch", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    with EventSender(context, events_endpoint(operator.run_dir)) as events:

        def shown() -> str:
            events.send(event)
            return read_line(process.stdout)

        line: str = wait_until(shown, "an event")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "Traceback" not in errors
    return line


def read_line(file: IO[str] | None) -> str:
    assert file is not None
    try:
        return os.read(file.fileno(), 65536).decode().partition("\n")[0]
    except BlockingIOError:
        return ""


def test_watch_shows_events_as_they_happen(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    event = CoreEvent(
        kind="held", id="0123456789ab", process="a\x1b[2J", reason="limit", at=CRASHED_AT
    )

    line = watched(operator, context, event=event)

    assert line.startswith("Sun 2025-03-23 14:03:35 UTC held")
    assert "0123456789ab" in line
    assert line.endswith("(limit)")
    assert line.isprintable()


def test_watch_as_json_is_an_event_a_line(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    event = CoreEvent(kind="stored", id="0123456789ab", core="/var/cores/n/core.gz", pid=7)

    read = json.loads(watched(operator, context, "--json", "-q", event=event))

    assert (read["kind"], read["id"], read["pid"]) == ("stored", "0123456789ab", 7)


def test_watch_says_once_that_nobody_answers_yet_and_once_that_somebody_does(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    process = operator.start("watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = [process.stderr.readline(), process.stderr.readline()]

    with EventSender(context, events_endpoint(operator.run_dir)):
        said.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        _, more = process.communicate(timeout=TIMEOUT)

    assert [line.split()[0] for line in said] == ["Watching", "Nobody", "coremond"]
    assert (process.returncode, more) == (0, "")


def test_watch_of_events_only_says_nothing_else(operator: Operator) -> None:
    process = operator.start("watch", "-q", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: sleeps(process.pid), "it to wait")

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=TIMEOUT) == ("", "")


def sleeps(pid: int) -> bool:
    """Say whether corectl has imported all it needs, and has a thread of ZeroMQ's."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1


def taken(operator: Operator, path: Path, **facts: Any) -> CrashRecord:
    """Store a crash that coremond has read from *path*."""
    return operator.store.add(sources=(Source.of(path.name, path.stat()),), **facts)


def test_submit_of_what_was_taken_meanwhile_says_what_it_has_become(operator: Operator) -> None:
    path = operator.crash_dir / "core.a b.1.h.1"
    path.write_bytes(b"core")
    old = taken(operator, path, pid=1, detected_at=1)
    new = taken(operator, path, pid=2, detected_at=2)
    path.unlink()

    done = operator.run("submit", path)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"taken it already; it is {new.id}, its core is {new.core}" in done.stdout
    assert old.id not in done.stdout


def test_submit_of_what_was_not_kept_says_why(operator: Operator) -> None:
    path = operator.crash_dir / "core.a.1.h.1"
    path.write_bytes(b"core")
    record = taken(operator, path, state="held", reason="limit")

    done = operator.run("submit", path)

    assert done.returncode == 0
    assert f"it is {record.id}, its core was never stored: limit" in done.stdout


def test_submit_of_another_file_of_that_name_is_handed_over(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    path = operator.crash_dir / "core"
    path.write_bytes(b"core")
    gone = taken(operator, path)
    with ItemReceiver(context, items_endpoint(operator.run_dir)) as items:
        operator.store.path(gone).unlink()
        again = operator.run("submit", path)
        path.write_bytes(b"another core")
        other = operator.run("submit", path)
        got = wait_until(items.waiting, "an item")

    assert (again.returncode, other.returncode) == (0, 0)
    assert "handed to coremond" in again.stdout
    assert "handed to coremond" in other.stdout
    assert got[0] == CrashItem(path=str(path))


def test_submit_hands_coremond_the_absolute_path(
    operator: Operator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    (operator.crash_dir / "core.a.1.h.1").write_bytes(b"core")

    with ItemReceiver(context, items_endpoint(operator.run_dir)) as items:
        done = operator.run("submit", "crash/core.a.1.h.1")
        got: list[CrashItem] = wait_until(items.waiting, "the item")

    assert got == [CrashItem(path=str(operator.crash_dir / "core.a.1.h.1"))]
    assert (done.returncode, done.stderr) == (0, "")


def test_submit_says_when_nobody_took_it(operator: Operator) -> None:
    (operator.crash_dir / "core.a.1.h.1").write_bytes(b"core")

    done = operator.run("submit", operator.crash_dir / "core.a.1.h.1")

    assert done.returncode == 1
    assert "coremond did not take it" in done.stderr


def test_submit_refuses_what_coremond_would_not_take(operator: Operator) -> None:
    (operator.home / "outside").write_bytes(b"core")
    (operator.crash_dir / "link").symlink_to(operator.home / "outside")
    odd = os.fsdecode(b"crash/\xff")
    (operator.home / odd).write_bytes(b"core")

    for path, words in (
        ("outside", "not in the crash directory"),
        ("crash/none", "no such file"),
        ("crash/link", "a symbolic link"),
        (odd, "not UTF-8"),
    ):
        done = operator.run("submit", path)
        assert done.returncode == 1, path
        assert words in done.stderr
        assert "Traceback" not in done.stderr


# fetch


@contextlib.contextmanager
def qkview_collect(operator: Operator) -> Iterator[str]:
    """Run the real one beside the store, and give its address."""
    process = subprocess.Popen(
        [BIN / "qkview-collect"], env=operator.env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        fields = loglines.parse(line.rstrip("\n"))
        if fields["m"] == "grpc server is starting up":
            break
    yield fields["address"]
    process.terminate()
    process.communicate(timeout=TIMEOUT)


@pytest.fixture
def qkview(operator: Operator) -> Iterator[str]:
    with qkview_collect(operator) as address:
        yield address


def test_fetch_brings_a_core_under_its_own_name(operator: Operator, qkview: str) -> None:
    record = operator.store.add(core_of(2**20))

    done = operator.run("fetch", record.id, "--address", qkview)

    got = operator.home / record.core
    assert (done.returncode, done.stdout) == (0, f"{record.core}\n")
    assert got.read_bytes() == operator.store.path(record).read_bytes()
    assert stat.S_IMODE(got.stat().st_mode) == 0o600
    assert not list(operator.home.glob("*.part"))


def test_fetch_goes_on_where_it_ended(operator: Operator, qkview: str) -> None:
    record = operator.store.add(core_of(2**20))
    whole = operator.store.path(record).read_bytes()
    (operator.home / "out.gz.part").write_bytes(whole[: 2**19])

    done = operator.run("fetch", record.id, "-o", "out.gz", "--address", qkview)

    assert done.returncode == 0
    assert "Going on after 512.0 KiB" in done.stderr
    assert (operator.home / "out.gz").read_bytes() == whole


def test_fetch_finishes_a_part_that_was_whole_already(operator: Operator, qkview: str) -> None:
    record = operator.store.add(b"a core")
    whole = operator.store.path(record).read_bytes()
    (operator.home / "out.gz.part").write_bytes(whole)

    assert operator.run("fetch", record.id, "-o", "out.gz", "--address", qkview).returncode == 0
    assert gzip.decompress((operator.home / "out.gz").read_bytes()) == b"a core"


@pytest.mark.parametrize(("part", "words"), [(b"other", "CRC-32"), (b"x" * 9999, "OUT_OF_RANGE")])
def test_a_part_of_another_core_is_told_and_not_kept(
    operator: Operator, qkview: str, part: bytes, words: str
) -> None:
    record = operator.store.add(b"a core")
    (operator.home / "out.gz.part").write_bytes(part)

    done = operator.run("fetch", record.id, "-o", "out.gz", "--address", qkview)

    assert done.returncode == 1
    assert words in done.stderr
    assert not list(operator.home.glob("out.gz*"))
    assert operator.run("fetch", record.id, "-o", "out.gz", "--address", qkview).returncode == 0


def test_a_core_that_was_damaged_there_is_told_here(operator: Operator, qkview: str) -> None:
    record = operator.store.add(b"a core")
    content = bytearray(operator.store.path(record).read_bytes())
    content[-1] ^= 1
    operator.store.path(record).write_bytes(content)

    done = operator.run("fetch", record.id, "--address", qkview)

    assert done.returncode == 1
    assert f"not {record.crc32}" in done.stderr
    assert not list(operator.home.glob("core.*"))


def test_fetch_keeps_its_hands_off_what_is_there(operator: Operator, qkview: str) -> None:
    record = operator.store.add(b"a core")
    (operator.home / "out.gz").write_bytes(b"precious")
    (operator.home / "linked.gz.part").symlink_to(operator.home / "out.gz")

    exists = operator.run("fetch", record.id, "-o", "out.gz", "--address", qkview)
    linked = operator.run("fetch", record.id, "-o", "linked.gz", "--address", qkview)

    assert (exists.returncode, linked.returncode) == (1, 1)
    assert "out.gz exists already; --force replaces it" in exists.stderr
    assert (operator.home / "out.gz").read_bytes() == b"precious"


def test_fetch_replaces_a_file_only_when_forced_and_only_by_the_whole_core(
    operator: Operator, qkview: str
) -> None:
    record = operator.store.add(b"a core")
    out = operator.home / "out.gz"
    out.write_bytes(b"precious")
    words = ["--force", "-o", "out.gz", "--address", qkview]

    unknown = operator.run("fetch", "0" * 12, *words)
    kept = out.read_bytes()
    done = operator.run("fetch", record.id, *words)

    assert (unknown.returncode, kept) == (1, b"precious")
    assert (done.returncode, done.stderr) == (0, "")
    assert gzip.decompress(out.read_bytes()) == b"a core"


def test_fetch_never_replaces_what_is_no_file(operator: Operator, qkview: str) -> None:
    record = operator.store.add(b"a core")
    (operator.home / "link").symlink_to("/dev/null")

    done = operator.run("fetch", record.id, "--force", "-o", "link", "--address", qkview)

    assert (done.returncode, (operator.home / "link").is_symlink()) == (1, True)
    assert "no regular file" in done.stderr


def test_fetch_says_why_there_is_nothing_to_fetch(operator: Operator, qkview: str) -> None:
    held = operator.store.add(pid=1, state="held", reason="limit")

    done = operator.run("fetch", held.id, "--address", qkview)
    unknown = operator.run("fetch", "0" * 12, "--address", qkview)

    assert done.stderr == ("corectl: the core was never stored: limit (FAILED_PRECONDITION)\n")
    assert "there is no record 000000000000 (NOT_FOUND)" in unknown.stderr
    assert (done.returncode, unknown.returncode) == (1, 1)
    assert not list(operator.home.glob("*.part"))


def test_fetch_says_when_nobody_is_there(operator: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    done = operator.run("fetch", "0" * 12, "--address", f"127.0.0.1:{port}")

    assert done.returncode == 1
    assert "(UNAVAILABLE)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_fetch_shows_its_progress_on_a_terminal(operator: Operator, qkview: str) -> None:
    record = operator.store.add(core_of(2**20))

    shown, code = operator.on_terminal("fetch", record.id, "-o", "out.gz", "--address", qkview)

    assert code == 0
    assert "MB" in shown


def test_fetch_shows_its_certificate(operator: Operator) -> None:
    authority = Authority(operator.home / "authority")
    authority.issue(operator.home / "tls", "qkview")
    client = authority.issue(operator.home / "client", "operator")
    record = operator.store.add(b"a core")

    with qkview_collect(operator) as address:
        at = ["--address", address]
        named = operator.run("fetch", record.id, *at, "--tls-dir", client, "-o", "a.gz")
        own = operator.run("fetch", record.id, *at, "-o", "b.gz", "--server-name", "qkview")
        wrong = operator.run("fetch", record.id, *at, "--server-name", "other", "-o", "c.gz")
        operator.settings["QKVIEW_TLS_DIR"] = str(operator.home / "none")
        bare = operator.run("fetch", record.id, *at, "-o", "d.gz")

    assert (named.returncode, own.returncode) == (0, 0)
    assert (wrong.returncode, bare.returncode) == (1, 1)
    assert sorted(path.name for path in operator.home.glob("*.gz")) == ["a.gz", "b.gz"]


def test_certificates_that_are_asked_for_have_to_be_there(operator: Operator) -> None:
    done = operator.run("fetch", "0" * 12, "--tls-dir", operator.home / "none")

    assert done.returncode == os.EX_CONFIG
    assert "none of tls.crt, tls.key, ca.crt is there" in done.stderr


# status


PROGRAMS = ("coremond", "crashagent", "qkview-collect")


@pytest.fixture
def doors(operator: Operator) -> Iterator[dict[str, socket.socket]]:
    """Answer at every socket, as the programs would."""
    paths = {
        "items": operator.run_dir / "items.sock",
        "events": operator.run_dir / "events.sock",
        "apport": operator.apport_socket,
        "kernel": operator.run_dir / "kernel.sock",
    }
    with contextlib.ExitStack() as stack:
        found = {}
        for name, path in paths.items():
            found[name] = stack.enter_context(socket.socket(socket.AF_UNIX))
            found[name].bind(str(path))
            found[name].listen()
        found["qkview"] = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        operator.settings["QKVIEW_ADDRESS"] = f"0.0.0.0:{found['qkview'].getsockname()[1]}"
        yield found


@contextlib.contextmanager
def supervised(operator: Operator, **commands: str) -> Iterator[None]:
    """Run the real supervisord with programs that only sleep, or with other *commands*."""
    pidfile = operator.run_dir / "supervisord.pid"
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    sections = [
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={pidfile}",
        f"[unix_http_server]\nfile={operator.run_dir}/supervisor.sock",
        f"[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory={factory}",
    ]
    for name in PROGRAMS:
        command = commands.get(name.replace("-", "_"), "sleep 1000")
        quiet = "stdout_logfile=NONE\nstderr_logfile=NONE"
        once = "startretries=0\nstartsecs=1"
        sections.append(f"[program:{name}]\ncommand={command}\n{once}\n{quiet}")
    config = operator.home / "supervisord.conf"
    config.write_text("\n\n".join(sections) + "\n")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", config],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until((operator.run_dir / "supervisor.sock").exists, "supervisord")
        yield
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def settled(operator: Operator) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Ask for the status as JSON until no program is starting."""

    def look() -> tuple[subprocess.CompletedProcess[str], dict[str, Any]] | None:
        done = operator.run("status", "--json")
        read = json.loads(done.stdout)
        states = {program["state"] for program in read["seen"]["programs"] or [{"state": ""}]}
        return (done, read) if states <= {"RUNNING", "FATAL", "EXITED"} else None

    result: tuple[subprocess.CompletedProcess[str], dict[str, Any]] = wait_until(look, "states")
    return result


@pytest.mark.usefixtures("doors")
def test_status_is_0_when_all_is_well(operator: Operator, crashes: list[CrashRecord]) -> None:
    (operator.crash_dir / "core.waiting").write_bytes(b"")
    (operator.crash_dir / ".intake.part").write_bytes(b"")

    with supervised(operator):
        done, read = settled(operator)
        plain = operator.run("status")
        shown, _ = operator.on_terminal("status")

    assert (done.returncode, done.stderr) == (0, "")
    assert (read["ok"], read["faults"]) == (True, [])
    assert [program["name"] for program in read["seen"]["programs"]] == [*PROGRAMS]
    assert read["seen"]["records"] == {
        "stored": 1,
        "held": 1,
        "removed": 1,
        "bytes": crashes[0].occupied,
    }
    assert read["seen"]["waiting"]["number"] == 1
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.count("RUNNING") == 3
    assert "Waiting in the crash directory: 1" in plain.stdout
    assert "RUNNING" in shown


def test_status_is_1_with_a_line_for_each_fault(
    operator: Operator, doors: dict[str, socket.socket]
) -> None:
    doors["items"].close()
    doors["qkview"].close()

    with supervised(operator, crashagent="false"):
        done, read = settled(operator)

    assert done.returncode == 1
    assert not read["ok"]
    assert len(done.stderr.splitlines()) == len(read["faults"]) == 3
    fatal, items, qkview = read["faults"]
    assert fatal.startswith("crashagent: FATAL")
    assert "supervisorctl -s unix://" in fatal
    assert items.startswith(f"coremond: nobody answers at {operator.run_dir}/items.sock")
    assert "Connection refused" in items
    assert qkview.startswith("qkview-collect: nobody answers at 0.0.0.0:")


def test_status_sees_the_kernels_socket_without_a_connection(
    operator: Operator, doors: dict[str, socket.socket]
) -> None:
    path = operator.home / "coredump"
    operator.settings["CRASHAGENT_SYSTEMD_SOCKET"] = str(path)
    doors["kernel"].setblocking(False)
    with supervised(operator), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as systemd:
        systemd.bind(str(path))
        systemd.listen()
        there, _ = settled(operator)
        shown = operator.run("status").stdout
        with pytest.raises(BlockingIOError):
            doors["kernel"].accept()
        doors["kernel"].close()
        systemd.close()
        gone, read = settled(operator)
        operator.settings["CRASHAGENT_KERNEL_SOCKET"] = "off"
        operator.settings["CRASHAGENT_SYSTEMD_SOCKET"] = "off"
        off, _ = settled(operator)

    assert (there.returncode, gone.returncode, off.returncode) == (0, 1, 0)
    for socket_path in (operator.run_dir / "kernel.sock", path):
        assert re.search(rf"crashagent +{re.escape(str(socket_path))} +listens\n", shown)
        fault = f"crashagent: nobody answers at {socket_path} (Connection refused)"
        assert any(told.startswith(fault) for told in read["faults"])


@pytest.mark.usefixtures("doors")
def test_what_answers_for_a_program_that_does_not_run_is_not_ours(operator: Operator) -> None:
    not_ready = b"HTTP/1.1 503 Service Unavailable\r\n\r\ncoremond: of another bundle\n"
    listener = socket.create_server(("127.0.0.1", 0))
    operator.settings["COREMON_METRICS_ADDRESS"] = f"127.0.0.1:{listener.getsockname()[1]}"

    with (
        Answering(listener, lambda asked: not_ready if asked else None),
        supervised(operator, qkview_collect="false", crashagent="false"),
    ):
        done, read = settled(operator)
        shown = operator.run("status").stdout

    assert done.returncode == 1
    assert re.search(r"qkview-collect \S+ +answers, but is not ours: .* is FATAL\n", shown)
    assert "/metrics, but is not ours: qkview-collect is FATAL" in shown
    assert "answers, and crashes wait there: crashagent is FATAL" in shown
    assert "of another bundle" not in done.stderr
    assert [told.partition(":")[0] for told in read["faults"]] == [
        "crashagent",
        "qkview-collect",
        "qkview-collect",
    ]
    assert "is not ours; end it" in read["faults"][-1]


@pytest.mark.usefixtures("doors")
def test_status_tells_a_directory_that_is_not_there(operator: Operator) -> None:
    operator.crash_dir.rmdir()

    done = operator.run("status")

    assert done.stderr.count(str(operator.crash_dir)) == 1
    assert "No such file or directory; create it, or set COREMON_CRASH_DIR" in done.stderr


def test_status_is_3_when_supervisord_is_not_there(operator: Operator) -> None:
    done = operator.run("status")

    assert done.returncode == 3
    assert done.stderr.startswith(f"corectl: supervisord at unix://{operator.run_dir}/supervisor")
    assert "No such file or directory; start the bundle" in done.stderr


def test_status_does_not_wait_for_a_supervisord_that_hangs(operator: Operator) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(operator.run_dir / "supervisor.sock"))
        silent.listen()

        done = operator.run("status")

    assert done.returncode == 3
    assert "no answer in time" in done.stderr


# Settings and usage


def test_every_bad_setting_is_told(operator: Operator) -> None:
    operator.settings.update(QKVIEW_ADDRESS="nowhere", COREMON_CRASH_DIR="relative")

    done = operator.run("list")

    assert done.returncode == os.EX_CONFIG
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == [
        "corectl: COREMON_CRASH_DIR",
        "corectl: QKVIEW_ADDRESS",
    ]


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_of_settings_wins_before_and_after_the_command(
    operator: Operator, crashes: list[CrashRecord], place: int
) -> None:
    file = operator.home / "coremond.env"
    file.write_text(f"# places\nCOREMON_CORES_DIR='{operator.home}/other'\nNODE_NAME=n2\n")
    record = Store(operator.home / "other" / "n2").add(pid=77)
    words = ["list", "--json"]
    words[place:place] = ["--env", str(file)]

    assert [read["id"] for read in json.loads(operator.run(*words).stdout)] == [record.id]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["list", "--since", "yesterday"],
        ["list", "-n", "0"],
        ["fetch", "../../etc/passwd"],
        ["fetch", "0" * 12, "--address", "19891"],
    ],
)
def test_a_usage_error_is_2_and_teaches(operator: Operator, words: list[str]) -> None:
    done = operator.run(*words)

    assert done.returncode == 2
    assert done.stderr.startswith("usage: corectl")


def test_a_number_of_crashes_that_is_none_is_told_with_what_is_expected(operator: Operator) -> None:
    done = operator.run("list", "-n", "0")

    assert "'0': expected how many crashes at most: 1, 2, 3 or more" in done.stderr


def test_corectl_says_which_build_it_is(operator: Operator) -> None:
    operator.settings["COREMOND_COMMIT_HASH"] = "359bc2a"
    operator.settings["COREMOND_BUILD_DATE"] = "2025-03-13T19:53:15Z"

    done = operator.run("--version")

    assert done.returncode == 0
    assert done.stdout == f"corectl {VERSION}, commit 359bc2a, built 2025-03-13T19:53:15Z\n"


def test_what_is_not_used_is_not_imported() -> None:
    code = (
        "import sys; from services.corectl.parser import make_parser; make_parser();"
        "import services.corectl.__main__, services.corectl.list_cores, services.corectl.status;"
        "sys.exit(bool({'grpc', 'zmq', 'rich', 'supervisor'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_start_of_two_ids_is_told(operator: Operator) -> None:
    for pid in (1, 2):
        record = replace(crash(pid=pid, state="held"), id=f"beef0000000{pid}")
        operator.store.path(record, RECORD_SUFFIX).write_bytes(record.to_json())

    done = operator.run("info", "beef")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "corectl: beef is the start of 2 ids: give more of it\n"
