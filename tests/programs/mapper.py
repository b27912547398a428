"""A Python program that maps much and fills little, and waits to be killed: mapper.py GIB MIB.

What is filled is spread evenly, in pieces of 1 MiB of text.
"""

import mmap
import resource
import signal
import sys

MIB = 2**20
NORESERVE = 0x4000  # mmap(2); the module has no name for it


def main(gib: int, mib: int) -> None:
    """Map, fill, say so, and wait."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    mapped = max(gib * 1024, mib)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    memory = mmap.mmap(-1, mapped * MIB, flags=flags)
    for number in range(mib):
        text = b"".join(
            b"%d: a line of a log, number %d\n" % (number, line) for line in range(32768)
        )
        memory.seek(number * mapped // mib * MIB)
        memory.write(text[:MIB])
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
