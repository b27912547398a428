import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lz4 import frame

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import BLOCK
from common.packing.registry import CODECS
from common.packing.restoring import restore, unpacked
from common.packing.sparse import PAGE
from tests.unit.common.packing.cases import (
    NOISE,
    TEXT,
    Core,
    codecs,
    cores,
    each_codec,
    each_odd_row,
    packed,
    row_of,
    within_seconds,
    workers,
)
from tests.unit.factories import content_of, memory_file, with_files

CORE = Core(("noise", "hole", "two ranges", "text", "zeros"), "odd", 3 * BLOCK)


def restored(file: bytes, workers: int = 1) -> bytes:
    with memory_file(file) as source, memory_file() as target:
        size = restore(source, target, workers=workers)
        assert os.fstat(target).st_size == size
        return content_of(target)


@with_files
@given(core=cores, codec=codecs, workers=workers)
def test_a_core_is_restored_as_it_was_with_holes_for_its_pages_of_zeros(
    core: Core, codec: CodecName, workers: int
) -> None:
    content = core.content
    pages = (content[place : place + PAGE] for place in range(0, len(content), PAGE))

    with memory_file(packed(content, codec)) as source, memory_file() as target:
        size = restore(source, target, workers=workers)

        assert size == len(content)
        assert content_of(target) == content
        assert os.fstat(target).st_blocks * 512 == PAGE * sum(any(page) for page in pages)


@with_files
@given(core=cores, codec=codecs, workers=workers)
def test_it_unpacks_in_order_in_blocks_of_a_mebibyte(
    core: Core, codec: CodecName, workers: int
) -> None:
    with memory_file(packed(core.content, codec)) as source:
        blocks = list(unpacked(source, workers=workers))

    assert b"".join(blocks) == core.content
    assert all(len(block) <= BLOCK for block in blocks)


@contextmanager
def pipe_read() -> Iterator[tuple[int, list[bytes]]]:
    """Give a pipe's writing end, and what somebody reads from it, once it is closed."""
    reading, writing = os.pipe()
    found: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 77_777):
            found.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writing, found
    finally:
        os.close(writing)
        thread.join(20)
        os.close(reading)


@each_codec
@pytest.mark.parametrize("workers", [1, 3])
def test_into_a_pipe_the_zeros_are_written(codec: CodecName, workers: int) -> None:
    with memory_file(packed(CORE.content, codec)) as source, pipe_read() as (writing, found):
        size = restore(source, writing, workers=workers)

    assert b"".join(found) == CORE.content
    assert size == len(CORE.content)


def test_a_pipe_that_nobody_reads_any_more_ends_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with (
            memory_file(packed(CORE.content, "lz4")) as source,
            pytest.raises(BrokenPipeError),
        ):
            within_seconds(lambda: restore(source, writing, workers=3))
    finally:
        os.close(writing)


def _lz4(data: bytes) -> bytes:
    packed: bytes = frame.compress(data, content_checksum=True)
    return packed


THEIRS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": _lz4,
}


@each_codec
@pytest.mark.parametrize("workers", [1, 3])
def test_what_others_packed_is_restored_too(codec: CodecName, workers: int) -> None:
    assert restored(THEIRS[codec](CORE.content), workers) == CORE.content


@each_codec
@each_odd_row
@pytest.mark.parametrize("workers", [1, 3])
def test_units_as_we_do_not_make_them_are_restored_in_their_places(
    codec: CodecName, blocks: list[bytes], workers: int
) -> None:
    file = row_of(blocks, codec)

    with memory_file(file) as source:
        assert b"".join(unpacked(source, workers=workers)) == b"".join(blocks)
    assert restored(file, workers) == b"".join(blocks)


@each_codec
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_comes_before_damage_is_given_before_that_is_said(
    codec: CodecName, workers: int
) -> None:
    content = NOISE + TEXT + bytes(2 * BLOCK) + NOISE + TEXT + NOISE
    file = bytearray(packed(content, codec))
    file[-BLOCK // 2] ^= 1  # in the last unit
    found: list[bytes] = []

    with memory_file(bytes(file)) as source, pytest.raises(CorruptError, match=r"byte \d+"):
        found.extend(unpacked(source, workers=workers))

    assert b"".join(found) == content[: 6 * BLOCK]


@each_codec
@pytest.mark.parametrize("workers", [1, 4])
def test_a_damaged_core_is_restored_up_to_its_damage(codec: CodecName, workers: int) -> None:
    content = NOISE + TEXT + bytes(BLOCK) + NOISE + TEXT
    file = bytearray(packed(content, codec))
    with memory_file(bytes(file)) as source, memory_file() as target:
        os.pwrite(source, b"\xff\xff", len(packed(content[: 3 * BLOCK], codec)) + BLOCK // 2)

        with pytest.raises(CorruptError, match=r"byte \d+"):
            restore(source, target, workers=workers)

        found = content_of(target)
    assert found == content[: 3 * BLOCK], "content behind the damage, or zeros in its place"


@each_codec
@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_of_several_damaged_units_the_first_is_where_the_restored_core_ends(
    codec: CodecName, first: int, workers: int
) -> None:
    content = NOISE + TEXT + bytes(BLOCK) + NOISE + TEXT + NOISE
    file = bytearray(packed(content, codec))
    with memory_file(bytes(file)) as source:
        units = list(CODECS[codec].units(source))
    for number in (first, 4, 5):
        file[units[number].place + units[number].packed // 2] ^= 4

    with memory_file(bytes(file)) as source, memory_file() as target:
        with pytest.raises(CorruptError, match=f"unit at byte {units[first].place} of it"):
            restore(source, target, workers=workers)

        assert content_of(target) == content[: first * BLOCK]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_empty_file_is_no_packed_core(workers: int) -> None:
    with memory_file() as source, memory_file() as target:
        with pytest.raises(CorruptError, match="empty"):
            restore(source, target, workers=workers)
        with pytest.raises(CorruptError, match="empty"):
            list(unpacked(source, workers=workers))


def test_a_file_that_is_not_packed_is_not_restored() -> None:
    said = "its first bytes, at byte 0, are of no packed core"
    with memory_file(b"\x7fELF and so on") as source, memory_file() as target:
        with pytest.raises(CorruptError, match=said):
            list(unpacked(source))
        with pytest.raises(CorruptError, match=said):
            restore(source, target)

        assert content_of(target) == b""


def test_who_stops_reading_leaves_no_thread_behind() -> None:
    with memory_file(packed(CORE.content, "gzip")) as source:
        blocks = unpacked(source, workers=3)
        next(blocks)

        blocks.close()  # type: ignore[attr-defined]

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unpack")]


@pytest.mark.parametrize("workers", [1, 3])
def test_few_units_are_unpacked_ahead_of_who_reads_slowly(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, read = os.pread, []

    def noting(descriptor: int, size: int, place: int) -> bytes:
        if size > BLOCK // 2:
            read.append(place)
        return pread(descriptor, size, place)

    with memory_file(packed(NOISE * 20, "gzip")) as source:
        monkeypatch.setattr(os, "pread", noting)
        blocks = unpacked(source, workers=workers)
        for _ in range(5):
            next(blocks)
        time.sleep(0.2)  # so that what should not go on could

        assert len(read) <= 5 + 2 * workers + 1
        blocks.close()  # type: ignore[attr-defined]


def test_a_full_disk_is_an_error_of_the_disk() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with memory_file(packed(NOISE, "gzip")) as source, pytest.raises(OSError, match="No space"):
            restore(source, full, workers=2)
    finally:
        os.close(full)


def test_holes_are_holes_on_a_real_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "core"

    with memory_file(packed(CORE.content, "zstd")) as source:
        target = os.open(path, os.O_RDWR | os.O_CREAT)
        restore(source, target, workers=2)
        os.close(target)

    assert path.read_bytes() == CORE.content
    assert path.stat().st_blocks * 512 <= 2 * BLOCK + 70_001 + 20 * PAGE


@with_files
@given(codec=codecs, blocks=st.integers(0, 70), rest=st.sampled_from([0, 1, PAGE]), workers=workers)
def test_a_core_of_zeros_is_restored_as_a_hole(
    codec: CodecName, blocks: int, rest: int, workers: int
) -> None:
    file = row_of([bytes(BLOCK)] * blocks + [bytes(rest)] * (rest > 0 or not blocks), codec)

    with memory_file(file) as source, memory_file() as target:
        assert restore(source, target, workers=workers) == blocks * BLOCK + rest

        status = os.fstat(target)
        assert (status.st_size, status.st_blocks) == (blocks * BLOCK + rest, 0)
