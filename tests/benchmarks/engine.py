"""The process in which ours is measured: engine.py pack|plain|restore|repeat|read …; prints JSON.

The clock runs from the first byte to the last; the interpreter has started and imported by then,
and the threads are there, as in a daemon.
"""

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from isal import igzip_lib

from common.item import CodecName
from common.packing.allocator import keep_memory
from common.packing.crew import Crew
from common.packing.packer import pack
from common.packing.reader import PackedReader
from common.packing.registry import CODECS
from common.packing.restoring import restore
from common.packing.sources import FileSource, StreamSource

AT_ONCE = 2**20
READ = 4096


class Watch:
    """Measures seconds, and bytes in memory above what there were: proc(5), status."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        self._idle = _status("VmRSS")
        self._started = time.perf_counter()

    def start(self) -> None:
        """Start the clock; what came before counts as memory only."""
        self._started = time.perf_counter()

    def stop(self, packed: int) -> dict[str, Any]:
        """Say what was measured."""
        seconds = time.perf_counter() - self._started
        return {"seconds": seconds, "packed": packed, "peak": _status("VmHWM") - self._idle}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) * 1024


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def do_pack(codec: CodecName, workers: str, source: str, target: str) -> dict[str, Any]:
    """Pack a file, each file of a folder, or (-) the standard input."""
    watch = Watch()
    with Crew(int(workers)) as crew:
        watch.start()
        if source == "-":
            with opened(target, NEW) as file:
                stream = StreamSource.of(_blocks(0))
                return watch.stop(pack(stream, file, CODECS[codec], crew).packed)

        def pack_one(core: str, place: str) -> int:
            with opened(core) as descriptor, opened(place, NEW) as file:
                return pack(FileSource(descriptor), file, CODECS[codec], crew).packed

        with ThreadPoolExecutor(int(workers)) as lanes:  # a small core is packed by one thread
            return watch.stop(sum(lanes.map(pack_one, *zip(*_pairs(source, target), strict=True))))


def _pairs(source: str, target: str) -> list[tuple[str, str]]:
    if os.path.isdir(source):
        return [(f"{source}/{name}", f"{target}/{name}") for name in sorted(os.listdir(source))]
    return [(source, target)]


def _blocks(descriptor: int) -> Iterator[bytes]:
    return iter(lambda: os.read(descriptor, AT_ONCE), b"")


def do_plain(source: str, target: str) -> dict[str, Any]:
    """Do the least: one thread that reads a block, packs it with ISA-L, and writes it."""
    keep_memory()
    watch, packed = Watch(), 0
    with opened(source) as descriptor, opened(target, NEW) as file:
        place = 0
        while block := os.pread(descriptor, AT_ONCE, place):
            unit = igzip_lib.compress(block, 1, flag=igzip_lib.COMP_GZIP)
            os.write(file, unit)
            place += len(block)
            packed += len(unit)
    return watch.stop(packed)


def do_restore(workers: str, packed: str, target: str) -> dict[str, Any]:
    """Unpack a file, with holes."""
    watch = Watch()
    with opened(packed) as descriptor, opened(target, NEW) as file:
        restore(descriptor, file, workers=int(workers))
    return watch.stop(0)


def do_repeat(
    codec: CodecName, workers: str, times: str, source: str, target: str
) -> dict[str, Any]:
    """Pack a file's content again and again, as one core."""
    watch = Watch()
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(int(workers)))
        files = (stack.enter_context(opened(path)) for path in repeat(source, int(times)))
        target_file = stack.enter_context(opened(target, NEW))
        stream = StreamSource.of(chain.from_iterable(map(_blocks, files)))
        return watch.stop(pack(stream, target_file, CODECS[codec], crew).packed)


def do_read(reads: str, packed: str, source: str) -> dict[str, Any]:
    """Open a packed file and read at random places; what is read must stand in *source*."""
    choose, times = random.Random(7), []
    with opened(packed) as descriptor, opened(source) as core:
        length = os.fstat(core).st_size
        started = time.perf_counter()
        reader = PackedReader(descriptor)
        opening = time.perf_counter() - started
        for _ in range(int(reads)):
            offset = choose.randrange(reader.size - READ) // READ * READ
            started = time.perf_counter()
            data = reader.pread(READ, offset)
            times.append(time.perf_counter() - started)
            within = offset % length
            expected = os.pread(core, READ, within)
            assert data == expected + os.pread(core, READ - len(expected), 0)
        size = reader.size
    return {
        "opening": opening,
        "median": statistics.median(times),
        "worst": max(times),
        "size": size,
    }


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "pack": do_pack,
    "plain": do_plain,
    "restore": do_restore,
    "repeat": do_repeat,
    "read": do_read,
}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print(json.dumps(COMMANDS[command](*arguments)))
