import gzip
import os
from collections.abc import Callable, Iterator
from itertools import count
from threading import Barrier, Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CorruptError
from common.item import CodecName, Packed
from common.packing.codec import BLOCK, Units
from common.packing.crew import Crew
from common.packing.opened import OpenCore
from common.packing.packer import Packer
from common.packing.registry import CODECS
from common.packing.sources import (
    MANY,
    MOST_ZEROS,
    Allowance,
    Claim,
    FileSource,
    Source,
    StreamSource,
)
from common.packing.sparse import PAGE
from common.packing.transcoding import PackedSource
from tests.unit.common.packing.cases import (
    NOISE,
    TEXT,
    Core,
    Result,
    codecs,
    cores,
    each_codec,
    each_odd_row,
    pack,
    packed,
    packed_source,
    piece_sizes,
    row_of,
    within_seconds,
    workers,
)
from tests.unit.factories import content_of, memory_file, with_files

limits = st.integers(1, 8 * BLOCK)


def unpacked(result: Result) -> bytes:
    return gzip.decompress(result.file)


def pack_watched(
    source: Source, watch: Callable[[int], None], workers: int = 1
) -> tuple[Packed, bytes]:
    """Pack *source*, and call *watch* before each piece, with its number."""
    numbers = count()
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS["gzip"], crew)
        within_seconds(lambda: packer.run(source, lambda: watch(next(numbers))))
        facts = packer.end(source.cut)
        return facts, gzip.decompress(content_of(target))


@with_files
@given(core=cores, workers=workers)
def test_holes_are_never_read(core: Core, workers: int) -> None:
    with core.file() as file, pytest.MonkeyPatch.context() as patch:
        holes = bytearray(core.content)
        for start, end in _data_in(file):
            holes[start:end] = b"d" * (end - start)
        preadv, read = os.preadv, []

        def noting(descriptor: int, buffers: list[memoryview], place: int) -> int:
            read.append((place, sum(map(len, buffers))))
            return preadv(descriptor, buffers, place)

        patch.setattr(os, "preadv", noting)
        patch.delattr(os, "pread")
        patch.delattr(os, "read")
        source = FileSource(file)
        with Crew(workers) as crew, memory_file() as target:
            Packer(target, CODECS["gzip"], crew).run(source)

    for place, size in read:
        assert holes[place : place + size] == b"d" * size
    assert sum(size for _, size in read) == holes.count(b"d")


def _data_in(file: int) -> Iterator[tuple[int, int]]:
    """Find the data by the file system's word, page by page."""
    size, place = os.fstat(file).st_size, 0
    while place < size:
        if os.lseek(file, place, os.SEEK_HOLE) > place:
            yield place, min(place + PAGE, size)
        place += PAGE


def test_a_hole_takes_few_claims_however_long_it_is() -> None:
    with memory_file() as file:
        os.ftruncate(file, 1000 * BLOCK + 5)
        source, claims = FileSource(file), []
        while claim := source.claim(bytearray()):
            claims.append(claim)

    assert sum(claim.size for claim in claims) == 1000 * BLOCK + 5
    assert len(claims) <= 1000 / MOST_ZEROS + 2


@with_files
@given(core=cores, max_data=limits, max_size=limits, sizes=piece_sizes, is_stream=st.booleans())
def test_limits_are_kept_and_what_was_cut_is_said_to_be(
    core: Core, max_data: int, max_size: int, sizes: list[int], is_stream: bool
) -> None:
    content = core.content
    with core.file() as file:
        data = core.data if is_stream else sum(end - start for start, end in _data_in(file))
        source = (
            StreamSource.of(core.stream(sizes), Allowance(max_data, max_size))
            if is_stream
            else FileSource(file, Allowance(max_data, max_size))
        )
        result = pack(source, "gzip", 2)

    found = unpacked(result)
    assert content.startswith(found)
    assert bool(result.facts.cut) == (len(found) < len(content))
    assert len(found) < max_size + BLOCK
    if is_stream:
        assert result.facts.data <= max_data
    whole_fits = len(content) <= max_size and data <= max_data
    assert not (whole_fits and result.facts.cut)


@with_files
@given(core=cores, codec=codecs, max_size=limits)
def test_a_packed_core_is_cut_at_its_size_too(core: Core, codec: CodecName, max_size: int) -> None:
    with memory_file(packed(core.content, codec)) as file:
        result = pack(packed_source(file, codec, Allowance(max_size=max_size)), "gzip", 2)

    found = unpacked(result)
    assert core.content.startswith(found)
    assert len(found) < max_size + BLOCK
    assert bool(result.facts.cut) == (len(found) < len(core.content))


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, 0), (BLOCK, 1), (2 * BLOCK, 2), (3 * BLOCK - 1, 2), (3 * BLOCK, 3)]
)
@pytest.mark.parametrize("kind", ["file", "stream", *CODECS])
def test_a_core_with_too_much_data_is_cut_before_it_is_too_much(
    kind: str, limit: int, kept: int
) -> None:
    content = NOISE + bytes(2 * BLOCK) + TEXT + NOISE
    in_file = content
    for name in CODECS:
        if name == kind:
            in_file = packed(content, name)

    with memory_file(in_file) as file:
        if kind == "stream":
            result = pack(StreamSource.of([content], Allowance(max_data=limit)), "gzip", 2)
        elif kind == "file":
            os.ftruncate(file, 0)
            for place in (0, 3, 4):
                os.pwrite(file, content[place * BLOCK :][:BLOCK], place * BLOCK)
            result = pack(FileSource(file, Allowance(max_data=limit)), "gzip", 2)
        else:
            result = pack(OpenCore(file).source(Allowance(max_data=limit)), "gzip", 2)

    assert result.facts.data <= limit
    assert result.facts.data == kept * BLOCK
    assert content.startswith(unpacked(result))
    assert bool(result.facts.cut) == (kept < 3)


def test_scattered_pages_count_as_their_pages_and_not_as_blocks() -> None:
    with memory_file() as file:
        for block in range(8):
            os.pwrite(file, NOISE[:PAGE], block * BLOCK)
        os.ftruncate(file, 8 * BLOCK)

        result = pack(FileSource(file, Allowance(max_data=BLOCK)), "gzip")

    assert not result.facts.cut
    assert result.facts.size == 8 * BLOCK


def test_a_stream_without_an_end_is_cut_at_either_limit() -> None:
    def forever(block: bytes) -> Iterator[bytes]:
        while True:
            yield block

    of_data = pack(StreamSource.of(forever(NOISE), Allowance(max_data=3 * BLOCK)), "lz4", 2)
    of_zeros = pack(
        StreamSource.of(forever(bytes(BLOCK)), Allowance(max_size=300 * BLOCK)), "lz4", 2
    )

    assert of_data.facts.size == 3 * BLOCK
    assert of_zeros.facts.size == 300 * BLOCK
    assert of_data.facts.cut
    assert of_zeros.facts.cut


@pytest.mark.parametrize("before", [0, 1, BLOCK, BLOCK + 7])
def test_a_stream_that_turns_out_damaged_is_kept_up_to_there(before: int) -> None:
    def blocks() -> Iterator[bytes]:
        yield (NOISE + TEXT)[:before]
        raise CorruptError("damaged at byte 77")

    result = pack(StreamSource.of(blocks()), "gzip", 2)

    assert unpacked(result) == (NOISE + TEXT)[:before]
    assert result.facts.cut == "damaged at byte 77"


SHAPE = Core(("noise", "hole", "text", "two ranges", "hole", "hole", "ones"), "odd", 5000)
# Places that a file is cut at: within and between data, holes, and ranges in blocks.
sizes_left = st.one_of(
    st.sampled_from([0, 1, BLOCK, 2 * BLOCK, 3 * BLOCK, 6 * BLOCK]),
    st.integers(0, 8 * BLOCK),
)


@with_files
@given(left=sizes_left, at=st.integers(0, 9), workers=workers)
def test_of_a_file_that_shrinks_the_core_is_a_beginning(left: int, at: int, workers: int) -> None:
    content = SHAPE.content
    with SHAPE.file() as file:

        def shrink(number: int) -> None:
            if number == at and left < os.fstat(file).st_size:
                os.ftruncate(file, left)

        facts, found = pack_watched(FileSource(file), shrink, workers)

    assert facts.size == len(found)
    assert content.startswith(found)


def test_of_a_file_that_shrinks_before_its_data_is_looked_for_no_zeros_are_made_up() -> None:
    with memory_file() as file:
        os.pwrite(file, NOISE, 0)
        os.pwrite(file, NOISE, 2 * BLOCK)

        def shrink(number: int) -> None:
            os.ftruncate(file, BLOCK)

        facts, found = pack_watched(FileSource(file), shrink)

    assert (NOISE + bytes(BLOCK) + NOISE).startswith(found)
    assert facts.size < 3 * BLOCK


def test_a_file_that_shrinks_while_a_range_is_looked_for_ends_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lseek = os.lseek
    with memory_file(NOISE + TEXT) as file:
        source = FileSource(file)

        def seek(descriptor: int, place: int, whence: int) -> int:
            if whence == os.SEEK_HOLE:
                os.ftruncate(file, 0)
            return lseek(descriptor, place, whence)

        monkeypatch.setattr(os, "lseek", seek)
        result = pack(source, "gzip", 2)

    assert (NOISE + TEXT).startswith(unpacked(result))


@with_files
@given(
    size=st.sampled_from([0, 1, PAGE, BLOCK // 2, BLOCK, BLOCK + 1, 3 * BLOCK // 2, 3 * BLOCK]),
    is_hole=st.booleans(),
    more_at=st.integers(0, 6 * BLOCK),
    at=st.integers(0, 3),
    workers=workers,
)
def test_a_file_that_grows_is_packed_as_long_as_it_was(
    size: int, is_hole: bool, more_at: int, at: int, workers: int
) -> None:
    content = bytes(size) if is_hole else (NOISE * 3)[:size]
    with memory_file() as file:
        os.pwrite(file, b"" if is_hole else content, 0)
        os.ftruncate(file, size)

        def grow(number: int) -> None:
            if number == at:
                os.pwrite(file, b"more", size + more_at)

        facts, found = pack_watched(FileSource(file), grow, workers)

    assert found == content
    assert facts.size == size


def test_a_file_whose_holes_are_filled_meanwhile_is_not_shifted() -> None:
    with SHAPE.file() as file:

        def fill(number: int) -> None:
            if number == 1:
                os.pwrite(file, b"\2" * BLOCK, BLOCK)
                os.pwrite(file, b"\2" * 2 * BLOCK, 4 * BLOCK)

        _, found = pack_watched(FileSource(file), fill)

    content = SHAPE.content
    assert len(found) == len(content)
    for place in range(0, len(content), PAGE):
        page = found[place : place + PAGE]
        assert page in (content[place : place + PAGE], b"\2" * len(page))


@each_codec
@each_odd_row
def test_units_as_we_do_not_make_them_are_packed_anew_from_a_stream(
    codec: CodecName, blocks: list[bytes]
) -> None:
    with memory_file(row_of(blocks, codec)) as file:
        source = OpenCore(file).source()
        result = pack(source, "gzip", 2)

    assert isinstance(source, StreamSource)
    assert unpacked(result) == b"".join(blocks)
    assert not result.facts.cut


@each_codec
@pytest.mark.parametrize("piece", ["ones", "text", "one page"])
def test_a_unit_is_data_however_small_it_packs(codec: CodecName, piece: str) -> None:
    core = Core(("hole", piece, "hole", piece, "hole", piece), "a zero")

    with memory_file(packed(core.content, codec)) as file:
        result = pack(packed_source(file, codec, Allowance(max_data=2 * BLOCK)), "gzip", 2)

    assert unpacked(result) == core.content[: 5 * BLOCK]
    assert result.facts.data == 2 * BLOCK
    assert result.facts.cut == f"it has more than {2 * BLOCK} bytes of data"


@each_codec
def test_a_core_without_content_may_be_packed_anew(codec: CodecName) -> None:
    with memory_file(packed(b"", codec)) as file:
        result = pack(packed_source(file, codec), "gzip")

    assert unpacked(result) == b""
    assert result.facts.size == 0


@each_codec
@pytest.mark.parametrize("workers", [1, 4])
def test_a_packed_core_ends_before_its_first_damaged_unit_which_is_named(
    codec: CodecName, workers: int
) -> None:
    content = NOISE[:-1] + b"\0" + NOISE + TEXT + NOISE + TEXT
    file = bytearray(packed(content, codec))
    with memory_file(bytes(file)) as descriptor:
        units = list(CODECS[codec].units(descriptor))
    for number in (2, 3, 4):
        file[units[number].place + units[number].packed // 2] ^= 4

    with memory_file(bytes(file)) as descriptor:
        result = pack(packed_source(descriptor, codec), "gzip", workers)

    assert unpacked(result) == content[: 2 * BLOCK]
    assert f"the unit at byte {units[2].place} " in result.facts.cut


@pytest.mark.parametrize("late", [0, BLOCK])
def test_of_two_damaged_units_the_one_where_the_core_ends_is_named(late: int) -> None:
    both_are_claimed, other_is_done = Barrier(2), Event()

    class Late(PackedSource):
        """Unpacks the unit at *late* behind the other one."""

        @property
        def pieces(self) -> int:
            """So many that threads help each other."""
            return MANY

        def fill(self, claim: Claim, buffer: bytearray) -> int:
            both_are_claimed.wait(20)
            if claim.start == late:
                assert other_is_done.wait(20)
            size = PackedSource.fill(self, claim, buffer)
            other_is_done.set()
            return size

    units = Units()
    units.add(100, BLOCK, times=2)
    with memory_file(b"\x1f" * 200) as file:
        source = Late(file, CODECS["lz4"], units)
        with Crew(2) as crew, memory_file() as target:
            Packer(target, CODECS["gzip"], crew).run(source)

    assert source.cut.startswith("the unit at byte 0 ")
