"""Cores in the directories of others, and in ours by any pattern, on their way into the store."""

import lzma
import os
import platform
import signal
import struct
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard

from common.packing.reader import PackedReader
from tests import crashes, kernel
from tests.benchmarks.inputs import Input
from tests.benchmarks.storer import Storer
from tests.bundle import Bundle, wait_until

StartBundle = Callable[..., Bundle]

BOOT = "0123456789abcdef0123456789abcdef"
CRASHED_AT = 1_742_738_615


@pytest.fixture
def foreign(home: Path) -> dict[str, str]:
    """Name directories of others, which are not there yet."""
    return {
        "COREMON_SYSTEMD_DIR": str(home / "systemd"),
        "COREMON_APPORT_REPORTS": str(home / "crash"),
        "COREMON_APPORT_CORES_DIR": str(home / "apport"),
        "COREMON_SCAN_INTERVAL": "1s",
    }


@pytest.fixture(scope="module")
def crashed(crash_program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, bytes]:
    """Let the kernel write a core; give the pid of its process, and the core."""
    if what := kernel.missing():
        pytest.skip(f"missing: {what}")
    directory = tmp_path_factory.mktemp("cores")
    with kernel.core_pattern(f"{directory}/%p"):
        pid = crashes.run_to_death(crash_program, "abort", "3")
    [core] = directory.iterdir()
    return pid, core.read_bytes()


def unpacked(bundle: Bundle, record: dict[str, Any]) -> bytes:
    with bundle.core(record).open("rb") as file:
        return PackedReader(file.fileno()).readall() or b""


def put(path: Path, content: bytes) -> Path:
    """Put a file there whole, as a rename does."""
    part = path.with_name(f".#{path.name}")
    part.write_bytes(content)
    return part.rename(path)


def has_looked_through(bundle: Bundle) -> None:
    """Wait until a source was handled that came behind all that is there now."""
    number = len(bundle.records())
    put(bundle.crash_dir / f"core.last{number}.1.host.{2**31 - 1}", b"the last")
    bundle.wait_for(
        "creating coredump", src=f"{bundle.crash_dir}/core.last{number}.1.host.{2**31 - 1}"
    )
    wait_until(lambda: not list(bundle.crash_dir.glob("core.last*")), "the last source to go")


def test_what_systemd_coredump_stores_is_taken_as_it_stored_it(
    start_bundle: StartBundle, foreign: dict[str, str], home: Path, crashed: tuple[int, bytes]
) -> None:
    storer = Storer()
    if what := storer.missing():
        pytest.skip(f"missing: {what}")
    pid, core = crashed
    bundle = start_bundle(**foreign)
    (home / "cores-to-store").mkdir()
    (home / "cores-to-store" / "core").write_bytes(core)
    (home / "stored").mkdir()

    storer.pack(Input(kind="small", path=home / "cores-to-store"), home / "stored")
    (home / "stored").rename(home / "systemd")

    [record] = bundle.wait_for_stored()
    [stored] = (home / "systemd").iterdir()
    assert (record["arrived"], record["process"]) == ("systemd", "python3")
    assert (record["signal"], record["uid"], record["gid"]) == (signal.SIGABRT, 0, 0)
    assert (record["hostname"], record["owner"]) == (platform.node(), 0)
    assert record["exe"] == sys.executable
    assert record["pid"] == pid
    assert record["host_pid"] == int(stored.name.split(".")[4])
    assert 0 < time.time_ns() - record["crashed_at"] < 600 * 10**9
    assert (record["elf"], record["truncated"]) == (True, False)
    assert unpacked(bundle, record) == core
    assert bundle.corectl("verify").returncode == 0
    bundle.ask("stopProcess", "coremond")
    bundle.ask("startProcess", "coremond")
    has_looked_through(bundle)
    assert [r["arrived"] for r in bundle.records() if r["arrived"] == "systemd"] == ["systemd"]
    assert stored.exists()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".zst": zstandard.ZstdCompressor().compress,
    ".lz4": lz4.frame.compress,
    ".xz": lambda core: lzma.compress(core, preset=0),
}


@pytest.mark.parametrize("suffix", PACKED)
def test_however_systemd_coredump_packs_the_core_is_the_same(
    start_bundle: StartBundle,
    foreign: dict[str, str],
    home: Path,
    crashed: tuple[int, bytes],
    suffix: str,
) -> None:
    pid, core = crashed
    (home / "systemd").mkdir()
    bundle = start_bundle(**foreign)
    name = f"core.a\\x2eb\\x2f\\xc3\\xa9.1000.{BOOT}.{pid}.{CRASHED_AT}000000{suffix}"

    (home / "systemd" / f".#{name}1234").write_bytes(core[:100])  # what is being written
    source = put(home / "systemd" / name, PACKED[suffix](core))

    [record] = bundle.wait_for_stored()
    assert (record["arrived"], record["process"], record["uid"]) == ("systemd", "a.b/é", 1000)
    assert (record["crashed_at"], record["signal"]) == (CRASHED_AT * 10**9, signal.SIGABRT)
    assert unpacked(bundle, record) == core
    has_looked_through(bundle)
    assert len([r for r in bundle.records() if r["arrived"] == "systemd"]) == 1
    assert source.exists()


def _units(core: bytes, variant: str) -> Iterator[bytes]:
    """Give what becomes a line each, as Apport's problem_report.py writes it.

    Source: intake.md 1d; Apport's doc/data-format.tex.
    """
    blocks = (core[place : place + 2**17] for place in range(0, len(core), 2**17))
    if variant == "zstd":
        packed = zstandard.ZstdCompressor().compress(core)
        yield from (packed[place : place + 2**17] for place in range(0, len(packed), 2**17))
    elif variant == "zlib":
        packer = zlib.compressobj()
        yield from filter(None, map(packer.compress, blocks))
        yield packer.flush()
    else:
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        yield b"\x1f\x8b\x08\x08\0\0\0\0\x02\xffCoreDump\0"
        yield from filter(None, map(packer.compress, blocks))
        yield packer.flush() + struct.pack("<LL", zlib.crc32(core), len(core))


def write_report(directory: Path, pid: int, core: bytes | None, variant: str = "gzip") -> Path:
    """Write a report as Apport does: with mode 0 until it is whole."""
    path = directory / "_usr_bin_observer.1000.crash"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0)
    with open(descriptor, "wb") as file:
        file.write(
            b"ProblemType: Crash\n"
            b"Architecture: amd64\n"
            b"CrashCounter: 1\n"
            b"Date: %b\n"
            b"DistroRelease: Ubuntu 24.04\n"
            b"ExecutablePath: /usr/bin/observer\n"
            b"Package: observer 1.2-3\n"
            b"ProcCmdline: observer --name ../../etc/passwd\n"
            b"ProcMaps:\n 00400000-00401000 r-xp 00000000 08:01 42 /usr/bin/observer\n"
            b"ProcStatus:\n Name:\tobserver\n Pid:\t%d\n PPid:\t1\n Uid:\t1000\t1000\t1000\t1000\n"
            b" Gid:\t100\t100\t100\t100\n"
            b"Signal: 6\n"
            b"SignalName: SIGABRT\n"
            b"Uname: Linux 6.8.0-45-generic x86_64\n"
            % (time.asctime(time.localtime(CRASHED_AT)).encode(), pid)
        )
        if core is not None:
            file.write(b"CoreDump: base64\n")
            file.writelines(b" " + b64encode(unit) + b"\n" for unit in _units(core, variant))
        file.flush()
        os.fchmod(descriptor, 0o640)
    return path


@pytest.mark.parametrize("variant", ["gzip", "zlib", "zstd"])
def test_the_core_and_the_facts_of_a_report_of_apport_are_taken(
    start_bundle: StartBundle, foreign: dict[str, str], crashed: tuple[int, bytes], variant: str
) -> None:
    pid, core = crashed
    bundle = start_bundle(**foreign)
    sibling = bundle.crash_dir / "_usr_bin_observer.1000.upload"
    sibling.touch()

    report = write_report(bundle.crash_dir, pid, core, variant)

    [record] = bundle.wait_for_stored()
    assert (record["arrived"], record["process"]) == ("apport-report", "observer")
    assert (record["pid"], record["host_pid"]) == (pid, pid)
    assert (record["uid"], record["gid"], record["signal"]) == (1000, 100, signal.SIGABRT)
    assert (record["exe"], record["crashed_at"]) == ("/usr/bin/observer", CRASHED_AT * 10**9)
    assert record["cmdline"] == "observer --name ../../etc/passwd"
    assert record["details"]["Uname"] == "Linux 6.8.0-45-generic x86_64"
    assert record["details"]["Package"] == "observer 1.2-3"
    assert (record["elf"], record["truncated"], record["size"]) == (True, False, len(core))
    assert unpacked(bundle, record) == core
    assert bundle.corectl("verify").returncode == 0
    assert "observer 1.2-3" in bundle.corectl("info").stdout
    assert report.exists()
    assert sibling.exists()


def test_a_report_without_a_core_ends_in_one_record_also_over_a_restart(
    start_bundle: StartBundle, foreign: dict[str, str]
) -> None:
    bundle = start_bundle(**foreign)

    report = write_report(bundle.crash_dir, 7, None)
    line = bundle.wait_for("core not kept")
    bundle.ask("stopProcess", "coremond")
    bundle.ask("startProcess", "coremond")
    has_looked_through(bundle)

    [record] = [r for r in bundle.records() if r["arrived"] == "apport-report"]
    assert (record["state"], record["count"], record["host_pid"]) == ("held", 1, 7)
    assert "there is no CoreDump in it" in record["reason"]
    assert line["src"] == str(report)
    assert not bundle.find("core could not be stored")
    assert report.exists()


def fill(home: Path, pid: int, core: bytes) -> list[Path]:
    """Put a core into each directory of others; give their paths."""
    for name in "systemd", "apport":
        (home / name).mkdir(exist_ok=True)
    boot = f"{BOOT[:8]}-{BOOT[8:12]}-{BOOT[12:16]}-{BOOT[16:20]}-{BOOT[20:]}"
    return [
        put(home / "systemd" / f"core.observer.1000.{BOOT}.{pid}.{CRASHED_AT}000000", core),
        put(home / "apport" / f"core._usr_bin_observer.1000.{boot}.{pid}.123456", core),
        write_report(home / "crash", pid, core),
    ]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_sources_of_others_stay_and_are_taken_once_over_kills_and_restarts(
    start_bundle: StartBundle,
    foreign: dict[str, str],
    home: Path,
    crashed: tuple[int, bytes],
    codec: str,
) -> None:
    pid, core = crashed
    bundle = start_bundle(**foreign, COREMON_CORES_MAX_FILES="0", COREMON_CODEC=codec)
    bundle.ask("stopProcess", "coremond")
    paths = fill(home, pid, core)
    bundle.ask("startProcess", "coremond")
    bundle.wait_for_stored(3)

    for _ in range(2):
        seen = len(bundle.lines)
        bundle.kill("coremond")
        bundle.wait_for("coremond started", since=seen)
        has_looked_through(bundle)

    theirs = [r for r in bundle.records() if r["size"] == len(core)]
    assert sorted(r["arrived"] for r in theirs) == ["apport-report", "file", "systemd"]
    assert all(unpacked(bundle, record) == core for record in theirs)
    assert all(path.exists() for path in paths)


def test_sources_of_others_go_where_that_is_asked_for(
    start_bundle: StartBundle, foreign: dict[str, str], home: Path, crashed: tuple[int, bytes]
) -> None:
    pid, core = crashed
    bundle = start_bundle(**foreign, COREMON_CORES_MAX_FILES="0", COREMON_DELETE_FOREIGN_SRC="true")

    paths = fill(home, pid, core)

    records = bundle.wait_for_stored(3)
    wait_until(lambda: not any(path.exists() for path in paths), "the sources to go")
    assert all(unpacked(bundle, record) == core for record in records)


@pytest.mark.parametrize(
    ("written", "setting"),
    [
        ("%p-%e-%s-%u.%t.core", "%p-%e-%s-%u.%t.core"),
        ("%E.%h.%P", "%E.%h.%P"),
        ("dump-%e.%p", "dump-%e"),  # what core_uses_pid makes of the pattern dump-%e
        ("core.%p", "core.%e.%p.%h.%t"),  # likewise, of the pattern core
    ],
)
def test_the_kernel_may_write_cores_by_another_pattern(
    start_bundle: StartBundle, real_kernel: None, crash_program: Path, written: str, setting: str
) -> None:
    bundle = start_bundle(COREMON_SOURCE_PATTERN=setting, COREMON_DELETE_SRC="false")

    with kernel.core_pattern(f"{bundle.crash_dir}/{written}"):
        pid = crashes.run_to_death(crash_program, "segv")
        [record] = bundle.wait_for_stored()

    [source] = [path for path in bundle.crash_dir.iterdir() if path != bundle.spool]
    assert (record["process"], record["pid"]) == ("crash", pid)
    assert (record["signal"], record["arrived"]) == (signal.SIGSEGV, "file")
    assert unpacked(bundle, record) == source.read_bytes()
    if "%E" in written:
        assert (record["exe"], record["host_pid"]) == (str(crash_program), pid)
    if "%h" in written:
        assert record["hostname"] == platform.node()
