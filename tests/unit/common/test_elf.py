import os
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.elf import CoreNotes, read_notes
from tests.unit.factories import (
    elf_core,
    elf_header,
    elf_segment,
    memory_file,
    note,
    without_deadline,
)

SHAPES = [
    {"wide": wide, "order": order, "many": many, "small_ids": small_ids}
    for wide, small_ids in ((True, False), (False, False), (False, True))
    for order in "<>"
    for many in (False, True)
]

every_shape = pytest.mark.parametrize(
    "shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values()))
)


def notes_of(content: bytes) -> CoreNotes | None:
    with memory_file(content) as descriptor:
        return read_notes(partial(os.pread, descriptor))


@every_shape
def test_a_core_tells_whose_it_is(shape: dict[str, Any]) -> None:
    core = elf_core(**shape, pid=9, tid=10, signal=11, uid=1000, gid=100)

    notes = notes_of(core)

    assert notes is not None
    assert replace(notes, expected_size=0) == CoreNotes(
        pid=9,
        tid=10,
        uid=1000,
        gid=100,
        signal=11,
        comm="observer",
        cmdline="observer --all",
    )
    # The section header at the end, in a core of many segments, may be counted or not.
    section = 0 if not shape["many"] else 64 if shape["wide"] else 40
    assert notes.expected_size in {len(core), len(core) - section}


@every_shape
def test_a_core_cut_short_anywhere_behind_its_header_still_says_what_is_missing(
    shape: dict[str, Any],
) -> None:
    core = elf_core(**{**shape, "many": False})
    header = 64 if shape["wide"] else 52

    for length in range(header, len(core)):
        notes = notes_of(core[:length])

        assert notes is not None, length
        assert notes.expected_size > length


@pytest.mark.parametrize("wide", [True, False])
def test_a_core_of_many_segments_cut_before_their_number_is_still_a_core(wide: bool) -> None:
    core = elf_core(wide=wide, many=True)

    notes = notes_of(core[:-70])

    assert notes is not None
    assert notes.expected_size > len(core) - 70


def test_a_core_whose_last_note_is_cut_keeps_what_the_first_told() -> None:
    core = elf_core(memory=b"")

    notes = notes_of(core[:-100])

    assert notes is not None
    assert (notes.tid, notes.signal) == (10, 11)


@every_shape
def test_no_flipped_bit_does_any_harm(shape: dict[str, Any]) -> None:
    core = elf_core(**shape)
    found = []

    with memory_file(core) as descriptor:
        for place in range(len(core)):
            for bit in range(8):
                os.pwrite(descriptor, bytes([core[place] ^ 1 << bit]), place)
                found.append(read_notes(partial(os.pread, descriptor)))
            os.pwrite(descriptor, core[place : place + 1], place)

    assert len(found) == 8 * len(core)
    assert all(notes is None or notes.expected_size >= 0 for notes in found)


@without_deadline
@given(st.binary(max_size=300))
def test_random_bytes_are_no_core(content: bytes) -> None:
    assert notes_of(content) is None


@without_deadline
@given(st.sampled_from(SHAPES), st.binary(max_size=300))
def test_random_bytes_behind_a_header_do_no_harm(shape: dict[str, Any], content: bytes) -> None:
    header = elf_header(shape["wide"], shape["order"], 4)

    notes = notes_of(header + content)

    assert notes is None or notes.expected_size > 0


@without_deadline
@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=200)), max_size=6))
def test_notes_of_any_length_do_no_harm(written: list[tuple[int, bytes]]) -> None:
    body = b"".join(note("<", kind, content) for kind, content in written)
    content = elf_header(True, "<", 1) + elf_segment(True, "<", 4, 120, len(body)) + body

    notes = notes_of(content)

    assert notes is not None
    assert notes.expected_size == 120 + len(body)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 60, b"#!/bin/sh\n" * 9, bytes(4096)],
    ids=["empty", "magic", "bad-class", "script", "zeros"],
)
def test_what_is_no_core_is_none(content: bytes) -> None:
    assert notes_of(content) is None


def test_a_program_is_no_core() -> None:
    program = os.open("/bin/sh", os.O_RDONLY)
    try:
        assert read_notes(partial(os.pread, program)) is None
    finally:
        os.close(program)


def test_a_name_is_hostile_bytes_up_to_its_zero() -> None:
    notes = notes_of(elf_core(comm=b"a\xff\n\0hidden"))

    assert notes is not None
    assert notes.comm == "a\\xff\n"


def test_segments_that_lie_about_their_places_end_nothing() -> None:
    core = elf_core()
    lying = elf_header(True, "<", 3) + b"".join(
        elf_segment(True, "<", kind, 2**64 - 1, 2**64 - 1) for kind in (1, 4, 4)
    )

    assert notes_of(core) is not None
    notes_of(lying)


def test_a_segment_that_cannot_be_is_passed_over() -> None:
    body = note("<", 1, bytes(336))
    start = 64 + 2 * 56
    content = (
        elf_header(True, "<", 2)
        + elf_segment(True, "<", 4, 2**63, 64)
        + elf_segment(True, "<", 4, start, len(body))
        + body
    )

    notes = notes_of(content)

    assert notes is not None
    assert notes.tid == 0


def test_what_is_read_of_a_hostile_core_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    count, blob = 200, b"\0" * 65536
    start = 64 + count * 56
    segments = elf_segment(True, "<", 4, start, len(blob)) * count
    content = elf_header(True, "<", count) + segments + blob
    read, pread = 0, os.pread

    def counting(descriptor: int, size: int, place: int) -> bytes:
        nonlocal read
        found = pread(descriptor, size, place)
        read += len(found)
        return found

    with memory_file(content) as descriptor:
        monkeypatch.setattr(os, "pread", counting)
        notes = read_notes(partial(os.pread, descriptor))

    assert notes is not None
    assert read <= 2 * len(content)
