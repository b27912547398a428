"""Unpack a whole core: in order as blocks, or into a file, with holes for pages of zeros."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

from common.errors import CorruptError
from common.files import write_all
from common.packing.codec import Codec, Unit, Units
from common.packing.incoming import content, format_of
from common.packing.reader import unpack
from common.packing.registry import codec_of
from common.packing.sparse import can_seek, write_data

T = TypeVar("T")


def unpacked(descriptor: int, *, workers: int = 1) -> Iterator[bytes]:
    """Give the content of the open packed file in blocks of at most 1 MiB.

    Any file of a known format will do; one of ours is unpacked by *workers* threads. Raises
    `CorruptError` where it is not whole; what comes before it has been given by then.
    """
    ours = _ours(descriptor)
    if ours is None:
        if os.fstat(descriptor).st_size == 0:
            raise CorruptError("an empty file")
        if format_of(descriptor) == "raw":
            raise CorruptError("its first bytes, at byte 0, are of no packed core")
        return content(descriptor)
    codec, units = ours
    return _in_order((partial(unpack, descriptor, codec, unit) for unit in units), workers)


def restore(descriptor: int, target: int, *, workers: int = 1) -> int:
    """Unpack into the empty open file *target*, with holes for pages of zeros; give its size.

    Where it cannot have holes (a pipe), the zeros are written. Raises `CorruptError` as `unpacked`.
    """
    if not can_seek(target):
        size = 0
        for block in unpacked(descriptor, workers=workers):
            write_all(target, block)
            size += len(block)
        return size
    ours = _ours(descriptor)
    if ours is None:
        sizes = _restore_blocks(unpacked(descriptor), target)
    else:
        sizes = _restore_units(descriptor, target, *ours, workers)
    size = 0
    try:
        with closing(sizes):
            for more in sizes:
                size += more
    except CorruptError:
        os.ftruncate(target, size)  # what other threads wrote behind the damage goes
        raise
    os.ftruncate(target, size)
    return size


def _ours(descriptor: int) -> tuple[Codec, Units] | None:
    codec = codec_of(descriptor)
    try:
        return (codec, codec.units(descriptor)) if codec else None
    except CorruptError:
        return None  # somebody else packed it, or it is damaged: reading it in order tells where


def _restore_blocks(blocks: Iterable[bytes], target: int) -> Generator[int, None, None]:
    place = 0
    for block in blocks:
        write_data(target, block, place)
        place += len(block)
        yield len(block)


def _restore_units(
    descriptor: int, target: int, codec: Codec, units: Units, workers: int
) -> Generator[int, None, None]:
    def restore_one(unit: Unit) -> int:
        write_data(target, unpack(descriptor, codec, unit), unit.start)
        return unit.size

    return _in_order((partial(restore_one, unit) for unit in units), workers)


def _in_order(jobs: Iterable[Callable[[], T]], workers: int) -> Generator[T, None, None]:
    """Give the results of *jobs* in their order; *workers* of them are done at once."""
    if workers == 1:
        yield from (job() for job in jobs)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, "unpack") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
