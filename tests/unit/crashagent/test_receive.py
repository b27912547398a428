import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.disk import MOST_HOLES, DiskLimits
from common.item import Encoding
from common.packing.codec import BLOCK
from common.packing.crew import Crew
from common.packing.sources import StreamSource
from common.packing.sparse import PAGE
from common.packing.sums import sums_of
from common.settings import Floor
from services.crashagent.part import open_part
from services.crashagent.process import Held
from services.crashagent.receive import Limits, Received, receive
from tests.unit.factories import core_in, memory_file, small_disk
from tests.unit.heads import Area, head_of, hold_process

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


@pytest.fixture(params=["raw", "gzip", "zstd", "lz4"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """How what comes in is written."""
    chosen: Encoding = request.param
    return chosen


def taken_in(
    source: int,
    part: int,
    encoding: Encoding,
    is_stopped: Callable[[], bool] = never,
    **changes: Any,
) -> tuple[str, bytes]:
    """Receive *source* into the file *part*; give why it was cut, and the core that is there."""
    with Crew(2) as crew:
        packed, why, _ = receive(
            source, open_part(part, encoding, crew), limits(**changes), is_stopped
        )
    content = core_in(part)
    if packed:
        sums = sums_of(part)
        assert (packed.size, packed.packed, packed.crc32) == (len(content), sums.size, sums.crc32)
        assert packed.cut == why
    assert (packed is None) == (encoding == "raw")
    return why, content


def received(content: bytes, encoding: Encoding = "gzip", **changes: Any) -> tuple[str, bytes]:
    with memory_file(content) as source, memory_file() as part:
        return taken_in(source, part, encoding, **changes)


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
def test_a_core_that_ends_is_whole(content: bytes, encoding: Encoding) -> None:
    assert received(content, encoding) == ("", content)


def test_pages_of_zeros_become_holes_where_nothing_is_packed(tmp_path: Path) -> None:
    part = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    with memory_file(NOISE[:PAGE] + bytes(BLOCK * 2) + NOISE[:PAGE]) as source:
        taken_in(source, part, "raw")
    os.close(part)

    status = (tmp_path / "part").stat()
    assert status.st_size == 2 * PAGE + 2 * BLOCK
    assert status.st_blocks * 512 <= 6 * PAGE


def test_a_sender_that_falls_silent_costs_what_it_did_not_send(
    pipe: Pipe, encoding: Encoding
) -> None:
    os.write(pipe[1], b"so far")

    with memory_file() as part:
        taken = taken_in(pipe[0], part, encoding, idle=0.01)

    assert taken == ("its sender said nothing for 0.01 s", b"so far")


def test_a_sender_that_drips_for_ever_is_cut_off(pipe: Pipe, encoding: Encoding) -> None:
    def drip() -> bool:
        os.write(pipe[1], b"x")
        return False

    with memory_file() as part:
        why, content = taken_in(pipe[0], part, encoding, drip, whole=0.02)

    assert why == "it took longer than 0.02 s to come in"
    assert set(content) == {ord("x")}


def test_a_core_of_zeros_without_end_is_cut_off() -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    try:
        with memory_file() as part:
            why, content = taken_in(endless, part, "raw", whole=0.01)

            assert os.fstat(part).st_blocks == 0
    finally:
        os.close(endless)
    assert why == "it took longer than 0.01 s to come in"
    assert not any(content)


def test_a_stop_keeps_what_came(pipe: Pipe, encoding: Encoding) -> None:
    os.write(pipe[1], b"so far")
    answers = iter([False, True])

    with memory_file() as part:
        taken = taken_in(pipe[0], part, encoding, lambda: next(answers))

    assert taken == ("crashagent was stopped while the core came in", b"so far")


def test_a_core_with_too_much_data_is_cut(encoding: Encoding) -> None:
    why, content = received(NOISE * 4, encoding, max_core=2 * BLOCK)

    assert why == f"it has more than {2 * BLOCK} bytes of data"
    assert content == NOISE * 2


def test_a_core_with_exactly_as_much_data_as_it_may_have_is_whole() -> None:
    assert received(NOISE * 2, max_core=2 * BLOCK) == ("", NOISE * 2)


def test_zeros_do_not_count_as_data() -> None:
    content = NOISE + bytes(4 * BLOCK) + NOISE[: BLOCK - 1]

    assert received(content, max_core=2 * BLOCK) == ("", content)


def test_a_core_of_nothing_but_zeros_is_cut_where_it_is_too_long() -> None:
    why, content = received(bytes(MOST_HOLES * BLOCK + 1), max_core=BLOCK)

    assert why == f"it is longer than {MOST_HOLES * BLOCK} bytes"
    assert len(content) == MOST_HOLES * BLOCK


def test_a_disk_that_must_keep_more_free_takes_nothing(encoding: Encoding) -> None:
    taken = received(NOISE, encoding, keep_free=2**62)

    assert taken == ("the disk must keep more space free", b"")


def test_a_disk_that_fills_up_keeps_what_came(tmp_path: Path, encoding: Encoding) -> None:
    content = NOISE * 3
    disk_size = 2 * BLOCK + 64 * 1024
    with small_disk(tmp_path / "disk", disk_size) as disk, memory_file(content) as source:
        part = os.open(disk / "part", os.O_RDWR | os.O_CREAT)
        why, kept = taken_in(source, part, encoding)
        os.close(part)

    assert why == "it could not be taken further: No space left on device"
    assert kept in {NOISE, NOISE * 2}


def test_a_source_that_breaks_keeps_what_came(encoding: Encoding) -> None:
    directory = os.open("/", os.O_RDONLY)
    try:
        with memory_file() as part:
            taken = taken_in(directory, part, encoding)
    finally:
        os.close(directory)

    assert taken == ("it could not be taken further: Is a directory", b"")


def test_a_sender_that_writes_in_odd_pieces_is_read_as_one(encoding: Encoding) -> None:
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
            taken = taken_in(reading, part, encoding, send_next)
    os.close(reading)

    assert taken == ("", content)


class Half(Held):
    """A process of ours, of which less can be read than it has."""

    def __init__(self, lacking: str) -> None:
        self._held = hold_process(os.getpid())
        self._lacking = lacking

    def close(self) -> None:
        self._held.close()

    def open(self, name: str) -> int:
        if name == self._lacking:
            return os.memfd_create("nothing")
        return self._held.open(name)


@pytest.fixture
def areas() -> Iterator[tuple[Area, Area]]:
    """Give memory that is shared, and memory that is ours alone, each with something in it."""
    pages = 2 * BLOCK // PAGE
    with Area(pages, flags=mmap.MAP_SHARED) as shared, Area(pages) as private:
        yield shared.touch(range(pages)), private.touch(range(0, pages, 3))


def taken_from(
    held: Held, stream: bytes, encoding: Encoding, *, resident: bool = True
) -> tuple[Received, bytes, int]:
    """Take a core that comes as *stream*; give what came of it, and how much of that was read."""
    with closing(held), memory_file(stream) as source, memory_file() as part, Crew(2) as crew:
        how = replace(limits(), resident=resident)
        received = receive(source, open_part(part, encoding, crew), how, never, held)
        return received, core_in(part), os.lseek(source, 0, os.SEEK_CUR)


def test_memory_is_read_from_the_process_and_only_the_head_from_its_stream(
    areas: tuple[Area, Area], encoding: Encoding
) -> None:
    head = head_of([(area.start, area.end) for area in areas])
    lie = head + b"?" * 4 * BLOCK

    received, content, read = taken_from(hold_process(os.getpid()), lie, encoding)

    assert (received.cut, received.capture) == ("", "resident")
    assert content == head + b"".join(area.content() for area in areas)
    assert read <= len(head)


def test_memory_is_not_read_where_it_is_not_to_be(
    areas: tuple[Area, Area], encoding: Encoding
) -> None:
    stream = head_of([(area.start, area.end) for area in areas]) + NOISE * 4

    received, content, _ = taken_from(hold_process(os.getpid()), stream, encoding, resident=False)

    assert (received.cut, received.capture, content) == ("", "stream", stream)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("maps", "stream: there is no mapping at"),
        ("pagemap", "stream: its page tables end too soon"),  # what is shared was taken before
    ],
)
def test_whatever_memory_lacks_every_byte_of_the_stream_is_kept(
    areas: tuple[Area, Area], encoding: Encoding, lacking: str, reason: str
) -> None:
    stream = head_of([(area.start, area.end) for area in areas]) + NOISE * 4

    received, content, _ = taken_from(Half(lacking), stream, encoding)

    assert received.cut == ""
    assert received.capture.startswith(reason)
    assert content == stream


class Ended(Half):
    """A process of ours that is killed once its memory was read up to the address *end*."""

    def __init__(self, end: int) -> None:
        super().__init__("")
        self._end = end

    def open(self, name: str) -> int:
        if name != "mem":
            return super().open(name)
        read_so_far = os.memfd_create("mem")
        os.ftruncate(read_so_far, self._end)
        return read_so_far


def test_who_is_killed_while_its_memory_is_read_leaves_what_was_read(encoding: Encoding) -> None:
    with Area(12 * BLOCK // PAGE) as area:
        area.touch(range(12 * BLOCK // PAGE))
        head = head_of([(area.start, area.end)])

        received, content, _ = taken_from(Ended(area.start + 8 * BLOCK), head, encoding)

    assert received.cut == "the process was killed while its memory was read"
    assert received.capture == "resident"
    assert head + bytes(9 * BLOCK) > content > head + bytes(6 * BLOCK)


@pytest.mark.parametrize(
    "stream",
    [b"", b"\x7fELF", b"no core at all" * 999, head_of([(PAGE, 9 * PAGE)])[:-PAGE] + b"more"],
    ids=["nothing", "little", "no core", "memory that is not there"],
)
def test_what_has_no_head_is_taken_as_it_comes(stream: bytes, encoding: Encoding) -> None:
    received, content, _ = taken_from(hold_process(os.getpid()), stream, encoding)

    assert received.cut == ""
    assert received.capture.startswith("stream: ")
    assert content == stream


def test_who_falls_silent_in_its_headers_loses_none_of_them(pipe: Pipe, encoding: Encoding) -> None:
    said = head_of([(PAGE, 9 * PAGE)])[:100]
    os.write(pipe[1], said)

    with closing(hold_process(os.getpid())) as held, memory_file() as part, Crew(2) as crew:
        how = limits(idle=0.01)
        received = receive(pipe[0], open_part(part, encoding, crew), how, never, held)

        assert received.cut == "its sender said nothing for 0.01 s"
        assert core_in(part) == said


def test_to_begin_anew_forgets_all_that_came(encoding: Encoding) -> None:
    with memory_file() as file, Crew(2) as crew:
        part = open_part(file, encoding, crew)
        part.fill(StreamSource.of([NOISE * 3]), lambda: None)
        part.restart()
        part.fill(StreamSource.of([b"another"]), lambda: None)
        packed = part.end("")

        assert core_in(file) == b"another"
        if packed:
            sums = sums_of(file)
            found = packed.size, packed.packed, packed.crc32
            assert found == (len(b"another"), sums.size, sums.crc32)
