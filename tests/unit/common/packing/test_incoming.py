import binascii
import gzip
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st
from isal import isal_zlib
from lz4 import frame

from common.errors import CorruptError
from common.packing.codec import BLOCK
from common.packing.incoming import UNPACKERS, Format, content, format_of
from common.packing.streams import STEP
from common.packing.supply import Supply
from tests.unit.factories import memory_file, with_files

RANDOM = random.Random(7)
MIX = b"".join(
    [bytes(BLOCK), RANDOM.randbytes(BLOCK + 77), b"a core " * 90_000, bytes(2 * BLOCK), b"end"]
)
CONTENTS = {"empty": b"", "one byte": b"x", "a block": RANDOM.randbytes(BLOCK), "a mix": MIX}
SMALL = b"a core " * 20 + RANDOM.randbytes(700) + bytes(300)
SKIPPABLE = bytes.fromhex("5a2a4d18 03000000 616263")
GARBAGE = b"\xff" * 100

TOOLS: dict[str, Format] = {
    "gzip -1": "gzip",
    "gzip -9": "gzip",
    "pigz -p 2 -b 128": "gzip",
    "pigz -p 2 -i": "gzip",
    "zstd -1": "zstd",
    "zstd -19": "zstd",
    "zstd --no-check": "zstd",
    "zstd -T2 -B512KB": "zstd",
    "zstd --long=27": "zstd",
    "lz4 -B4": "lz4",
    "lz4 -B7 -BX": "lz4",
    "lz4 -B4 -BD": "lz4",
    "lz4 -B5 -BD -BX": "lz4",
    "lz4 -9 -BD --no-frame-crc": "lz4",
    "xz -0": "xz",
    "xz -0 --block-size=256KiB": "xz",
    "xz -0 --check=none": "xz",
    "xz -0 --check=sha256 -T2": "xz",
}


def _lz4(data: bytes, **options: bool) -> bytes:
    packed: bytes = frame.compress(data, **options)
    return packed


CHECKED: dict[Format, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: _lz4(data, content_checksum=True),
    "xz": lambda data: lzma.compress(data, preset=0),
}
UNCHECKED: dict[Format, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor(write_content_size=False).compress,
    "lz4": lambda data: _lz4(data, block_linked=False),
    "xz": lambda data: lzma.compress(data, preset=0, check=lzma.CHECK_NONE),
}
FORMATS = [*CHECKED]

formats = st.sampled_from(FORMATS)


def unpacked(packed: bytes) -> bytes:
    with memory_file(packed) as file:
        blocks = list(content(file))
    assert all(0 < len(block) <= BLOCK for block in blocks)
    return b"".join(blocks)


def unpacked_till_damage(packed: bytes) -> tuple[bytes, str]:
    """Give the content and what was said of the damage, in which every number is right."""
    found, said = bytearray(), ""
    with memory_file(packed) as file:
        name = format_of(file)
        try:
            for block in content(file):
                assert 0 < len(block) <= BLOCK
                found += block
        except CorruptError as error:
            said = str(error)
    if said:
        numbers = re.search(r" byte (\d+)\b.*, after (\d+) bytes of content$", said)
        assert numbers, said
        assert int(numbers[1]) <= len(packed)
        assert int(numbers[2]) == len(found)
        assert said.startswith(f"damaged {name}: ")
    return bytes(found), said


def packed_by(tool: str, data: bytes) -> bytes:
    words = tool.split()
    if not shutil.which(words[0]):
        pytest.skip(f"missing: {words[0]} (Debian package {words[0].replace('xz', 'xz-utils')})")
    return subprocess.run([*words, "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_packed_is_read(tool: str, data: bytes) -> None:
    packed = packed_by(tool, data)

    with memory_file(packed) as file:
        assert format_of(file) == TOOLS[tool]
    assert unpacked(packed) == data


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", FORMATS)
def test_what_a_module_packed_is_read(name: Format, data: bytes) -> None:
    packed = CHECKED[name](data)

    assert unpacked(packed) == data


@with_files
@given(name=formats, parts=st.lists(st.sampled_from([b"", b"x", SMALL, bytes(STEP)]), min_size=2))
def test_what_was_packed_in_parts_is_read_as_one(name: Format, parts: list[bytes]) -> None:
    packed = b"".join(map(CHECKED[name], parts))

    assert unpacked(packed) == b"".join(parts)


@with_files
@given(
    name=formats,
    parts=st.lists(st.sampled_from([b"", SMALL, bytes(STEP + 1)]), min_size=1, max_size=3),
    sizes=st.lists(st.sampled_from([0, 1, 2, 3, 7, 100, 511, 513]), min_size=1),
)
def test_it_may_come_in_pieces_of_any_size(
    name: Format, parts: list[bytes], sizes: list[int]
) -> None:
    packed = b"".join(map(CHECKED[name], parts))

    def pieces() -> Iterator[tuple[int, bytes]]:
        place = 0
        for size in cycle([*sizes, 1]):
            if place >= len(packed):
                return
            yield place, packed[place : place + size]
            place += size

    assert b"".join(UNPACKERS[name](Supply(pieces()))) == b"".join(parts)


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_skippable_frames_are_passed_over_wherever_they_are(name: Format) -> None:
    packed = CHECKED[name](SMALL)

    with memory_file(SKIPPABLE + SKIPPABLE + packed) as file:
        assert format_of(file) == name
    assert unpacked(SKIPPABLE + packed + SKIPPABLE + packed + SKIPPABLE) == 2 * SMALL


def test_a_file_of_nothing_but_skippable_frames_has_no_content() -> None:
    assert unpacked(100 * SKIPPABLE) == b""


@pytest.mark.parametrize("size", [4, 8, 3 * BLOCK])
@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_zeros_behind_it_are_padding(name: Format, size: int) -> None:
    packed = CHECKED[name](SMALL)

    assert unpacked(packed + bytes(size)) == SMALL


def test_zeros_between_the_streams_of_xz_are_padding() -> None:
    packed = CHECKED["xz"](SMALL)

    assert unpacked(packed + bytes(8) + packed) == 2 * SMALL
    assert "not a multiple of four" in unpacked_till_damage(packed + bytes(7) + packed)[1]


@pytest.mark.parametrize("garbage", [b"x", GARBAGE, b"\0garbage", b"\x7fELF"])
@pytest.mark.parametrize("name", FORMATS)
def test_garbage_behind_it_is_named_after_the_content(name: Format, garbage: bytes) -> None:
    found, said = unpacked_till_damage(CHECKED[name](SMALL) + garbage)

    assert found == SMALL
    assert said


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_frame_without_its_magic_is_garbage(name: Format) -> None:
    packed = CHECKED[name](SMALL)
    size = 2 if name == "gzip" else 4

    found, said = unpacked_till_damage(packed + GARBAGE[:size] + packed[size:])

    assert found == SMALL
    assert said


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_what_is_not_packed_is_raw(size: int) -> None:
    data = (b"\x7fELF" + MIX)[:size]

    with memory_file(data) as file:
        assert format_of(file) == "raw"
    assert unpacked(data) == data


@pytest.mark.parametrize("name", [*FORMATS, "raw"])
def test_the_place_in_the_file_is_neither_used_nor_moved(name: Format) -> None:
    packed = CHECKED[name](SMALL) if name != "raw" else SMALL

    with memory_file(packed) as file:
        os.lseek(file, 5, os.SEEK_SET)

        assert b"".join(content(file)) == SMALL
        assert format_of(file) == name
        assert os.lseek(file, 0, os.SEEK_CUR) == 5


@with_files
@given(name=formats, data=st.data())
def test_a_file_cut_anywhere_gives_what_is_there_and_says_so(
    name: Format, data: st.DataObject
) -> None:
    packed = CHECKED[name](SMALL)
    cut = data.draw(st.integers(6, len(packed) - 1))

    found, said = unpacked_till_damage(packed[:cut])

    assert SMALL.startswith(found)
    assert "ends in the middle" in said


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4"])
def test_of_a_cut_file_all_that_can_be_decoded_is_given(name: Format) -> None:
    data = RANDOM.randbytes(2 * BLOCK)
    packed = CHECKED[name](data)[:BLOCK]

    found, _ = unpacked_till_damage(packed)

    assert len(found) > BLOCK - 1000
    assert data.startswith(found)


def test_a_whole_block_of_4_mib_is_given_before_the_end_that_is_missing() -> None:
    packed: bytes = frame.compress(MIX[: 4 * BLOCK], block_size=frame.BLOCKSIZE_MAX4MB)

    assert unpacked_till_damage(packed[:-1])[0] == MIX[: 4 * BLOCK]


@with_files
@given(name=formats, data=st.data())
def test_a_flipped_bit_is_found_where_there_is_a_checksum(
    name: Format, data: st.DataObject
) -> None:
    packed = bytearray(CHECKED[name](SMALL) + CHECKED[name](b"tail"))
    packed[data.draw(st.integers(6, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    found, said = unpacked_till_damage(bytes(packed))

    assert said or found == SMALL + b"tail"


@pytest.mark.parametrize(("name", "place"), [("gzip", -5), ("gzip", -1), ("zstd", -1), ("lz4", -1)])
def test_content_with_a_wrong_checksum_is_given_before_that_is_said(
    name: Format, place: int
) -> None:
    packed = bytearray(CHECKED[name](SMALL))
    packed[place] ^= 1

    found, said = unpacked_till_damage(bytes(packed))

    assert found == SMALL
    assert said


@with_files
@given(name=st.sampled_from([*UNCHECKED]), data=st.data())
def test_a_flipped_bit_that_nothing_can_notice_does_no_harm(
    name: Format, data: st.DataObject
) -> None:
    packed = bytearray(UNCHECKED[name](SMALL))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(4, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    found, _ = unpacked_till_damage(bytes(packed))

    assert len(found) <= 8 * BLOCK


@with_files
@given(name=formats, size=st.integers(1, 40), garbage=st.binary(max_size=100))
def test_garbage_behind_the_first_bytes_is_damage(name: Format, size: int, garbage: bytes) -> None:
    start = CHECKED[name](SMALL)[:size]
    with memory_file(start + garbage) as file:
        assume(format_of(file) == name)

    _, said = unpacked_till_damage(start + garbage)

    assert said


@pytest.mark.parametrize("name", FORMATS)
def test_a_magic_with_nothing_but_garbage_gives_nothing(name: Format) -> None:
    magic = CHECKED[name](SMALL)[: 2 if name == "gzip" else 6 if name == "xz" else 4]

    assert unpacked_till_damage(magic + GARBAGE)[0] == b""
    assert unpacked_till_damage(magic + GARBAGE)[1]
    assert unpacked_till_damage(magic)[1]


def test_a_gzip_header_may_have_every_field() -> None:
    body = gzip.compress(SMALL)[10:]
    fields = b"\x05\0extra" + b"name" * 100_000 + b"\0" + b"comment\0" + b"\x12\x34"
    packed = b"\x1f\x8b\x08\x1e" + bytes(6) + fields + body

    assert unpacked(packed) == SMALL


def test_a_huge_window_is_refused_by_its_size() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(SMALL) + packer.flush()

    assert "window of 268435456 bytes" in unpacked_till_damage(packed)[1]


def test_a_huge_xz_dictionary_is_refused() -> None:
    packed = bytearray(lzma.compress(SMALL, preset=0))
    packed[16] = 40  # 4 GiB - 1, in the first block's header, which begins at byte 12
    packed[20:24] = binascii.crc32(packed[12:20]).to_bytes(4, "little")

    assert "Memory usage limit" in unpacked_till_damage(bytes(packed))[1]


def test_the_largest_window_of_xz_is_read() -> None:
    assert unpacked(lzma.compress(SMALL, preset=9)) == SMALL


@pytest.mark.parametrize(
    ("packed", "what"),
    [
        (b"\x02\x21\x4c\x18" + GARBAGE, "legacy frame"),
        (b"\x04\x22\x4d\x18\x61" + GARBAGE, "needs a dictionary"),
        (b"\x28\xb5\x2f\xfd\x21\x07\x00\x01\x00\x00", "needs the dictionary 7"),
    ],
)
def test_what_is_not_read_is_refused_by_name(packed: bytes, what: str) -> None:
    assert what in unpacked_till_damage(packed)[1]


def processor_seconds(packed: bytes) -> float:
    with memory_file(packed) as file:
        started = time.process_time()
        assert not any(content(file))
        return time.process_time() - started


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_of_empty_members_takes_time_by_its_length(name: Format) -> None:
    empty = CHECKED[name](b"")

    once = min(processor_seconds(empty * 3_000) for _ in range(3))

    assert processor_seconds(empty * 24_000) < 24 * once


def _zeros() -> Iterator[bytes]:
    return (bytes(8 * BLOCK) for _ in range(128))


def gzip_bomb() -> bytes:
    packer = isal_zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(zeros) for zeros in _zeros()) + packer.flush()


def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join(packer.compress(zeros) for zeros in _zeros()) + packer.flush()


def lz4_bomb() -> bytes:
    packer = frame.LZ4FrameCompressor(block_size=frame.BLOCKSIZE_MAX4MB)
    parts = [packer.begin(), *map(packer.compress, _zeros()), packer.flush()]
    return b"".join(parts)


def xz_bomb() -> bytes:
    return 16 * lzma.compress(bytes(64 * BLOCK), preset=0, check=lzma.CHECK_CRC32)


def report_bomb() -> bytes:
    return b"ProblemType: Crash\nCoreDump: base64\n " + binascii.b2a_base64(gzip_bomb())


MEASURE = """
import re, sys
from common.packing.incoming import content

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

before = peak()
blocks = content(int(sys.argv[1]))
next(blocks)
blocks.close()
print(sum(map(len, content(int(sys.argv[1])))), peak() - before)
"""


@pytest.mark.parametrize("bomb", [gzip_bomb, zstd_bomb, lz4_bomb, xz_bomb, report_bomb])
def test_a_gib_of_zeros_is_never_held(bomb: Callable[[], bytes]) -> None:
    with memory_file(bomb()) as file:
        command = [sys.executable, "-c", MEASURE, str(file)]
        said = subprocess.run(command, pass_fds=[file], capture_output=True, check=True).stdout

    size, mebibytes = map(int, said.split())
    assert size == 2**30
    assert mebibytes < 40
