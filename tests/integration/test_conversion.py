"""Cores on their way from a pipe or a file into the store, however they are packed."""

import lzma
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.converting import Converting, write_converting
from common.packing.codec import BLOCK
from common.packing.reader import PackedReader
from tests import crashes
from tests.bundle import Bundle, wait_until

StartBundle = Callable[..., Bundle]

SOURCE = "core.{process}.7.f5-observer-0.1742738615173108860"


def core_of(mib: int) -> bytes:
    """Make content of which every other MiB packs to nothing."""
    return b"".join(random.randbytes(BLOCK) + bytes(BLOCK) for _ in range(mib // 2))


def put(bundle: Bundle, content: bytes, process: str = "observer") -> Path:
    """Put a source into the crash directory, as a kernel's is there: whole, all at once."""
    source = bundle.crash_dir / SOURCE.format(process=process)
    part = bundle.home / "core"
    part.write_bytes(content)
    shutil.move(part, source)
    return source


def unpacked(bundle: Bundle, record: dict[str, Any]) -> bytes:
    with bundle.core(record).open("rb") as file:
        return PackedReader(file.fileno()).readall() or b""


def slow_to_unpack() -> bytes:
    """Make a small file that takes seconds to convert: xz unpacks some 200 MB/s."""
    return lzma.compress(bytes(1500 * 2**20), preset=0)


@pytest.mark.parametrize("spool", ["gzip", "zstd", "lz4", "raw"])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_a_core_that_comes_in_one_way_is_stored_in_another(
    start_bundle: StartBundle, codec: str, spool: str
) -> None:
    bundle = start_bundle(COREMON_CODEC=codec, CRASHAGENT_SPOOL=spool)
    content = core_of(6) + b"its tail"

    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        sender.write(content)
    [record] = bundle.wait_for_stored()

    assert (record["codec"], record["size"], record["truncated"]) == (codec, len(content), False)
    assert record["data"] == 3 * BLOCK + len(b"its tail")
    assert unpacked(bundle, record) == content
    wait_until(lambda: not bundle.leftovers(), "the source to go")
    assert bundle.corectl("verify").returncode == 0
    assert bundle.corectl("dump", "-o", str(bundle.home / "dumped")).returncode == 0
    assert (bundle.home / "dumped").read_bytes() == content


def test_a_core_that_comes_in_is_packed_once_and_never_lies_there_raw(
    start_bundle: StartBundle,
) -> None:
    bundle = start_bundle()
    bundle.ask("stopProcess", "coremond")
    content = core_of(64)
    sizes = set()

    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        [part] = wait_until(lambda: list(bundle.spool.glob(".intake.*.part")), "the intake")
        for start in range(0, len(content), BLOCK):
            sender.write(content[start : start + BLOCK])
            sizes.add(part.stat().st_size)
    [source] = wait_until(lambda: list(bundle.crash_dir.glob("core.*")), "the core")
    spooled = source.read_bytes()
    inode = source.stat().st_ino
    bundle.ask("startProcess", "coremond")
    [record] = bundle.wait_for_stored()

    assert max(sizes) < 0.6 * len(content)
    assert spooled[:2] == b"\x1f\x8b"
    assert bundle.core(record).read_bytes() == spooled
    assert bundle.core(record).stat().st_ino == inode
    wait_until(lambda: not bundle.leftovers(), "the source to go")
    assert bundle.core(record).stat().st_nlink == 1


def test_a_packed_core_is_copied_to_another_disk(
    small_disk: Path, start_bundle: StartBundle
) -> None:
    bundle = start_bundle()

    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        sender.write(core_of(4))
    [record] = bundle.wait_for_stored()

    assert bundle.core(record).stat().st_dev == small_disk.stat().st_dev
    wait_until(lambda: not bundle.leftovers(), "the source to go")
    assert bundle.corectl("verify").returncode == 0


def test_a_source_that_is_to_stay_shares_nothing_with_its_core(start_bundle: StartBundle) -> None:
    bundle = start_bundle(COREMON_DELETE_SRC="false", COREMON_SCAN_INTERVAL="1s")

    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        sender.write(b"the core")
    [record] = bundle.wait_for_stored()
    [source] = bundle.crash_dir.glob("core.*")

    assert source.read_bytes() == bundle.core(record).read_bytes()
    assert source.stat().st_nlink == 1
    seen = len(bundle.lines)
    put(bundle, b"another core", "another")
    bundle.wait_for_stored(2)
    assert not bundle.find("core file refused", since=seen)


@pytest.mark.parametrize(
    "words",
    [["gzip", "-c"], ["zstd", "-c", "-q"], ["lz4", "-c", "-q"], ["xz", "-c", "-0"]],
    ids=lambda words: words[0],
)
def test_a_core_that_somebody_else_packed_is_told_by_its_first_bytes(
    bundle: Bundle, crash_program: Path, real_kernel: None, words: list[str]
) -> None:
    if not shutil.which(words[0]):
        pytest.skip(f"missing: the command {words[0]}")
    with crashes.by_file(bundle):
        bundle.ask("stopProcess", "coremond")
        pid = crashes.run_to_death(crash_program, "segv")
        [source] = bundle.crash_dir.glob("core.*")
        raw = source.read_bytes()
    packed = subprocess.run([*words, source], check=True, capture_output=True).stdout
    source.write_bytes(packed)
    bundle.ask("startProcess", "coremond")

    [record] = bundle.wait_for_stored()

    assert (record["pid"], record["elf"], record["truncated"]) == (pid, True, False)
    assert record["size"] == len(raw)
    assert unpacked(bundle, record) == raw


def test_a_stop_ends_a_conversion_at_once_and_the_next_start_does_it_again(
    start_bundle: StartBundle,
) -> None:
    bundle = start_bundle()
    source = put(bundle, slow_to_unpack())
    wait_until(lambda: list(bundle.store_dir.glob(".core.*.tmp")), "the conversion")

    bundle.ask("stopProcess", "coremond")

    assert bundle.find("coremond started") is not None
    assert not list(bundle.store_dir.glob(".core.*"))
    assert not bundle.stored()
    assert source.exists()
    status = bundle.ask("getProcessInfo", "coremond")
    assert status["exitstatus"] == 0
    bundle.ask("startProcess", "coremond")
    [record] = bundle.wait_for_stored(patience=60)
    assert (record["size"], record["truncated"]) == (1500 * 2**20, False)


def test_a_small_core_passes_by_a_large_one_and_status_says_how_far_that_is(
    home: Path, start_bundle: StartBundle
) -> None:
    (home / "minlevel.yaml").write_text("default: debug\n")
    bundle = start_bundle()
    put(bundle, slow_to_unpack(), "large")
    wait_until(lambda: list(bundle.store_dir.glob(".core.*.tmp")), "the conversion")

    put(bundle, b"a core", "small")
    [first] = bundle.wait_for_stored()
    line = bundle.wait_for("converting")
    status = bundle.corectl("status")

    assert first["process"] == "small"
    assert line["src"].endswith(SOURCE.format(process="large"))
    if len(bundle.stored()) < 2:
        assert f"Converting: {SOURCE.format(process='large')}: " in status.stdout
    bundle.wait_for_stored(2, patience=60)
    wait_until(lambda: "Converting" not in bundle.corectl("status").stdout, "it to be told no more")


def test_status_shows_how_much_of_a_conversion_is_done(bundle: Bundle) -> None:
    source = f"{bundle.crash_dir}/core.x\x1b[2J.7.host.1742738615"
    now = bundle.crash_dir.stat().st_mtime
    told = Converting(
        source=source, core="core.gz", done=2**30, size=2**31, percent=50, since=now, at=2**33
    )

    write_converting(bundle.run_dir, [told])

    status = bundle.corectl("status")
    assert "50 % of 2.0 GiB" in status.stdout
    assert "\x1b" not in status.stdout
    write_converting(
        bundle.run_dir, [Converting(source="/x", core="", done=1, size=2, since=0, at=1)]
    )
    assert "Converting" not in bundle.corectl("status").stdout


def test_a_packed_core_that_is_damaged_in_the_spool_is_kept_as_far_as_it_is_whole(
    bundle: Bundle,
) -> None:
    bundle.ask("stopProcess", "coremond")
    content = core_of(8)
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(b"7 11 0 1")
        sender.write(content)
    [source] = wait_until(lambda: list(bundle.crash_dir.glob("core.*")), "the core")
    with source.open("r+b") as file:
        file.seek(int(2.5 * BLOCK))
        file.write(b"damage")
    bundle.ask("startProcess", "coremond")

    [record] = bundle.wait_for_stored()

    assert record["truncated"]
    assert "byte" in record["truncated_why"]
    kept = unpacked(bundle, record)
    assert len(kept) >= 2 * BLOCK
    assert content.startswith(kept)
    bundle.wait_for("packed core damaged")
    assert bundle.corectl("verify").returncode == 0
