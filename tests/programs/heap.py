"""A Python program with a live heap that crashes: heap.py KIND MIB [wait].

KIND says what the heap holds: ``dense`` is objects and text; ``mixed`` has a third of zeroed
buffers between them; ``random`` is bytes that no packer makes smaller; ``sparse`` maps MIB and has
200 MiB of things at most, a half of them spread over what it maps. With ``wait`` it says when it is
ready, and waits to be killed.
"""

import ctypes
import gc
import json
import mmap
import os
import random
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20
PART = 256  # things of one kind that lie together
FILLED = 200  # MiB of a sparse heap
PIECE = 2**16  # bytes that lie together in what a sparse heap maps
NORESERVE = 0x4000  # mmap(2); the module has no name for it

choose = random.Random(11)


def words() -> list[str]:
    """Take the words of the standard library's own text."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"))
    return re.findall(r"[A-Za-z_]{3,16}", "".join(path.read_text("utf-8") for path in paths))


class Session:
    """What a server might hold of a client."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.token = choose.randbytes(16).hex()
        self.address = f"10.{choose.randrange(256)}.{choose.randrange(256)}.{choose.randrange(256)}"
        self.scores = [choose.random() for _ in range(8)]
        self.peers = tuple(choose.randrange(2**32) for _ in range(8))


def log_line(vocabulary: list[str], number: int) -> str:
    """Write a line as a server logs it."""
    moment = f"2026-11-22T16:{number // 60 % 60:02}:{number % 60:02}.{choose.randrange(10**6):06}"
    text = " ".join(choose.choices(vocabulary, k=12))
    return f"{moment} {choose.choice(vocabulary)}[{number}]: {text}"


def message(vocabulary: list[str], number: int) -> bytes:
    """Write a message as a server sends it."""
    fields = {
        "id": number,
        "name": choose.choice(vocabulary),
        "tags": choose.choices(vocabulary, k=4),
        "value": choose.random(),
    }
    return json.dumps(fields).encode()


def parts() -> Iterator[list[object]]:
    """Give things as a server holds them, without an end; those of one kind lie together."""
    vocabulary, number = words(), 0
    while True:
        numbers = range(number, number + PART)
        yield [Session(n) for n in numbers]
        yield [log_line(vocabulary, n) for n in numbers]
        yield [message(vocabulary, n) for n in numbers]
        yield [dict.fromkeys(choose.choices(vocabulary, k=6), n) for n in numbers]
        number += PART


def resident() -> int:
    """Say how many bytes this process has in memory: proc(5), statm."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def fill(limit: int, *, zeros: bool = False) -> list[object]:
    """Make things until *limit* bytes are in memory; a third of them is zero if *zeros*."""
    kept: list[object] = []
    zeroed = 0
    for part in parts():
        kept.append(part)
        if zeros and zeroed < resident() / 3:
            buffer = bytearray(choose.choice((16, 64, 256, 1024, 4096)) * 1024)
            buffer[:] = bytes(len(buffer))  # touched, so that it is in memory
            kept.append(buffer)
            zeroed += len(buffer)
        if resident() >= limit:
            break
    return kept


def spread(mapped: int, filled: int) -> mmap.mmap:
    """Map memory, and write messages into pieces of it; what is untouched is a hole in the core."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    memory, vocabulary = mmap.mmap(-1, mapped, flags=flags), words()
    number, count = 0, filled // PIECE
    for start in range(0, mapped - PIECE, mapped // count):
        piece = bytearray()
        while len(piece) < PIECE:
            piece += message(vocabulary, number)
            number += 1
        memory[start : start + PIECE] = piece[:PIECE]
    return memory


def heap(kind: str, mib: int) -> list[object]:
    """Make the heap."""
    if kind == "random":
        return [os.urandom(MIB) for _ in range(mib)]
    if kind == "sparse":
        filled = min(FILLED, mib // 4) * MIB
        return [spread(mib * MIB, filled // 2), *fill(filled)]
    return fill(mib * MIB, zeros=kind == "mixed")


def main(kind: str, mib: int, *, waits: bool) -> None:
    """Fill the heap, and crash while it lives."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    gc.disable()  # it would walk over everything again and again
    held = heap(kind, mib)
    assert held
    if waits:
        print("ready", flush=True)
        signal.pause()
    ctypes.CDLL(None).abort()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), waits="wait" in sys.argv)
