import ctypes
import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.packing.sources import Allowance
from common.packing.sparse import PAGE
from services.crashagent import resident
from services.crashagent.resident import (
    CaptureError,
    Head,
    Mapping,
    Memory,
    Stream,
    present,
    read_head,
    read_mappings,
)
from tests.unit.factories import with_files, without_deadline
from tests.unit.heads import (
    LOAD,
    NOTE,
    Area,
    head_of,
    header,
    hold_process,
    segment,
    writable_ranges,
)

MOST_TAKEN = 64 + 65535 * 56 + 16 * 2**20
"""Bytes of a stream that may be taken before it is given up."""
PAGES = 64
BIG = 2**40

numbers = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 63, 64, PAGE, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - PAGE]),
)
segments = st.builds(
    segment, st.sampled_from([LOAD, NOTE, 0, 2**32 - 1]), numbers, numbers, numbers
)


class Sender:
    """Sends *data*, at most *step* bytes at a time, then *tail* bytes of zeros."""

    def __init__(self, data: bytes, step: int = 2**20, tail: int = 0) -> None:
        self._left, self._step, self._tail = data, step, tail
        self.sent = 0

    def read(self, view: memoryview) -> int:
        most = min(len(view), self._step)
        if not self._left:
            self._left = bytes(min(most, self._tail))
            self._tail -= len(self._left)
        piece, self._left = self._left[:most], self._left[most:]
        view[: len(piece)] = piece
        self.sent += len(piece)
        return len(piece)


def everything(stream: Stream, step: int = 1000) -> bytes:
    """Read *stream* to its end."""
    found, buffer = bytearray(), memoryview(bytearray(step))
    while got := stream.read(buffer):
        found += buffer[:got]
    return bytes(found)


def refused(data: bytes) -> str:
    """Say why the head is not read as one, and check that no byte of it is lost."""
    stream = Stream(Sender(data, tail=PAGE).read)
    with pytest.raises(CaptureError) as caught:
        read_head(stream)
    assert everything(stream, 2**20) == data + bytes(PAGE)
    return str(caught.value)


def test_a_head_tells_of_its_segments() -> None:
    data = head_of([(PAGE, 3 * PAGE), (8 * PAGE, 9 * PAGE)])

    head = read_head(Stream(Sender(data + b"memory", step=7).read))

    assert [(s.address, s.size) for s in head.segments] == [(PAGE, 2 * PAGE), (8 * PAGE, PAGE)]
    assert head.size == head.segments[0].offset + 3 * PAGE
    assert data.startswith(head.data)
    assert not data[len(head.data) :].strip(b"\0")


def test_a_segment_of_nothing_is_passed_over() -> None:
    data = head_of([(PAGE, PAGE), (8 * PAGE, 9 * PAGE)])

    assert len(read_head(Stream(Sender(data).read)).segments) == 1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"ident": b"\x7fELF\x01\x01"}, "no core of a 64-bit process"),
        ({"ident": b"\x7fELF\x02\x03"}, "no core of a 64-bit process"),
        ({"ident": b"#!/bin/sh"}, "no core of a 64-bit process"),
        ({"kind": 2}, "no core of a 64-bit process"),
        ({"width": 32}, "no core of a 64-bit process"),
        ({"width": 0}, "no core of a 64-bit process"),
        ({"number": 0xFFFF}, "not where they are looked for"),
        ({"place": 0}, "not where they are looked for"),
        ({"place": 2**64 - 1}, "not where they are looked for"),
        ({"number": 0}, "0 segments"),
    ],
)
def test_a_header_that_is_not_this_kernels_is_refused(
    wrong: dict[str, object], reason: str
) -> None:
    assert reason in refused(header(**{"number": 1, **wrong}) + segment(LOAD, PAGE, PAGE, PAGE))


@pytest.mark.parametrize(
    "table",
    [
        [segment(LOAD, 64, PAGE, PAGE)],  # in the headers
        [segment(LOAD, PAGE + 1, PAGE, PAGE)],
        [segment(LOAD, PAGE, PAGE + 1, PAGE)],
        [segment(LOAD, 2 * PAGE, PAGE, PAGE), segment(LOAD, PAGE, 9 * PAGE, PAGE)],
        [segment(LOAD, PAGE, PAGE, 2 * PAGE), segment(LOAD, 2 * PAGE, 9 * PAGE, PAGE)],
        [segment(NOTE, 4 * PAGE, 0, 1), segment(LOAD, PAGE, PAGE, PAGE)],
        [segment(NOTE, 200, 0, BIG), segment(LOAD, 2 * BIG, PAGE, PAGE)],
        [segment(NOTE, 2**63, 0, 8), segment(LOAD, PAGE, PAGE, PAGE)],
        [segment(NOTE, 2**64 - 1, 0, 2**64 - 1), segment(LOAD, PAGE, PAGE, PAGE)],
        [segment(LOAD, PAGE, PAGE, 2**64 - 1), segment(LOAD, 2 * PAGE, 9 * PAGE, PAGE)],
    ],
    ids=[
        "in the headers",
        "between pages",
        "of memory between pages",
        "backwards",
        "overlapping",
        "behind which notes are",
        "notes without end",
        "notes beyond 2^63",
        "notes beyond everything",
        "a segment without end",
    ],
)
def test_segments_that_cannot_be_there_are_refused(table: list[bytes]) -> None:
    refused(header(number=len(table)) + b"".join(table))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100, 119])
def test_a_stream_that_ends_in_its_headers_is_given_as_it_is(size: int) -> None:
    data = head_of([(PAGE, 2 * PAGE)])[:size]
    stream = Stream(Sender(data).read)

    with pytest.raises(CaptureError, match="ends in its headers"):
        read_head(stream)

    assert everything(stream) == data


def test_notes_of_more_than_is_taken_are_left_to_the_stream() -> None:
    sender = Sender(
        header(number=2) + segment(NOTE, 176, 0, 2**24) + segment(LOAD, 2**25, PAGE, PAGE), tail=BIG
    )

    with pytest.raises(CaptureError, match="headers tell of 1 segments"):
        read_head(Stream(sender.read))

    assert sender.sent == 64 + 2 * 56


@without_deadline
@given(
    st.builds(
        lambda place, number, width: header(place=place, number=number, width=width),
        st.sampled_from([64, 64, 64, 0, 2**64 - 1]),
        st.one_of(st.integers(0, 8), st.sampled_from([0xFFFE, 0xFFFF])),
        st.sampled_from([56, 56, 56, 0, 32, 0xFFFF]),
    ),
    st.lists(segments, max_size=8).map(b"".join),
)
def test_any_head_is_one_or_is_refused_soon(head: bytes, table: bytes) -> None:
    sender = Sender(head + table, tail=BIG)
    try:
        found = read_head(Stream(sender.read))
    except CaptureError:
        pass
    else:
        assert found.segments
        assert all(s.offset >= len(found.data) and s.size for s in found.segments)
    assert sender.sent <= MOST_TAKEN


@without_deadline
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_and_none_else_is_raised(data: bytes, like_a_core: bool) -> None:
    data = header()[:24] + data if like_a_core else data

    with pytest.raises(CaptureError):
        read_head(Stream(Sender(data).read))


@without_deadline
@given(
    st.one_of(
        st.binary(max_size=5000),
        st.binary(max_size=999).map(lambda tail: head_of([(PAGE, 9 * PAGE)]) + tail),
        st.binary(max_size=999).map(lambda tail: header(number=0xFFFF) + tail),
    ),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_what_was_taken_comes_once_more(data: bytes, sent: int, read: int) -> None:
    stream = Stream(Sender(data, step=sent).read)
    with suppress(CaptureError):
        read_head(stream)

    assert everything(stream, read) == data


HOSTILE = {
    "newline": rb"/tmp/a\012ffff0000-ffff1000 rw-p 00000000 00:00 0 ",
    "deleted": b"/tmp/x (deleted)",
    "spaces": b"/tmp/ 0 0 0 ",
    "like anonymous": b"/tmp/[heap]",
    "invalid": b"/tmp/\xff\xfe",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_file_is_one_whatever_it_is_called(name: bytes) -> None:
    text = b"1000-3000 r--p 00000000 fe:00 1234                       " + name + b"\n"

    expected = Mapping(0x3000, is_readable=True, is_anonymous=False, device="fe:00")
    assert read_mappings(text) == {0x1000: expected}


@pytest.mark.parametrize(
    ("line", "is_anonymous"),
    [
        (b"1000-3000 rw-p 00000000 00:00 0 ", True),
        (b"1000-3000 rw-p 00000000 00:00 0", True),
        (b"1000-3000 rw-p 00000000 00:00 0                          [heap]", True),
        (b"1000-3000 rw-p 00000000 00:00 0                          [stack]", True),
        (b"1000-3000 rw-p 00000000 00:00 0                          [anon:a name]", True),
        (b"1000-3000 rw-s 00000000 00:00 0                          [anon_shmem:a name]", False),
        (b"1000-3000 rw-s 00000000 00:00 0 ", False),
        (b"1000-3000 r--p 00000000 00:00 0                          [vvar]", False),
        (b"1000-3000 r-xp 00000000 00:00 0                          [vdso]", False),
        (b"1000-3000 rw-p 00000000 00:0f 55             /anon_hugepage (deleted)", False),
        (b"1000-3000 rw-p 00000000 00:01 1025                       /dev/zero (deleted)", False),
        (b"1000-3000 rw-p 00000000 00:00 0                          /[aio] (deleted)", False),
    ],
)
def test_only_what_is_private_and_of_no_file_is_zeros_where_it_was_not_touched(
    line: bytes, is_anonymous: bool
) -> None:
    assert read_mappings(line + b"\n")[0x1000].is_anonymous == is_anonymous


def test_what_may_not_be_read_says_so() -> None:
    line = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n"

    assert not read_mappings(line)[0xFFFFFFFFFF600000].is_readable


@given(st.binary())
def test_any_list_of_mappings_is_read_without_harm(text: bytes) -> None:
    for start, mapping in read_mappings(b"1000-2000 " + text).items():
        assert start >= 0
        assert mapping.end >= 0


def test_the_list_of_our_own_mappings_is_read_whole() -> None:
    text = Path("/proc/self/maps").read_bytes()

    assert len(read_mappings(text)) == text.count(b"\n")


@pytest.fixture
def pagemap() -> Iterator[int]:
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(scope="module", autouse=True)
def may_read_page_tables() -> None:
    try:
        os.close(os.open("/proc/self/pagemap", os.O_RDONLY))
    except OSError as error:
        pytest.skip(f"missing: /proc/self/pagemap ({error.strerror})")


def pages_in(ranges: Iterator[tuple[int, int]], start: int) -> set[int]:
    """Number the pages in *ranges*, from *start* on; each may be there once."""
    found = [page for first, end in ranges for page in range(first - start, end - start, PAGE)]
    assert found == sorted(set(found))
    return {page // PAGE for page in found}


@pytest.fixture
def scanned(pagemap: int) -> None:
    """Ask for a kernel that scans page tables."""
    with Area(1) as area:
        try:
            list(resident._scanned(pagemap, area.start, area.end))
        except OSError as error:
            pytest.skip(f"missing: Linux 6.7, for PAGEMAP_SCAN ({error.strerror})")


def seen_both_ways(pages: set[int], count: int) -> tuple[set[int], set[int]]:
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        with Area(count).touch(pages) as area:
            place = area.start, area.end
            return (
                pages_in(resident._scanned(descriptor, *place), area.start),
                pages_in(resident._listed(descriptor, *place), area.start),
            )
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("scanned")
@with_files
@given(pages=st.sets(st.integers(0, PAGES - 1)))
@example(pages=set())
@example(pages=set(range(PAGES)))
@example(pages={0})
@example(pages={PAGES - 1})
@example(pages=set(range(0, PAGES, 2)))
def test_both_ways_to_find_pages_agree(pages: set[int]) -> None:
    assert seen_both_ways(pages, PAGES) == (pages, pages)


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("step", [1, 2, 3, 700])
def test_more_ranges_than_are_told_at_once_are_all_found(step: int) -> None:
    count = 3 * 8192 + 5
    pages = set(range(0, count, step))

    assert seen_both_ways(pages, count) == (pages, pages)


@pytest.mark.usefixtures("scanned")
def test_what_was_only_read_is_not_there(pagemap: int) -> None:
    with Area(PAGES).touch({3}) as area:
        assert area.content().count(0) == PAGES * PAGE - 1

        assert pages_in(present(pagemap, area.start, area.end), area.start) == {3}


def test_where_the_kernel_cannot_scan_the_list_is_read(
    pagemap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_PAGEMAP_SCAN", 0xC0606655)  # which no kernel knows
    with Area(PAGES).touch({0, 5, 6}) as area:
        assert pages_in(present(pagemap, area.start, area.end), area.start) == {0, 5, 6}


def test_the_page_tables_of_who_is_gone_are_not_taken_for_empty() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        pagemap = os.open(f"/proc/{child.pid}/pagemap", os.O_RDONLY)
        [(start, end), *_] = writable_ranges(child.pid)
        child.kill()
    try:
        with pytest.raises(CaptureError):
            list(present(pagemap, start, end))
    finally:
        os.close(pagemap)


@given(st.sets(st.integers(0, 200)))
def test_ranges_are_joined_across_small_gaps_only(pages: set[int]) -> None:
    ranges = [(page * PAGE, (page + 1) * PAGE) for page in sorted(pages)]

    joined = list(resident._joined(ranges))

    covered = {page for start, end in joined for page in range(start // PAGE, end // PAGE)}
    assert pages <= covered
    assert all(any(abs(page - near) < 16 for near in pages) for page in covered)
    assert all(later[0] - sooner[1] >= 16 * PAGE for sooner, later in pairwise(joined))


def read_all(memory: Memory) -> bytes:
    """Read the core as the packers do."""
    source = memory.source(Allowance())
    found, buffer = bytearray(), bytearray(2**20)
    while claim := source.claim(buffer):
        size = source.fill(claim, buffer) if not claim.is_hole else 0
        found += bytes(claim.size) if claim.is_hole else buffer[:size]
    assert not source.cut
    return bytes(found)


def head_over(*areas: Area) -> tuple[bytes, Head]:
    """Give the head of a core of *areas*."""
    data = head_of([(area.start, area.end) for area in areas])
    return data, read_head(Stream(Sender(data).read))


@with_files
@given(st.sets(st.integers(0, 2 * PAGES - 1)), st.sets(st.integers(0, PAGES - 1)))
def test_memory_is_read_as_it_is(some: set[int], others: set[int]) -> None:
    with (
        closing(hold_process(os.getpid())) as held,
        Area(2 * PAGES).touch(some) as private,
        Area(PAGES, flags=mmap.MAP_SHARED).touch(others) as shared,
    ):
        data, head = head_over(private, shared)
        with Memory(held, head) as memory:
            taken = read_all(memory)

        assert taken == data + private.content() + shared.content()


def test_what_nobody_may_read_is_zeros_and_the_rest_is_read() -> None:
    # Longer than its file: what is behind the file's last page cannot be read.
    with tempfile.TemporaryFile() as file, closing(hold_process(os.getpid())) as held:
        file.write(b"x" * PAGE)
        file.flush()
        mapped = mmap.mmap(file.fileno(), PAGE, mmap.MAP_SHARED)
        file.truncate(0)
        start = next(s for s, e in writable_ranges(os.getpid()) if is_at(mapped, s, e))
        data = head_of([(start, start + PAGE)])
        with Memory(held, read_head(Stream(Sender(data).read))) as memory:
            assert read_all(memory) == data + bytes(PAGE)
        mapped.close()


def is_at(mapped: mmap.mmap, start: int, end: int) -> bool:
    return start <= ctypes.addressof(ctypes.c_char.from_buffer(mapped)) < end


def test_memory_that_is_not_mapped_is_left_to_the_stream() -> None:
    with closing(hold_process(os.getpid())) as held:
        with Area(PAGES) as area:
            _, head = head_over(area)

        with pytest.raises(CaptureError, match="there is no mapping at"):
            Memory(held, head)


def test_memory_that_goes_on_behind_its_mapping_is_left_to_the_stream() -> None:
    with closing(hold_process(os.getpid())) as held, Area(PAGES) as area:
        data = head_of([(area.start, area.end + PAGE)])

        with pytest.raises(CaptureError, match="there is no mapping at"):
            Memory(held, read_head(Stream(Sender(data).read)))


def test_who_ended_before_is_left_to_the_stream() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        held = hold_process(child.pid)
        data = head_of(writable_ranges(child.pid))
        child.kill()
    with closing(held), pytest.raises(CaptureError, match="cannot be opened"):
        Memory(held, read_head(Stream(Sender(data).read)))


def test_nothing_stays_open_where_memory_cannot_be_read() -> None:
    with closing(hold_process(os.getpid())) as held:
        with Area(PAGES) as area:
            _, head = head_over(area)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(CaptureError):
                Memory(held, head)

        assert len(os.listdir("/proc/self/fd")) == before
