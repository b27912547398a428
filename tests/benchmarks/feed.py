"""Write a core to the standard output as the kernel writes one into a pipe: feed.py CORE.

What is a hole in the file becomes literal zeros, which are not read from anywhere.
"""

import os
import sys

AT_ONCE = 2**20


def main(path: str) -> None:
    """Write it all."""
    zeros = memoryview(bytes(AT_ONCE))
    with open(path, "rb") as file:
        core, place = file.fileno(), 0
        size = os.fstat(core).st_size
        while place < size:
            try:
                start = os.lseek(core, place, os.SEEK_DATA)
            except OSError:  # nothing but a hole from here on
                start = size
            end = os.lseek(core, start, os.SEEK_HOLE) if start < size else size
            while place < start:
                place += os.write(1, zeros[: start - place])
            while place < end:
                place += os.sendfile(1, core, place, min(AT_ONCE, end - place))


if __name__ == "__main__":
    main(sys.argv[1])
