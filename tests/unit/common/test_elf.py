import os
import struct
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import elf
from common.elf import CoreNotes, read_environ, read_notes
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


# The environment.

STACK = 0x7FFE0000
NAME = b"/usr/bin/observer\0"
ENVIRON = [b"PATH=/bin", b"POD_NAME=web-0", b"EMPTY=", b"A=b=c"]

every_kind = pytest.mark.parametrize(
    ("wide", "order"), [(True, "<"), (True, ">"), (False, "<"), (False, ">")]
)


def stack_core(
    strings: list[bytes],
    *,
    wide: bool = True,
    order: str = "<",
    before: bytes = b"--all\0",
    name_at: int | None = None,
    segments: int = 1,
) -> bytes:
    """Build a core with a stack that ends as the kernel makes it: arguments, environment, name.

    *name_at* is where AT_EXECFN says that the name is.
    """
    stack = before + b"".join(string + b"\0" for string in strings)
    end = STACK + len(stack) if name_at is None else name_at
    stack += NAME + bytes(8)
    pair = struct.Struct(order + ("QQ" if wide else "II"))
    auxv = b"".join(pair.pack(*each) for each in ((6, 4096), (31, end), (0, 0)))
    notes = note(order, 1, bytes(336 if wide else 144)) + note(order, 6, auxv)
    start = (64 + (1 + segments) * 56) if wide else (52 + (1 + segments) * 32)
    return (
        elf_header(wide, order, 1 + segments)
        + elf_segment(wide, order, 4, start, len(notes))
        + _loaded(wide, order, start + len(notes), len(stack)) * segments
        + notes
        + stack
    )


def _loaded(wide: bool, order: str, offset: int, size: int) -> bytes:
    if wide:
        return struct.pack(order + "IIQQQQQQ", 1, 6, offset, STACK, 0, size, size, 1)
    return struct.pack(order + "IIIIIIII", 1, offset, STACK, 0, size, size, 6, 1)


def environ_of(content: bytes) -> list[tuple[str, str]]:
    with memory_file(content) as descriptor:
        read = partial(os.pread, descriptor)
        notes = read_notes(read)
        assert notes is not None
        return read_environ(read, notes)


@every_kind
def test_a_core_tells_the_environment_that_its_program_was_started_with(
    wide: bool, order: str
) -> None:
    found = environ_of(stack_core(ENVIRON, wide=wide, order=order))

    assert found == [("PATH", "/bin"), ("POD_NAME", "web-0"), ("EMPTY", ""), ("A", "b=c")]


@pytest.mark.parametrize("string", [b"no variable", b"1A=b", b"=b", b"A-B=c", b"\xff=x", b""])
def test_what_is_no_variable_ends_the_environment(string: bytes) -> None:
    found = environ_of(stack_core([b"LOST=1", string, b"KEPT=2"]))

    assert found == [("KEPT", "2")]


def test_a_value_is_hostile_bytes() -> None:
    assert environ_of(stack_core([b"A=\xff\n="])) == [("A", "\\xff\n=")]


@every_kind
@pytest.mark.parametrize("name_at", [0, 1, STACK, STACK - 1, STACK + 10**6, 2**32 - 1])
def test_a_name_that_is_not_where_it_should_be_tells_nothing(
    wide: bool, order: str, name_at: int
) -> None:
    assert environ_of(stack_core(ENVIRON, wide=wide, order=order, name_at=name_at)) == []


@pytest.mark.parametrize("core", [elf_core(), elf_core(wide=False, order=">")])
def test_a_core_without_the_auxiliary_vector_tells_no_environment(core: bytes) -> None:
    assert environ_of(core) == []


@pytest.mark.parametrize("limit", range(4, 60))
def test_of_an_environment_without_end_the_last_part_is_read_and_no_half_variable(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(elf, "_ENVIRON_LIMIT", limit)
    strings = [b"MY_POD_NAME=" + b"x" * 14, b"A=b"]

    found = environ_of(stack_core(strings))

    whole = [("MY_POD_NAME", "x" * 14), ("A", "b")]
    assert found == whole[len(whole) - len(found) :]


@every_kind
def test_a_core_that_breaks_off_in_its_stack_tells_what_is_there(wide: bool, order: str) -> None:
    whole = stack_core(ENVIRON, wide=wide, order=order)
    expected = environ_of(whole)

    for missing in range(1, 120):
        found = environ_of(whole[:-missing])

        assert found == expected[: len(found)] or found == []


def test_no_flipped_bit_of_a_stack_does_any_harm() -> None:
    core = stack_core(ENVIRON, wide=False)

    with memory_file(core) as descriptor:
        read = partial(os.pread, descriptor)
        for place in range(len(core)):
            for bit in range(8):
                os.pwrite(descriptor, bytes([core[place] ^ 1 << bit]), place)
                notes = read_notes(read)
                found = read_environ(read, notes) if notes else []
                assert len(found) <= len(ENVIRON) + 2
            os.pwrite(descriptor, core[place : place + 1], place)


def test_segments_that_say_they_are_the_stack_are_read_once() -> None:
    core, read = stack_core(ENVIRON, segments=200), 0

    with memory_file(core) as descriptor:

        def counting(size: int, place: int) -> bytes:
            nonlocal read
            found = os.pread(descriptor, size, place)
            read += len(found)
            return found

        notes = read_notes(counting)
        assert notes
        read = 0
        assert len(read_environ(counting, notes)) == len(ENVIRON)

    assert read <= len(core)


@without_deadline
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_random_bytes_have_no_environment_that_harms(content: bytes, address: int) -> None:
    core = elf_header(True, "<", 4) + content

    with memory_file(core) as descriptor:
        read_environ(partial(os.pread, descriptor), CoreNotes(name_address=address))
