import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.disk import DiskLimits
from common.packing import BLOCK, PAGE
from common.settings import Floor
from services.crashagent.receive import Limits, receive
from tests.unit.factories import content_of, memory_file, small_disk

NOISE = os.urandom(BLOCK)

Pipe = tuple[int, int]


def limits(*, idle: float = 60, whole: float = 60, max_core: int = 0, keep_free: int = 0) -> Limits:
    disk = DiskLimits(max_core=max_core, keep_free=Floor(bytes=keep_free))
    return Limits(idle_timeout=idle, timeout=whole, disk=disk)


def never() -> bool:
    return False


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def received(content: bytes, **changes: Any) -> tuple[str, bytes]:
    with memory_file(content) as source, memory_file() as part:
        why = receive(source, part, limits(**changes), never)
        return why, content_of(part)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        NOISE,
        NOISE * 2 + b"x",
        bytes(3 * PAGE),
        NOISE[:7] + bytes(PAGE),
        bytes(BLOCK * 2),
    ],
    ids=["empty", "byte", "block", "more", "zeros", "tail-of-zeros", "blocks-of-zeros"],
)
def test_a_core_that_ends_is_whole(content: bytes) -> None:
    assert received(content) == ("", content)


def test_pages_of_zeros_become_holes(tmp_path: Path) -> None:
    part = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    with memory_file(NOISE[:PAGE] + bytes(BLOCK * 2) + NOISE[:PAGE]) as source:
        receive(source, part, limits(), never)
    os.close(part)

    status = (tmp_path / "part").stat()
    assert status.st_size == 2 * PAGE + 2 * BLOCK
    assert status.st_blocks * 512 <= 6 * PAGE


def test_a_sender_that_falls_silent_costs_what_it_did_not_send(pipe: Pipe) -> None:
    os.write(pipe[1], b"so far")

    with memory_file() as part:
        why = receive(pipe[0], part, limits(idle=0.01), never)

        assert content_of(part) == b"so far"
    assert why == "its sender said nothing for 0.01 s"


def test_a_sender_that_drips_for_ever_is_cut_off(pipe: Pipe) -> None:
    def drip() -> bool:
        os.write(pipe[1], b"x")
        return False

    with memory_file() as part:
        why = receive(pipe[0], part, limits(whole=0.02), drip)

        assert set(content_of(part)) == {ord("x")}
    assert why == "it took longer than 0.02 s to come in"


def test_a_core_of_zeros_without_end_is_cut_off() -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    try:
        with memory_file() as part:
            why = receive(endless, part, limits(whole=0.01), never)

            assert os.fstat(part).st_blocks == 0
    finally:
        os.close(endless)
    assert why == "it took longer than 0.01 s to come in"


def test_a_stop_keeps_what_came(pipe: Pipe) -> None:
    os.write(pipe[1], b"so far")
    answers = iter([False, True])

    with memory_file() as part:
        why = receive(pipe[0], part, limits(), lambda: next(answers))

        assert content_of(part) == b"so far"
    assert why == "crashagent was stopped while the core came in"


def test_a_core_with_too_much_data_is_cut() -> None:
    why, content = received(NOISE * 4, max_core=2 * BLOCK)

    assert why == f"it has more than {2 * BLOCK} bytes of data"
    assert content == NOISE * 2


def test_a_core_with_exactly_as_much_data_as_it_may_have_is_whole() -> None:
    assert received(NOISE * 2, max_core=2 * BLOCK) == ("", NOISE * 2)


def test_zeros_do_not_count_as_data() -> None:
    content = NOISE + bytes(4 * BLOCK) + NOISE[: BLOCK - 1]

    assert received(content, max_core=2 * BLOCK) == ("", content)


def test_a_disk_that_must_keep_more_free_takes_nothing() -> None:
    assert received(NOISE, keep_free=2**62) == ("the disk must keep more space free", b"")


def test_a_disk_that_fills_up_keeps_what_came(tmp_path: Path) -> None:
    content = NOISE + b"y" * BLOCK
    with small_disk(tmp_path / "disk", BLOCK + 64 * 1024) as disk, memory_file(content) as source:
        part = os.open(disk / "part", os.O_RDWR | os.O_CREAT)
        why = receive(source, part, limits(), never)
        kept = content_of(part)
        os.close(part)

    assert why == "it could not be taken further: No space left on device"
    assert kept == NOISE


def test_a_source_that_breaks_keeps_what_came() -> None:
    directory = os.open("/", os.O_RDONLY)
    try:
        with memory_file() as part:
            assert receive(directory, part, limits(), never).startswith("it could not be taken")
    finally:
        os.close(directory)


def test_a_sender_that_writes_in_odd_pieces_is_read_as_one() -> None:
    reading, writing = os.pipe()
    content = NOISE[:1000] + bytes(2 * PAGE) + NOISE[:77] + bytes(PAGE - 1)
    pieces = iter([content[at : at + 999] for at in range(0, len(content), 999)])

    with open(writing, "wb", buffering=0) as sender:

        def send_next() -> bool:
            if piece := next(pieces, b""):
                sender.write(piece)
            else:
                sender.close()
            return False

        with memory_file() as part:
            why = receive(reading, part, limits(), send_next)

            assert (why, content_of(part)) == ("", content)
    os.close(reading)
