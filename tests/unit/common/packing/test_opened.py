import gzip
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lz4 import frame

from common.item import CodecName
from common.packing.codec import BLOCK, Units
from common.packing.opened import OpenCore
from common.packing.registry import CODECS
from common.packing.sources import FileSource
from common.packing.transcoding import PackedSource
from tests.unit.common.packing.cases import (
    CODEC_NAMES,
    NOISE,
    TEXT,
    Core,
    codecs,
    cores,
    each_codec,
    pack,
    packed,
    packed_source,
)
from tests.unit.factories import memory_file, with_files

CONTENT = Core(("noise", "hole", "text", "two ranges"), "odd").content


def packed_anew(file: bytes) -> tuple[bytes, str]:
    """Give the core in *file* by way of packing it anew, and why it was cut."""
    with memory_file(file) as descriptor:
        source = OpenCore(descriptor).source()
        return gzip.decompress(pack(source, "gzip", 2).file), source.cut


@with_files
@given(core=cores, codec=codecs)
def test_a_core_of_ours_is_read_anywhere_and_packed_anew(core: Core, codec: CodecName) -> None:
    content = core.content
    with memory_file(packed(content, codec)) as file:
        opened = OpenCore(file)

        assert (opened.codec, opened.size, opened.damage) == (CODECS[codec], len(content), "")
        assert opened.read(100, BLOCK - 50) == content[BLOCK - 50 : BLOCK + 50]
        assert opened.read(BLOCK, 2**40) == b""
        assert isinstance(opened.source(), PackedSource)
        assert gzip.decompress(pack(opened.source(), "gzip", 2).file) == content


@with_files
@given(core=cores)
def test_a_core_that_is_not_packed_is_a_file(core: Core) -> None:
    content = core.content
    with core.file() as file:
        opened = OpenCore(file)

        assert (opened.codec, opened.size, opened.damage) == (None, len(content), "")
        assert opened.read(100, BLOCK - 50) == content[BLOCK - 50 : BLOCK + 50]
        assert isinstance(opened.source(), FileSource)


def _zstd_stream(content: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(content) + packer.flush()


THEIRS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zstd, streamed": _zstd_stream,
    "lz4": frame.compress,
    "lz4, with all there is": lambda data: frame.compress(
        data, block_linked=False, content_checksum=True, store_size=True, block_checksum=True
    ),
    "lz4, nearly as ours": lambda data: frame.compress(
        data,
        block_size=frame.BLOCKSIZE_MAX64KB,
        block_linked=False,
        content_checksum=True,
        store_size=True,
    ),
    "a row of members": lambda data: b"".join(
        gzip.compress(data[place : place + 300_000]) for place in range(0, len(data), 300_000)
    ),
}


@pytest.mark.parametrize("content", [b"x", TEXT[:70_000], CONTENT], ids=len)
@pytest.mark.parametrize("name", THEIRS)
def test_what_others_packed_is_unpacked_once(name: str, content: bytes) -> None:
    file = THEIRS[name](content)

    assert packed_anew(file) == (content, "")
    with memory_file(file) as descriptor:
        opened = OpenCore(descriptor)
        assert opened.read(50, 3) == content[3:53]
        assert not opened.damage


def seekable_as_others_write_it(blocks: list[bytes], *, checksums: bool) -> bytes:
    """Write what zstd's contrib/seekable_format does: its frames do not tell their size."""
    units, frames, sums = Units(), b"", []
    for block in blocks:
        made = _zstd_stream(block)
        units.add(len(made), len(block))
        frames += made
        sums.append(block[:4].ljust(4))
    table = CODECS["zstd"].trailer(units)
    if checksums:
        entries = b"".join(table[8 + 8 * n : 16 + 8 * n] + sums[n] for n in range(len(blocks)))
        footer = table[-9:-5] + b"\x80" + table[-4:]
        size = len(entries) + len(footer)
        table = table[:4] + size.to_bytes(4, "little") + entries + footer
    return frames + table


@pytest.mark.parametrize("checksums", [False, True])
def test_a_seekable_file_of_others_is_read_though_its_frames_do_not_tell_their_sizes(
    checksums: bool,
) -> None:
    file = seekable_as_others_write_it([NOISE, TEXT, b"end"], checksums=checksums)

    assert packed_anew(file) == (NOISE + TEXT + b"end", "")


@each_codec
def test_of_a_file_cut_short_what_is_whole_is_packed_anew(codec: CodecName) -> None:
    content = NOISE + TEXT + bytes(BLOCK) + NOISE
    found, cut = packed_anew(packed(content, codec)[: -BLOCK // 2])

    assert content.startswith(found)
    assert len(found) >= 3 * BLOCK
    assert cut


@each_codec
def test_a_file_of_which_nothing_can_be_unpacked_is_taken_as_it_is(codec: CodecName) -> None:
    for content in (NOISE, TEXT[:500], NOISE + TEXT):
        file = bytearray(packed(content, codec))
        file[len(packed(content[:BLOCK], codec)) // 2] ^= 1

        with memory_file(bytes(file)) as descriptor:
            opened = OpenCore(descriptor)
            found = gzip.decompress(pack(opened.source(), "gzip").file)

        assert found, "nothing is left of it"


@pytest.mark.parametrize("magic", [codec.magic for codec in CODECS.values()])
def test_what_only_begins_as_if_it_were_packed_is_taken_as_it_is(magic: bytes) -> None:
    file = magic + b"\xff" * 5000

    with memory_file(file) as descriptor:
        opened = OpenCore(descriptor)

        assert opened.damage
        assert (opened.codec, opened.size) == (None, len(file))
        assert opened.read(3, 0) == magic.ljust(3, b"\xff")[:3]
    assert packed_anew(file)[0] == file


def test_damage_where_it_is_read_is_an_error_of_reading() -> None:
    file = bytearray(packed(NOISE + NOISE, "gzip"))
    file[-5000] ^= 1

    with memory_file(bytes(file)) as descriptor:
        opened = OpenCore(descriptor)

        assert opened.read(5, 0) == NOISE[:5]
        with pytest.raises(OSError, match=f"byte {BLOCK} of its content"):
            opened.read(1, BLOCK)


@with_files
@given(st.binary(max_size=200))
def test_garbage_is_taken_as_it_is_or_unpacked_and_never_fails(garbage: bytes) -> None:
    for magic in (b"", *(codec.magic for codec in CODECS.values())):
        packed_anew(magic + garbage)


@each_codec
def test_a_file_of_two_is_the_content_of_both(codec: CodecName) -> None:
    for first, second in ((b"", b"second"), (b"first", b""), (NOISE, TEXT[:100])):
        file = packed(first, codec) + packed(second, codec)

        assert packed_anew(file) == (first + second, "")


def test_what_would_be_seeked_anew_is_found_by_every_reader() -> None:
    for codec in CODEC_NAMES:
        with memory_file(packed(CONTENT, codec)) as file:
            os.lseek(file, 9, os.SEEK_SET)

            assert gzip.decompress(pack(packed_source(file, codec), "gzip").file) == CONTENT
            assert os.lseek(file, 0, os.SEEK_CUR) == 9
