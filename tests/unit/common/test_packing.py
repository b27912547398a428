import gzip
import hashlib
import os
import struct
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import packing
from common.errors import CorruptError, StoppedError
from common.files import write_all
from common.packing import BLOCK, PAGE
from tests.unit.factories import content_of, memory_file, with_files

NOISE = os.urandom(BLOCK)
PIECES: dict[str, bytes | None] = {
    "zeros": bytes(BLOCK),
    "hole": None,
    "data": NOISE,
    "text": b"a core " * (BLOCK // 7) + bytes(BLOCK % 7),
    "one page": bytes(BLOCK // 2) + NOISE[:PAGE] + bytes(BLOCK // 2 - PAGE),
}
SIZES = [0, 1, 2, PAGE - 1, PAGE, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 5]

pieces = st.lists(st.sampled_from([*PIECES]), max_size=4)
tails = st.sampled_from([b"", b"x", bytes(1), bytes(PAGE), NOISE[:PAGE], NOISE[: BLOCK - 1]])


def write_pieces(descriptor: int, names: list[str], tail: bytes = b"") -> bytes:
    """Write a core of the pieces, holes as holes; give its content."""
    content = b""
    for name in names:
        piece = PIECES[name]
        if piece is not None:
            os.pwrite(descriptor, piece, len(content))
        content += piece or bytes(BLOCK)
    os.pwrite(descriptor, tail, len(content))
    content += tail
    os.ftruncate(descriptor, len(content))
    return content


def packed_file(content: bytes) -> bytes:
    with memory_file(content) as source, memory_file() as target:
        packing.pack(source, target)
        return content_of(target)


def restored(packed: bytes) -> bytes:
    with memory_file(packed) as source, memory_file() as target:
        size = packing.restore(source, target)
        content = content_of(target)
    assert size == len(content)
    return content


def members(packed: bytes) -> list[bytes]:
    """Walk from header to header by the size in each one's extra field."""
    found, place = [], 0
    while place < len(packed):
        magic, flags, length, name, inner, size = struct.unpack_from("<3sB6xH2sHI", packed, place)
        assert (magic, flags, length, name, inner) == (b"\x1f\x8b\x08", 4, 8, b"IG", 4)
        found.append(packed[place : place + size])
        place += size
    assert place == len(packed)
    return found


@with_files
@given(names=pieces, tail=tails, workers=st.integers(1, 3))
def test_what_is_packed_is_what_is_restored(names: list[str], tail: bytes, workers: int) -> None:
    with memory_file() as source, memory_file() as target:
        content = write_pieces(source, names, tail)

        packed = packing.pack(source, target, workers=workers)

        written = content_of(target)
    assert gzip.decompress(written) == content
    assert restored(written) == content
    assert (packed.size, packed.packed) == (len(content), len(written))
    assert packed.crc32 == zlib.crc32(written)
    assert packed.sha256 == hashlib.sha256(written).hexdigest()
    assert not packed.cut


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("content", [NOISE * 3, bytes(3 * BLOCK)], ids=["noise", "zeros"])
def test_any_size_is_packed_whole(size: int, content: bytes) -> None:
    packed = packed_file(content[:size])

    assert gzip.decompress(packed) == content[:size]
    assert restored(packed) == content[:size]


@pytest.mark.parametrize("size", SIZES)
def test_each_member_tells_its_size_and_stands_alone(size: int) -> None:
    content = (NOISE + bytes(BLOCK) + NOISE)[:size]

    found = members(packed_file(content))

    assert b"".join(gzip.decompress(member) for member in found) == content
    assert all(len(gzip.decompress(member)) <= BLOCK for member in found)
    assert len(found) == max(1, -(-size // BLOCK))


def test_only_blocks_that_are_not_zeros_count_as_data() -> None:
    with memory_file() as source, memory_file() as target:
        write_pieces(source, ["data", "hole", "zeros"], b"x")

        packed = packing.pack(source, target)

    assert packed.data == BLOCK + 1


def test_a_hole_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read, pread = [], os.pread

    def noting(descriptor: int, size: int, place: int) -> bytes:
        read.append(place)
        return pread(descriptor, size, place)

    with memory_file() as source, memory_file() as target:
        write_pieces(source, ["hole", "data", "hole"])
        monkeypatch.setattr(os, "pread", noting)
        packing.pack(source, target)

    assert read == [BLOCK]


def test_the_packed_file_is_written_behind_what_is_there() -> None:
    with memory_file(b"x") as source, memory_file() as target:
        write_all(target, b"header")

        packing.pack(source, target)

        assert content_of(target)[:6] == b"header"
        assert gzip.decompress(content_of(target)[6:]) == b"x"


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, 0), (BLOCK, 1), (2 * BLOCK, 2), (3 * BLOCK - 1, 2)]
)
def test_a_core_with_too_much_data_is_cut_before_it_is_too_much(limit: int, kept: int) -> None:
    with memory_file() as source, memory_file() as target:
        content = write_pieces(source, ["data", "text", "data"])

        packed = packing.pack(source, target, max_data=limit)

        written = content_of(target)
    assert packed.cut
    assert packed.size == kept * BLOCK
    assert gzip.decompress(written) == content[: kept * BLOCK]


def test_holes_do_not_count_as_data() -> None:
    with memory_file() as source, memory_file() as target:
        content = write_pieces(source, ["hole", "data", "hole", "data", "hole"])

        packed = packing.pack(source, target, max_data=2 * BLOCK)

    assert not packed.cut
    assert packed.size == len(content)


def test_a_core_of_scattered_pages_is_cut_by_its_data_and_not_by_its_blocks() -> None:
    with memory_file() as source, memory_file() as target:
        for block in range(8):
            os.pwrite(source, NOISE[:PAGE], block * BLOCK)
        os.ftruncate(source, 8 * BLOCK)

        packed = packing.pack(source, target, max_data=BLOCK)

    assert not packed.cut
    assert packed.size == 8 * BLOCK


def test_a_source_that_shrinks_is_packed_as_long_as_it_still_is() -> None:
    with memory_file(NOISE * 3) as source, memory_file() as target:

        def shrink() -> None:
            os.ftruncate(source, 100)

        packed = packing.pack(source, target, check=shrink)

        written = content_of(target)
    assert gzip.decompress(written) == NOISE[:100]
    assert packed.size == 100


def test_a_source_that_grows_is_packed_as_long_as_it_was() -> None:
    with memory_file(NOISE) as source, memory_file() as target:

        def grow() -> None:
            os.pwrite(source, b"more", BLOCK)

        packed = packing.pack(source, target, check=grow)

    assert packed.size == BLOCK


@pytest.mark.parametrize("blocks_before_the_stop", [0, 1, 4])
def test_a_stop_ends_the_packing_and_its_threads(blocks_before_the_stop: int) -> None:
    answers = iter([False] * blocks_before_the_stop + [True])

    def check() -> None:
        if next(answers):
            raise StoppedError

    with memory_file(NOISE * 6) as source, memory_file() as target, pytest.raises(StoppedError):
        packing.pack(source, target, workers=2, check=check)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pack")]


def test_a_disk_that_is_full_ends_the_threads_too() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with memory_file(NOISE * 3) as source, pytest.raises(OSError, match="No space"):
            packing.pack(source, full, workers=2)
    finally:
        os.close(full)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pack")]


def damaged(packed: bytes) -> list[bytes]:
    """Give *packed* with each of its bits flipped, and cut at each of its bytes."""
    flipped = [
        packed[:place] + bytes([packed[place] ^ 1 << bit]) + packed[place + 1 :]
        for place in range(len(packed))
        for bit in range(8)
    ]
    return flipped + [packed[:length] for length in range(len(packed))]


SMALL = packing.make_member(b"a core " * 20) + packing.make_member(NOISE[:30])


def test_every_damage_changes_the_checksum() -> None:
    with memory_file(SMALL) as file:
        whole = packing.checksum(file)

    for content in damaged(SMALL):
        with memory_file(content) as file:
            assert packing.checksum(file) != whole


def test_every_damage_of_the_content_is_found_by_unpacking() -> None:
    content = gzip.decompress(SMALL)

    for damage in damaged(SMALL):
        with memory_file(damage) as file:
            try:
                found = b"".join(packing.unpacked(file))
            except CorruptError:
                continue
        assert content.startswith(found), "content that never was"


@with_files
@given(st.binary(max_size=100))
def test_garbage_unpacks_to_nothing_or_is_corrupt(garbage: bytes) -> None:
    with memory_file(garbage) as file:
        try:
            found = b"".join(packing.unpacked(file))
        except CorruptError:
            return

    assert found == b""


@pytest.mark.parametrize("size", [0, 1, PAGE, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_the_checksum_is_that_of_the_bytes(size: int) -> None:
    content = (NOISE * 3)[:size]

    with memory_file(content) as file:
        assert packing.checksum(file) == (zlib.crc32(content), size)


def test_any_gzip_file_can_be_unpacked() -> None:
    content = NOISE + b"tail"

    with memory_file(gzip.compress(content)) as file:
        blocks = list(packing.unpacked(file))

    assert b"".join(blocks) == content
    assert all(len(block) <= BLOCK for block in blocks)


def test_reading_back_leaves_the_place_in_the_file() -> None:
    with memory_file(SMALL) as file:
        os.lseek(file, 3, os.SEEK_SET)

        assert packing.checksum(file)[1] == len(SMALL)
        assert os.lseek(file, 0, os.SEEK_CUR) == 3


def test_what_is_restored_has_holes_where_it_was_zeros(tmp_path: Path) -> None:
    packed = packed_file(NOISE[:PAGE] + bytes(2 * BLOCK))
    path = tmp_path / "core"

    with memory_file(packed) as source:
        target = os.open(path, os.O_RDWR | os.O_CREAT)
        packing.restore(source, target)
        os.close(target)

    assert path.stat().st_size == PAGE + 2 * BLOCK
    assert path.stat().st_blocks * 512 <= 4 * PAGE


def test_into_a_pipe_the_zeros_are_written() -> None:
    reading, writing = os.pipe()
    try:
        with memory_file(packed_file(b"x" + bytes(PAGE))) as source:
            packing.restore(source, writing)
        assert os.read(reading, 3 * PAGE) == b"x" + bytes(PAGE)
    finally:
        os.close(reading)
        os.close(writing)


chunks = st.lists(
    st.sampled_from([b"", b"x", bytes(1), bytes(PAGE), bytes(3 * PAGE), NOISE[:PAGE], NOISE[:77]]),
    max_size=8,
)


@with_files
@given(st.lists(chunks.map(b"".join), max_size=6))
def test_blocks_written_sparsely_read_back_as_they_were(blocks: list[bytes]) -> None:
    with memory_file() as target:
        written = sum(packing.write_sparsely(target, block) for block in blocks)
        os.ftruncate(target, sum(map(len, blocks)))

        assert content_of(target) == b"".join(blocks)
    assert written <= sum(map(len, blocks))


def test_only_pages_with_something_in_them_are_written() -> None:
    block = bytes(PAGE) + NOISE[:PAGE] + bytes(2 * PAGE) + b"x"

    with memory_file() as target:
        assert packing.write_sparsely(target, block) == PAGE + 1
