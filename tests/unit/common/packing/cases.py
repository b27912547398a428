"""Cores of every shape, how they are packed for a test, and what watches over the packing."""

import os
import queue
import random
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st

from common.item import CodecName, Packed
from common.packing.codec import BLOCK
from common.packing.crew import Crew
from common.packing.packer import Packer
from common.packing.registry import CODECS
from common.packing.sources import Allowance, FileSource, Source, StreamSource
from common.packing.sparse import PAGE
from common.packing.transcoding import PackedSource
from tests.unit.factories import content_of, memory_file

T = TypeVar("T")

RANDOM = random.Random(11)
NOISE = RANDOM.randbytes(BLOCK)
TEXT = (b"a core " * (BLOCK // 7 + 1))[:BLOCK]

Range = tuple[int, bytes]
"""What stands at a place of a block; the rest of it is a hole."""

PIECES: dict[str, tuple[Range, ...]] = {
    "hole": (),
    "zeros": ((0, bytes(BLOCK)),),
    "noise": ((0, NOISE),),
    "text": ((0, TEXT),),
    "ones": ((0, b"\1" * BLOCK),),
    "one page": ((BLOCK // 2, NOISE[:PAGE]),),
    "the first page": ((0, NOISE[:PAGE]),),
    "the last page": ((BLOCK - PAGE, NOISE[:PAGE]),),
    "two ranges": ((PAGE, NOISE[: 3 * PAGE]), (BLOCK // 2, TEXT[: 5 * PAGE])),
}
TAILS: dict[str, bytes] = {
    "nothing": b"",
    "a byte": b"x",
    "a zero": bytes(1),
    "a page": NOISE[:PAGE],
    "a page of zeros": bytes(PAGE),
    "all but a byte": NOISE[: BLOCK - 1],
    "odd": TEXT[:70_001],
}
CODEC_NAMES: tuple[CodecName, ...] = ("gzip", "zstd", "lz4")

each_codec = pytest.mark.parametrize("codec", CODEC_NAMES)
codecs = st.sampled_from(CODEC_NAMES)
workers = st.sampled_from([1, 2, 4])
piece_sizes = st.lists(
    st.sampled_from([1000, PAGE, 65_537, 333_333, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True, slots=True)
class Core:
    """What a test packs, as the names of its pieces."""

    pieces: tuple[str, ...]
    tail: str = "nothing"
    ends_in_hole: int = 0
    """Bytes of a hole at its end."""

    @property
    def content(self) -> bytes:
        content = bytearray()
        for name in self.pieces:
            block = bytearray(BLOCK)
            for place, data in PIECES[name]:
                block[place : place + len(data)] = data
            content += block
        return bytes(content) + TAILS[self.tail] + bytes(self.ends_in_hole)

    @property
    def data(self) -> int:
        """Bytes in blocks that are not all zeros."""
        content = self.content
        blocks = (content[place : place + BLOCK] for place in range(0, len(content), BLOCK))
        return sum(len(block) for block in blocks if any(block))

    @contextmanager
    def file(self) -> Iterator[int]:
        """Give an open file of it, whose holes are holes."""
        with memory_file() as file:
            for number, name in enumerate(self.pieces):
                for place, data in PIECES[name]:
                    os.pwrite(file, data, number * BLOCK + place)
            size = len(self.pieces) * BLOCK
            os.pwrite(file, TAILS[self.tail], size)
            os.ftruncate(file, size + len(TAILS[self.tail]) + self.ends_in_hole)
            yield file

    def stream(self, sizes: list[int]) -> Iterator[bytes]:
        """Give it in pieces of *sizes*, an empty one among them now and then."""
        content, place = self.content, 0
        for size in cycle([*sizes, 0]):
            if place >= len(content):
                return
            yield content[place : place + size]
            place += size


cores = st.builds(
    Core,
    st.lists(st.sampled_from([*PIECES]), max_size=6).map(tuple),
    st.sampled_from([*TAILS]),
    st.sampled_from([0, 0, 1, PAGE, 3 * BLOCK + 7]),
)


class Result(NamedTuple):
    """What packing gave."""

    facts: Packed
    file: bytes


def pack(source: Source, codec: CodecName, workers: int = 1) -> Result:
    """Pack all of *source*."""
    with Crew(workers) as crew, memory_file() as target:
        packer = Packer(target, CODECS[codec], crew)
        packer.run(source)
        return Result(packer.end(source.cut), content_of(target))


def packed(content: bytes, codec: CodecName) -> bytes:
    """Pack *content*, and give the file."""
    return pack(StreamSource.of([content]), codec).file


@contextmanager
def source_of(core: Core, kind: str, sizes: list[int]) -> Iterator[Source]:
    """Give *core* as a source: a file, a stream, or packed by one of ours."""
    if kind == "file":
        with core.file() as file:
            yield FileSource(file)
    elif kind == "stream":
        yield StreamSource.of(core.stream(sizes))
    else:
        with memory_file(packed(core.content, _codec(kind))) as file:
            yield packed_source(file, _codec(kind))


def packed_source(
    descriptor: int, codec: CodecName, allowance: Allowance | None = None
) -> PackedSource:
    units = CODECS[codec].units(descriptor)
    return PackedSource(descriptor, CODECS[codec], units, allowance or Allowance())


def _codec(name: str) -> CodecName:
    return next(codec for codec in CODEC_NAMES if codec == name)


SOURCES = ["file", "stream", *CODEC_NAMES]


def within_seconds(function: Callable[[], T], seconds: float = 30) -> T:
    """Call *function*, and fail where it does not come back."""
    results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            results.put((function(), None))
        except BaseException as error:  # it is raised below
            results.put((None, error))

    threading.Thread(target=call, daemon=True, name="within").start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        pytest.fail(f"it has not come back within {seconds} s")
    if error:
        raise error
    return result  # type: ignore[return-value]


def are_free(crew: Crew) -> bool:
    """Say whether all helpers of *crew* have nothing to do: they all come when they are called."""
    meeting = threading.Barrier(crew.workers)

    def come() -> None:
        meeting.wait(5)

    helpers = crew.helping(come, crew.workers - 1)
    try:
        meeting.wait(5)
    except threading.BrokenBarrierError:
        return False
    return all(helper.exception(5) is None for helper in helpers)


def row_of(blocks: list[bytes], codec: CodecName) -> bytes:
    """Pack *blocks* of any size as a unit each, though ours but the last hold `BLOCK` bytes."""
    pack_one = CODECS[codec].packer()
    units = [b"".join(pack_one(memoryview(block))) for block in blocks]
    sizes = [(len(unit), len(block)) for unit, block in zip(units, blocks, strict=True)]
    return b"".join(units) + (seek_table(len(sizes), *sizes) if codec == "zstd" else b"")


def seek_table(number: int, *entries: tuple[int, int]) -> bytes:
    """Write the table of zstd's seekable format, as if it had *number* entries."""
    body = b"".join(struct.pack("<II", *entry) for entry in entries)
    return (
        struct.pack("<II", 0x184D2A5E, (8 * number + 9) & 0xFFFFFFFF)
        + body
        + struct.pack("<IBI", number, 0, 0x8F92EAB1)
    )


ODD_ROWS: dict[str, list[bytes]] = {
    "small ones": [b"first", b"second" * 100],
    "a small one before a block": [b"first", NOISE],
    "a small one between blocks": [NOISE, TEXT[:70_000], bytes(BLOCK), b"end"],
    "all but a byte of a block": [NOISE, TEXT[:-1], NOISE],
    "empty ones only": [b"", b""],
    "an empty one at the beginning": [b"", b"first"],
    "an empty one before a block": [b"", NOISE, b"end"],
    "an empty one at the end": [NOISE, b""],
    "an empty one behind the last": [NOISE, b"last", b""],
    "an empty one between blocks": [NOISE, b"", TEXT],
    "all of it": [b"", b"first", bytes(10_000), b"", NOISE[:70_000], bytes(3), TEXT[:9], b""],
}
"""Units as we do not make them: each is a file of its format, and so is the row of them."""

each_odd_row = pytest.mark.parametrize("blocks", ODD_ROWS.values(), ids=ODD_ROWS)
