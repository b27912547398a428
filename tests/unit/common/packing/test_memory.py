"""What packing takes of memory, as the kernel counts it for a process of its own."""

import subprocess
import sys

import pytest

from common.item import CodecName
from tests.unit.common.packing.cases import each_codec

MOST = 64 * 2**10
"""KiB above what the process had at its start."""

PROGRAM = """
import os, sys
from common.packing.codec import BLOCK
from common.packing.crew import Crew
from common.packing.packer import pack
from common.packing.reader import PackedReader
from common.packing.registry import CODECS
from common.packing.restoring import restore, unpacked
from common.packing.sources import FileSource, StreamSource

codec, workers = CODECS[sys.argv[1]], int(sys.argv[2])

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

def temporary():
    return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)

def zeros(number):
    for _ in range(number):
        yield bytes(BLOCK)

def noise(number):
    block = os.urandom(BLOCK)
    for place in range(number):
        yield block[place * 1000:] + block[:place * 1000]

def text(number):
    piece = os.urandom(100)
    block = b"".join(piece + b"a core " * 20 for _ in range(BLOCK // 240))
    for place in range(number):
        yield block[place:] + block[:place]

target, start = temporary(), status("VmRSS")
with Crew(workers) as crew:
    sparse = temporary()
    for place in range(0, 1024, 64):
        os.pwrite(sparse, b"data", place * BLOCK)
    os.ftruncate(sparse, 1024 * BLOCK)
    for source in (
        FileSource(sparse),
        StreamSource.of(zeros(1024)),
        StreamSource.of(text(200)),
        StreamSource.of(noise(300)),
    ):
        os.ftruncate(target, 0)
        pack(source, target, codec, crew)
        print(type(source).__name__, status("VmHWM") - start)
read = sum(len(block) for block in unpacked(target, workers=workers))
assert read == 300 * BLOCK
restore(target, temporary(), workers=workers)
print("restored", status("VmHWM") - start)
"""


@each_codec
@pytest.mark.parametrize("workers", [2, 8])
def test_packing_takes_a_bounded_amount_of_memory_however_large_the_core(
    codec: CodecName, workers: int
) -> None:
    words = [sys.executable, "-c", PROGRAM, codec, str(workers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stderr
    grown = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert max(grown.values()) <= MOST, done.stdout
