import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lz4 import frame

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import BLOCK
from common.packing.opened import OpenCore
from common.packing.reader import PackedReader
from common.packing.registry import CODECS, codec_name, codec_of, whole_units
from common.packing.restoring import unpacked
from tests.unit.common.packing.cases import (
    CODEC_NAMES,
    NOISE,
    RANDOM,
    TEXT,
    Core,
    codecs,
    each_codec,
    pack,
    packed,
    row_of,
    within_seconds,
)
from tests.unit.common.packing.cases import (
    seek_table as table,
)
from tests.unit.factories import memory_file, with_files


def _gunzip(data: bytes) -> bytes:
    return gzip.decompress(data)


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)


def _unlz4(data: bytes) -> bytes:
    content: bytes = frame.decompress(data)
    return content


OTHERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gunzip, "zstd": _unzstd, "lz4": _unlz4}
"""What others unpack one unit with."""

CONTENT = [(NOISE[:100] + TEXT[:3000]).ljust(BLOCK, b"\0"), bytes(BLOCK), NOISE[:300]]
SMALL = {name: row_of(CONTENT, name) for name in CODECS}
"""Files of a few KB, to be damaged."""
WHOLE = b"".join(CONTENT)


def unit_of(block: bytes, codec: CodecName) -> bytes:
    return b"".join(CODECS[codec].packer()(memoryview(block)))


def read_all(file: bytes) -> bytes:
    with memory_file(file) as descriptor:
        reader = PackedReader(descriptor)
        return reader.pread(reader.size, 0)


def unpack_all(file: bytes) -> bytes:
    with memory_file(file) as descriptor:
        return b"".join(unpacked(descriptor))


def unpack_by_three(file: bytes) -> bytes:
    with memory_file(file) as descriptor:
        return b"".join(unpacked(descriptor, workers=3))


def read_to_the_end(file: bytes) -> bytes:
    content, buffer = b"", bytearray(BLOCK)
    with memory_file(file) as descriptor:
        reader = PackedReader(descriptor)
        while size := reader.readinto(buffer):
            content += buffer[:size]
    return content


READERS = [read_all, unpack_all, read_to_the_end]
blocks = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 255).map(lambda byte: bytes([byte]) * 5000),
    st.integers(0, BLOCK).map(lambda size: NOISE[:size]),
    st.integers(0, BLOCK).map(lambda size: TEXT[:size]),
    st.integers(0, BLOCK).map(bytes),
)


@with_files
@given(codec=codecs, block=blocks)
def test_each_unit_is_a_file_of_its_format(codec: CodecName, block: bytes) -> None:
    unit = unit_of(block, codec)

    assert OTHERS[codec](unit) == block
    assert CODECS[codec].unpack(unit, len(block)) == block
    assert len(unit) <= max(len(block) * 1.001, len(block) + 150)


@each_codec
@pytest.mark.parametrize("size", [0, 1, 4095, BLOCK - 1, BLOCK])
def test_a_unit_of_zeros_is_what_packing_zeros_gives(codec: CodecName, size: int) -> None:
    unit = CODECS[codec].zeros(size)

    assert OTHERS[codec](unit) == bytes(size)
    assert unit == unit_of(bytes(size), codec)


@each_codec
def test_the_units_are_found_where_they_are(codec: CodecName) -> None:
    content = Core(("noise", "hole", "text", "two ranges"), "odd").content
    file = packed(content, codec)

    with memory_file(file) as descriptor:
        units = list(CODECS[codec].units(descriptor))
        walked = list(CODECS[codec].walk(descriptor)) if codec != "zstd" else []

    assert b"".join(OTHERS[codec](file[u.place : u.place + u.packed]) for u in units) == content
    assert [unit.size for unit in units] == [BLOCK] * 4 + [70_001]
    assert not walked or walked == [(unit.packed, unit.size) for unit in units]


def test_each_member_of_gzip_tells_its_size_where_others_look_for_it() -> None:
    file = packed(Core(("noise", "hole", "text"), "a byte").content, "gzip")

    place, sizes = 0, []
    while place < len(file):
        magic, flags, length, name, inner, size = struct.unpack_from("<3sB6xH2sHI", file, place)
        assert (magic, flags, length, name, inner) == (b"\x1f\x8b\x08", 4, 8, b"IG", 4)
        sizes.append(len(gzip.decompress(file[place : place + size])))
        place += size

    assert place == len(file)
    assert sizes == [BLOCK] * 3 + [1]


def test_the_seek_table_of_zstd_is_as_its_description_says() -> None:
    content = Core(("noise", "hole", "text"), "a byte").content
    file = packed(content, "zstd")

    # zstd_seekable_compression_format.md: Skippable_Magic_Number, Frame_Size, entries, footer.
    number, descriptor, magic = struct.unpack("<IBI", file[-9:])
    start = len(file) - 17 - 8 * number
    skippable, size = struct.unpack_from("<II", file, start)
    entries = list(struct.iter_unpack("<II", file[start + 8 : -9]))

    assert (magic, descriptor, number) == (0x8F92EAB1, 0, 4)
    assert (skippable, size) == (0x184D2A5E, 8 * number + 9)
    place, found = 0, b""
    for packed_size, content_size in entries:
        found += _unzstd(file[place : place + packed_size])
        place += packed_size
        assert len(found) % BLOCK == content_size % BLOCK
    assert (place, found) == (start, content)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_each_frame_has_its_content_size_and_a_checksum(codec: CodecName) -> None:
    for block in b"x", NOISE, TEXT:
        unit = unit_of(block, codec)
        if codec == "zstd":
            found = zstandard.get_frame_parameters(unit)
            assert (found.content_size, found.has_checksum) == (len(block), True)
        else:
            info = frame.get_frame_info(unit)
            assert info["content_size"] == len(block)
            assert info["content_checksum"]


@pytest.mark.parametrize("name", ["", "GZIP", "gzip ", "xz", "brotli"])
def test_a_way_of_packing_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="gzip, zstd, lz4"):
        codec_name(name)


@each_codec
def test_a_way_of_packing_is_known_by_the_first_bytes(codec: CodecName) -> None:
    with memory_file(SMALL[codec]) as file, memory_file(b"\x7fELF") as raw, memory_file() as empty:
        assert codec_of(file) is CODECS[codec]
        assert codec_of(raw) is None
        assert codec_of(empty) is None


def test_the_file_that_is_damaged_is_one_of_ours() -> None:
    for codec in CODEC_NAMES:
        assert SMALL[codec] == packed(WHOLE, codec)


@cache
def places_of(codec: CodecName) -> list[int]:
    """Give each byte of `SMALL` that is about units, and some of what is in them."""
    file = SMALL[codec]
    with memory_file(file) as descriptor:
        units = list(CODECS[codec].units(descriptor))
    places = set(range(units[-1].place + units[-1].packed, len(file)))  # the table
    for unit in units:
        end = unit.place + unit.packed
        head, tail = min(end, unit.place + 32), max(unit.place, end - 16)
        places |= {*range(unit.place, head), *range(tail, end)}
        places |= {*range(head, tail, max(1, unit.packed // 30))}
    return sorted(places)


def flipped(codec: CodecName) -> Iterator[tuple[int, bytes]]:
    file = SMALL[codec]
    for place in places_of(codec):
        for bit in range(8):
            yield place, file[:place] + bytes([file[place] ^ 1 << bit]) + file[place + 1 :]


def cut_anywhere(codec: CodecName) -> Iterator[bytes]:
    yield from (SMALL[codec][:place] for place in places_of(codec))


@each_codec
@pytest.mark.parametrize("read", READERS)
def test_no_flipped_bit_gives_content_that_never_was(
    codec: CodecName, read: Callable[[bytes], bytes]
) -> None:
    file, undetected = SMALL[codec], 0
    assert read(file) == WHOLE

    for place, damage in flipped(codec):
        assert zlib.crc32(damage) != zlib.crc32(file)
        try:
            found = read(damage)
        except CorruptError:
            continue
        assert found == WHOLE, f"content that never was, of a bit of byte {place}"
        undetected += 1

    bits = 8 * len(places_of(codec))
    assert undetected < bits * 0.35, "headers, a table: nothing that holds content"


@each_codec
def test_no_flipped_bit_of_a_size_shifts_what_follows(codec: CodecName) -> None:
    content = NOISE + TEXT
    file = packed(content, codec)
    with memory_file(file) as descriptor:
        first = next(iter(CODECS[codec].units(descriptor)))
    size = BLOCK.to_bytes(4, "little")
    place = file.index(size, first.packed - 4 if codec == "gzip" else 0)
    if codec == "zstd":
        place = file.rindex(size, 0, -9 - 4)
    damage = file[:place] + bytes(4) + file[place + 4 :]  # a single bit: a block is 2 ** 20 bytes

    for read in READERS:
        try:
            found = read(damage)
        except CorruptError:
            continue
        assert found == content


@each_codec
@pytest.mark.parametrize("read", READERS)
def test_a_file_cut_anywhere_gives_no_content_that_never_was(
    codec: CodecName, read: Callable[[bytes], bytes]
) -> None:
    for damage in cut_anywhere(codec):
        try:
            found = read(damage)
        except CorruptError:
            continue
        assert found
        assert WHOLE.startswith(found)


@each_codec
@pytest.mark.parametrize("read", READERS)
def test_damage_is_named_with_its_place(codec: CodecName, read: Callable[[bytes], bytes]) -> None:
    said = set()
    for damage in chain(cut_anywhere(codec), (damage for _, damage in flipped(codec))):
        try:
            read(damage)
        except CorruptError as error:
            said.add(str(error))

    assert said
    assert not [
        what for what in said if not re.search(r"\bbyte \d+", what) and what != "an empty file"
    ]


def test_a_header_of_zstd_that_hides_the_checksum_does_not_hide_the_damage() -> None:
    unit = bytearray(unit_of(NOISE, "zstd"))
    unit[4] ^= 0b100  # Content_Checksum_flag: RFC 8878, 3.1.1.1.1
    unit[20] ^= 1

    with pytest.raises(CorruptError):
        CODECS["zstd"].unpack(bytes(unit), BLOCK)


MIXED = (b"a core " * 20 + NOISE[:300] + bytes(500) + b"x") * 2000
LARGE = Core(("noise", "text", "hole", "one page"), "odd")


@cache
def large_file(codec: CodecName) -> bytes:
    return packed(LARGE.content, codec)


@with_files
@given(codec=codecs, data=st.data())
def test_what_is_left_of_a_large_damaged_file_is_a_true_beginning(
    codec: CodecName, data: st.DataObject
) -> None:
    content, file = LARGE.content, bytearray(large_file(codec))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, len(file) - 1))
        file[place] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.one_of(st.just(len(file)), st.integers(4, len(file))))
    found: list[bytes] = []

    with memory_file(bytes(file[:end])) as descriptor, suppress(CorruptError):
        found.extend(unpacked(descriptor, workers=data.draw(st.sampled_from([1, 3]))))

    # Where a damaged header hides the units, a frame's checksum is known only behind its content.
    assert content.startswith(b"".join(found)[:-BLOCK])


@with_files
@given(codec=codecs, data=st.data())
def test_a_damaged_file_is_packed_anew_as_far_as_it_is_whole(
    codec: CodecName, data: st.DataObject
) -> None:
    file = bytearray(packed(MIXED, codec))
    place = data.draw(st.integers(4, len(file) - 1))
    file[place] ^= 1 << data.draw(st.integers(0, 7))

    with memory_file(bytes(file)) as descriptor:
        core = OpenCore(descriptor)
        source, is_ours = core.source(), core.codec is not None
        result = within_seconds(lambda: pack(source, "gzip", 2))

    found = gzip.decompress(result.file)
    if found != MIXED:
        assert core.damage or source.cut
    if is_ours:
        assert MIXED.startswith(found)


@pytest.mark.parametrize("start", [b"", *(codec.magic for codec in CODECS.values())])
def test_garbage_is_corrupt_and_nothing_else(start: bytes) -> None:
    for size in range(60):
        file = start + RANDOM.randbytes(size)
        for read in READERS:
            with pytest.raises(CorruptError):
                read(file)


def gzip_telling(packed_size: int, size: int) -> bytes:
    header = struct.pack("<4sIBBH2sHI", b"\x1f\x8b\x08\x04", 0, 4, 3, 8, b"IG", 4, packed_size)
    return header + struct.pack("<II", 0, size)


def lz4_telling(packed_size: int, size: int) -> bytes:
    header = struct.pack("<IBBQ", 0x184D2204, 0b01101100, 0x60, size)
    body = bytes(packed_size if packed_size < 2**20 else 0)
    return header + struct.pack("<BI", _lz4_check(header), packed_size) + body + bytes(8)


def _lz4_check(header: bytes) -> int:
    """Find the one byte that lz4 takes for the header's checksum."""
    for check in range(256):
        try:
            frame.get_frame_info(header + bytes([check]) + bytes(4))
        except RuntimeError:
            continue
        return check
    raise AssertionError("no checksum fits")


def zstd_telling(size: int, content: bytes) -> bytes:
    """Write a frame of a single segment that says it holds *size* bytes."""
    raw = (len(content) << 3 | 1).to_bytes(3, "little") + content
    return b"\x28\xb5\x2f\xfd" + bytes([0b11_1_00000]) + size.to_bytes(8, "little") + raw


def zstd_of_window(exponent: int) -> bytes:
    return b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3]) + b"\x09\0\0x"


FRAME = unit_of(b"a core", "zstd")
HOSTILE = {
    "gzip: a member of 4 GiB": gzip_telling(2**32 - 1, 5),
    "gzip: a content of 4 GiB": gzip_telling(28, 2**32 - 1),
    "gzip: a member of nothing": gzip_telling(28, 5),
    "gzip: a member smaller than a header": gzip_telling(0, 5),
    "lz4: a content of 2**32 bytes": lz4_telling(5, 2**32),
    "lz4: a content of 2**64 bytes": lz4_telling(5, 2**64 - 1),
    "lz4: a content of 1 MiB that is not there": lz4_telling(0, BLOCK),
    "lz4: a block of 2 GiB": lz4_telling(2**31 - 1, 5),
    "lz4: a stored block of 2 GiB": lz4_telling(2**32 - 1, 5),
    "zstd: a content of 2**63 bytes": zstd_telling(2**63, b"x"),
    "zstd: a content of 2**64 bytes, with a table": zstd_telling(2**64 - 3, b"x")
    + table(1, (17, 2**32 - 1)),
    "zstd: a content of 1 MiB that is not there": zstd_telling(BLOCK, b"x") + table(1, (17, BLOCK)),
    "zstd: more content than it says": zstd_telling(1, NOISE[:5000]) + table(1, (5016, 1)),
    "zstd: a giant window": zstd_of_window(31),
    "zstd: a large window, with a table": zstd_of_window(21) + table(1, (10, 1)),
    "zstd: a table of 2**32 frames": FRAME + table(2**32 - 1),
    "zstd: a table of none": FRAME + table(0),
    "zstd: a table of frames of 4 GiB": FRAME + table(1, (2**32 - 1, 6)),
    "zstd: a table of contents of 4 GiB": FRAME + table(1, (len(FRAME), 2**32 - 1)),
    "zstd: a table of frames without bytes": FRAME + table(2, (0, BLOCK), (len(FRAME), 6)),
    "zstd: a table of a frame too much": FRAME + table(2, (len(FRAME), 6), (0, 5)),
}


@pytest.mark.parametrize("file", HOSTILE.values(), ids=HOSTILE)
def test_a_header_that_lies_is_found_and_nothing_is_taken_at_its_word(
    file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pread = [0], os.pread

    def noting(descriptor: int, size: int, place: int) -> bytes:
        asked.append(size)
        return pread(descriptor, size, place)

    monkeypatch.setattr(os, "pread", noting)
    for read in READERS:
        try:
            found = read(file)
        except CorruptError:
            continue
        assert found == b"a core"
    with memory_file(file) as descriptor:
        core = OpenCore(descriptor)
        pack(core.source(), "gzip")
        core = OpenCore(descriptor)
        for codec in CODECS.values():
            whole_units(descriptor, codec)
    assert max(asked) <= 2 * BLOCK


def sparse_gzip(descriptor: int, size: int) -> None:
    os.pwrite(descriptor, gzip_telling(size, 100)[:20], 0)
    os.pwrite(descriptor, struct.pack("<II", 0, 100), size - 8)


def sparse_lz4(descriptor: int, size: int) -> None:
    os.pwrite(descriptor, lz4_telling(size - 27, 100), 0)
    os.ftruncate(descriptor, size)


def sparse_unit_of_zstd(descriptor: int, size: int) -> None:
    end = table(1, (size, 6))
    os.pwrite(descriptor, FRAME, 0)
    os.pwrite(descriptor, end, size)


def sparse_table_of_zstd(descriptor: int, size: int) -> None:
    number = size // 8
    whole = table(number)
    os.pwrite(descriptor, FRAME + whole[:8] + struct.pack("<II", len(FRAME), 6), 0)
    os.pwrite(descriptor, whole[-9:], len(FRAME) + 8 + 8 * number)


@pytest.mark.parametrize(
    "write", [sparse_gzip, sparse_lz4, sparse_unit_of_zstd, sparse_table_of_zstd]
)
def test_a_small_file_with_large_holes_is_not_read_into_memory(
    write: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pread = [0], os.pread

    def reading(descriptor: int, size: int, place: int) -> bytes:
        asked.append(size)
        if size > 2**26:
            raise AssertionError(f"{size} bytes are asked for at once")
        return pread(descriptor, size, place)

    monkeypatch.setattr(os, "pread", reading)
    with memory_file() as descriptor:
        write(descriptor, 2**28)
        with suppress(CorruptError):
            assert b"".join(unpacked(descriptor)) == b"a core"

    assert max(asked) <= 8 * BLOCK


def test_what_is_taken_up_does_not_unpack_a_bomb_at_once() -> None:
    repeated = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    bomb = b"\x28\xb5\x2f\xfd" + bytes([0, 7 << 3]) + repeated * 2000

    with memory_file(bomb) as file:
        before = _peak()
        units, is_data = whole_units(file, CODECS["zstd"])
        grown = _peak() - before

    assert (len(units), len(is_data)) == (0, 0)
    assert grown < 32 * BLOCK


def _peak() -> int:
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("codec", ["gzip", "lz4"])
def test_a_file_of_very_many_tiny_units_is_not_looked_at_one_by_one(
    codec: CodecName, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, unit = 20_000, unit_of(b"x", codec)
    pread, read = os.pread, []

    def noting(descriptor: int, size: int, place: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, place)

    with memory_file(unit * number) as descriptor:
        monkeypatch.setattr(os, "pread", noting)
        core = OpenCore(descriptor)

        assert core.read(1, 0) == b"x"
    assert len(read) < number / 4, "it takes minutes for each GiB, and nobody can stop it"
