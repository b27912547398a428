import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.packing.codec import BLOCK
from common.packing.sparse import PAGE, can_seek, data_ranges, is_zero, write_data
from tests.unit.common.packing.cases import NOISE, Core, cores
from tests.unit.factories import content_of, memory_file, with_files

chunks = st.lists(
    st.sampled_from([b"", b"x", bytes(1), bytes(PAGE), bytes(3 * PAGE), NOISE[:PAGE], NOISE[:77]]),
    max_size=8,
).map(b"".join)


@with_files
@given(st.integers(0, BLOCK), st.integers(0, BLOCK - 1))
def test_a_block_is_zero_where_no_byte_of_it_is_anything_else(size: int, place: int) -> None:
    block = bytearray(size)

    assert is_zero(block)
    assert is_zero(memoryview(block))
    if place < size:
        block[place] = 1
        assert not is_zero(block)


@with_files
@given(st.lists(chunks, max_size=6))
def test_blocks_written_with_holes_read_back_as_they_were(blocks: list[bytes]) -> None:
    with memory_file() as target:
        place = written = 0
        for block in blocks:
            written += write_data(target, block, place)
            place += len(block)
        os.ftruncate(target, place)

        assert content_of(target) == b"".join(blocks)
    assert written <= place


def test_only_pages_with_something_in_them_are_written() -> None:
    block = bytes(PAGE) + NOISE[:PAGE] + bytes(2 * PAGE) + b"x"

    with memory_file() as target:
        assert write_data(target, block, 5 * PAGE) == PAGE + 1
        assert os.fstat(target).st_blocks * 512 == 2 * PAGE


@with_files
@given(core=cores)
def test_what_is_in_no_range_is_zeros_and_the_ranges_are_in_order(core: Core) -> None:
    content = core.content
    with core.file() as file:
        ranges = list(data_ranges(file, len(content)))

    places = [place for found in ranges for place in found]
    assert places == sorted(set(places))
    assert not places or places[-1] <= len(content)
    rest = bytearray(content)
    for start, end in ranges:
        rest[start:end] = bytes(end - start)
    assert not any(rest)


def test_of_a_file_that_has_grown_only_what_was_asked_for_is_told() -> None:
    with memory_file() as file:
        os.pwrite(file, NOISE[:PAGE], 0)
        os.pwrite(file, NOISE[:PAGE], 20 * PAGE)

        assert list(data_ranges(file, 10 * PAGE)) == [(0, PAGE)]


def test_a_pipe_has_no_places_and_a_file_has() -> None:
    reading, writing = os.pipe()
    try:
        assert not can_seek(writing)
    finally:
        os.close(reading)
        os.close(writing)
    with memory_file() as file:
        assert can_seek(file)


@pytest.mark.parametrize("size", [0, 1, PAGE, BLOCK])
def test_zeros_are_not_written_at_all(size: int) -> None:
    with memory_file() as target:
        assert write_data(target, bytes(size), 3) == 0
        assert content_of(target) == b""
