"""A file that arrives in parts: what is there already need not come again."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import SourceError
from common.files import write_all
from common.packing.sums import crc32_of

SUFFIX = ".part"


class PartFile:
    """Owns ``FILE.part``, open, until it is whole and becomes ``FILE``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.part = path.with_name(path.name + SUFFIX)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(self.part, flags, 0o600)

    def close(self) -> None:
        """Let the file be."""
        os.close(self._file)

    def lock(self) -> None:
        """Make sure that it is a file of ours alone, and go to its end."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise SourceError(f"{self.part} is no regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(f"{self.part} is being fetched by someone else") from None
        os.lseek(self._file, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return os.fstat(self._file).st_size

    def add(self, data: bytes) -> None:
        """Put *data* at the end."""
        write_all(self._file, data)

    def checksum(self) -> str:
        """Read the file again, and give its CRC-32 as 8 hex digits."""
        return f"{crc32_of(self._file):08x}"

    def publish(self) -> None:
        """Give the file its name: it is whole."""
        os.fsync(self._file)
        os.rename(self.part, self._path)

    def discard(self) -> None:
        """Remove the file: going on with it would not help."""
        os.unlink(self.part)


@contextmanager
def part_file(path: Path, *, force: bool) -> Iterator[PartFile]:
    """Open ``FILE.part`` for *path*, and begin it where there is none.

    A *path* that is there is a `SourceError`. With *force* it is replaced, once the part is whole,
    if it is a regular file.
    """
    if os.path.lexists(path):
        if not force:
            raise SourceError(f"{path} exists already; --force replaces it")
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise SourceError(f"{path} is no regular file, so it is not replaced")
    part = PartFile(path)
    try:
        part.lock()
        yield part
    finally:
        part.close()
