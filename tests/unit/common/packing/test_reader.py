import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CorruptError
from common.item import CodecName
from common.packing.codec import BLOCK
from common.packing.reader import PackedReader
from tests.unit.common.packing.cases import (
    CODEC_NAMES,
    NOISE,
    Core,
    codecs,
    cores,
    each_codec,
    each_odd_row,
    packed,
    row_of,
)
from tests.unit.factories import memory_file, with_files

CORE = Core(("noise", "hole", "two ranges", "text", "zeros", "ones", "noise"), "odd")
CONTENT = CORE.content
FILES = {codec: packed(CONTENT, codec) for codec in CODEC_NAMES}

places = st.one_of(
    st.integers(0, len(CONTENT) + BLOCK),
    st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK, len(CONTENT), 2**40]),
)
sizes = st.one_of(st.integers(0, 3 * BLOCK), st.sampled_from([0, 1, 4096, BLOCK]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pread"), st.one_of(sizes, st.just(2**40)), places),
        st.tuples(st.just("read"), sizes, st.just(0)),
        st.tuples(st.just("readinto"), st.integers(0, 2 * BLOCK), st.just(0)),
        st.tuples(st.just("seek"), places, st.just(os.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(-BLOCK, BLOCK), st.just(os.SEEK_CUR)),
        st.tuples(st.just("seek"), st.integers(-2 * BLOCK, 5), st.just(os.SEEK_END)),
        st.tuples(st.just("tell"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@with_files
@given(codec=codecs, steps=steps, buffered=st.booleans())
def test_it_reads_as_the_core_itself_would(
    codec: CodecName, steps: list[tuple[str, int, int]], buffered: bool
) -> None:
    with memory_file(FILES[codec]) as file:
        reader = PackedReader(file)
        ours = io.BufferedReader(reader, 5000) if buffered else reader
        theirs = io.BytesIO(CONTENT)
        for step, size, place in steps:
            if step == "pread":
                assert reader.pread(size, place) == CONTENT[place : place + size]
            elif step == "read":
                # A raw file may give less, but not nothing before the end.
                found = ours.read(size) or b""
                assert found == theirs.read(len(found))
                assert found or size == 0 or theirs.tell() >= len(CONTENT)
                assert len(found) == size or not buffered or theirs.tell() >= len(CONTENT)
            elif step == "readinto":
                buffer = bytearray(size)
                got = ours.readinto(buffer)
                assert buffer[:got] == theirs.read(got)
                assert got or not size or theirs.tell() >= len(CONTENT)
            elif step == "seek":
                base = {0: 0, 1: theirs.tell(), 2: len(CONTENT)}[place]
                size = max(size, -base)
                assert ours.seek(size, place) == theirs.seek(size, place)
            assert ours.tell() == theirs.tell()


@with_files
@given(core=cores, codec=codecs)
def test_any_core_reads_whole(core: Core, codec: CodecName) -> None:
    content = core.content

    with memory_file(packed(content, codec)) as file:
        reader = PackedReader(file)

        assert reader.size == len(content)
        assert reader.read() == content
        assert reader.read() == b""
        reader.seek(0)
        assert io.BufferedReader(reader).read() == content


@each_codec
@each_odd_row
def test_units_as_we_do_not_make_them_are_refused(codec: CodecName, blocks: list[bytes]) -> None:
    with (
        memory_file(row_of(blocks, codec)) as file,
        pytest.raises(CorruptError, match=r"the unit at byte \d+ is none of ours"),
    ):
        PackedReader(file)


@each_codec
def test_two_of_our_files_in_one_are_none_of_ours(codec: CodecName) -> None:
    for first in b"", b"x", NOISE[:-1], NOISE + b"x":
        file = packed(first, codec) + packed(NOISE, codec)
        with memory_file(file) as descriptor, pytest.raises(CorruptError, match="byte"):
            PackedReader(descriptor)


@each_codec
def test_a_core_without_content_is_read_as_such(codec: CodecName) -> None:
    with memory_file(packed(b"", codec)) as file:
        reader = PackedReader(file)

        assert (reader.size, reader.read(), reader.pread(5, 0)) == (0, b"", b"")


def test_behind_the_end_there_is_nothing() -> None:
    with memory_file(FILES["gzip"]) as file:
        reader = PackedReader(file)

        assert reader.seek(10, os.SEEK_END) == len(CONTENT) + 10
        assert reader.read(5) == b""
        assert reader.readinto(bytearray(5)) == 0
        assert reader.pread(5, len(CONTENT)) == b""
        assert reader.pread(0, 0) == b""


@pytest.mark.parametrize("buffered", [False, True])
def test_there_is_no_place_before_the_beginning(buffered: bool) -> None:
    with memory_file(FILES["gzip"]) as file:
        reader = PackedReader(file)
        ours = io.BufferedReader(reader) if buffered else reader

        for place, whence in ((-1, os.SEEK_SET), (-1, os.SEEK_CUR), (-(2**30), os.SEEK_END)):
            with pytest.raises((ValueError, OSError)):
                ours.seek(place, whence)
        for size, place in ((1, -1), (-1, 0), (-1, -1)):
            with pytest.raises(ValueError, match="there are no"):
                reader.pread(size, place)
        assert ours.tell() == 0


@pytest.mark.parametrize("whence", [3, 4, 99, -1])
def test_a_way_to_seek_that_there_is_not_is_refused_as_files_do(whence: int) -> None:
    with memory_file(FILES["gzip"]) as file:
        reader = PackedReader(file)

        with pytest.raises(ValueError, match="there is no place"):
            reader.seek(0, whence)


def test_it_neither_uses_nor_moves_the_place_nor_closes_the_file() -> None:
    with memory_file(FILES["zstd"]) as file:
        os.lseek(file, 7, os.SEEK_SET)

        with PackedReader(file) as reader:
            reader.seek(BLOCK)
            reader.read(10)

        assert os.lseek(file, 0, os.SEEK_CUR) == 7


def test_it_is_readable_and_seekable_and_not_writable() -> None:
    with memory_file(FILES["lz4"]) as file:
        reader = PackedReader(file)

        assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            reader.truncate(0)


@each_codec
def test_a_unit_is_read_once_for_many_small_reads_in_it(
    codec: CodecName, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, read = os.pread, []

    def noting(descriptor: int, size: int, place: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, place)

    with memory_file(FILES[codec]) as file:
        reader = PackedReader(file)
        monkeypatch.setattr(os, "pread", noting)
        for place in range(0, 3 * BLOCK, 10_000):
            reader.pread(100, place)

    assert len(read) <= 4


@each_codec
def test_a_damaged_unit_is_named_and_the_others_are_read(codec: CodecName) -> None:
    damaged = bytearray(FILES[codec])
    damaged[BLOCK // 2] ^= 1

    with memory_file(bytes(damaged)) as file:
        reader = PackedReader(file)

        for _ in range(2):
            with pytest.raises(CorruptError, match="unit at byte 0 of it, byte 0 of its content"):
                reader.pread(1, 5)
        assert reader.pread(3 * BLOCK, BLOCK) == CONTENT[BLOCK : 4 * BLOCK]


@each_codec
def test_a_file_that_is_cut_while_it_is_read_is_corrupt(codec: CodecName) -> None:
    with memory_file(FILES[codec]) as file:
        reader = PackedReader(file)
        os.ftruncate(file, 1000)

        with pytest.raises(CorruptError, match="it ends at byte 1000"):
            reader.pread(1, 5)


def test_many_threads_may_read_at_once() -> None:
    wrong: list[int] = []
    with memory_file(FILES["lz4"]) as file:
        reader = PackedReader(file)

        def read(first: int) -> None:
            wrong.extend(
                place
                for place in range(first, len(CONTENT), 7 * 65_536)
                if reader.pread(50_000, place) != CONTENT[place : place + 50_000]
            )

        threads = [threading.Thread(target=read, args=(n * 65_536,)) for n in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert not wrong


def test_what_was_asked_for_is_all_that_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_file(packed(NOISE * 8, "gzip")) as file:
        reader, asked = PackedReader(file), []
        pread = os.pread

        def noting(descriptor: int, size: int, place: int) -> bytes:
            asked.append(place)
            return pread(descriptor, size, place)

        monkeypatch.setattr(os, "pread", noting)
        assert reader.pread(10, 5 * BLOCK + 3) == NOISE[3:13]

    assert len(asked) == 1
