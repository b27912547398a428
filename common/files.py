"""Files that others may tamper with, and files that must be whole or not there."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import BusyError, SourceError

TEMPORARY_SUFFIX = ".tmp"

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """Give a descriptor of the directory *path*."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_own_directory(directory: int, name: str) -> int:
    """Open the directory *name* of the open *directory*, which must be ours alone.

    Raises `SourceError` where others could write in it; a missing one is a FileNotFoundError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except NotADirectoryError as error:
        raise SourceError(f"{name} is no directory") from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(descriptor)
        raise SourceError(f"{name} belongs to another user, or others may enter it")
    return descriptor


def open_regular(directory: int, name: str, *, owner: int | None = None) -> int:
    """Open the regular file *name* of the open *directory* for reading.

    Anything else (a link, a FIFO, a device, a file with more than one name, or of another user than
    *owner*) is refused with `SourceError` and is never opened, only looked at. A missing file is a
    FileNotFoundError; one that somebody holds a lease on is a `BusyError`, and is not waited for.
    """
    if "/" in name or name in {"", ".", ".."}:
        raise SourceError(f"{name!r} is no file name")
    try:
        looked_at = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(f"it cannot be looked at: {error.strerror}") from error
    try:
        status = os.fstat(looked_at)
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{_KINDS.get(stat.S_IFMT(status.st_mode), 'not a file')}")
        if status.st_nlink > 1:
            raise SourceError("a file with more than one name (hard link)")
        if owner is not None and status.st_uid != owner:
            raise SourceError("it belongs to another user")
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{looked_at}", flags)
        except BlockingIOError as error:
            raise BusyError("somebody holds a lease on it") from error
        except OSError as error:
            raise SourceError(f"it cannot be opened: {error.strerror}") from error
    finally:
        os.close(looked_at)


def refuse_if_being_written(descriptor: int, *, settled_for: float, now: float) -> None:
    """Raise `BusyError` while someone has the open file *descriptor* open for writing.

    A read lease tells (fcntl(2), F_SETLEASE). Where there are no leases (network file systems,
    files of others without CAP_LEASE), a file counts as written once it has not changed for
    *settled_for* seconds before *now*.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise BusyError("it is still being written") from error
        if os.fstat(descriptor).st_mtime > now - settled_for:
            raise BusyError("it may still be being written") from error
    else:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def create(directory: int, name: str, mode: int = 0o600) -> int:
    """Create *name* in the open *directory*, which must not have it, and open it for both."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=directory)


def remove(directory: int, name: str) -> bool:
    """Remove *name* from the open *directory*; say whether it was there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def exists(directory: int, name: str) -> bool:
    """Say whether the open *directory* has *name*, whatever it is."""
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of *data* at the file's place."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(directory: int, name: str, data: bytes, mode: int = 0o600) -> None:
    """Put *data* under *name* in the open *directory*: whole, or not at all if we are killed."""
    _replace(directory, name, data, mode, is_synced=False)


def write_durably(directory: int, name: str, data: bytes, mode: int = 0o600) -> None:
    """Put *data* under *name* in the open *directory*: whole and synced, or not at all.

    The rename itself is durable once the directory is synced.
    """
    _replace(directory, name, data, mode, is_synced=True)


def _replace(directory: int, name: str, data: bytes, mode: int, *, is_synced: bool) -> None:
    temporary = f".{name}{TEMPORARY_SUFFIX}"
    remove(directory, temporary)
    descriptor = create(directory, temporary, mode)
    try:
        write_all(descriptor, data)
        if is_synced:
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        remove(directory, temporary)
        raise
    finally:
        os.close(descriptor)


def read_limited(directory: int, name: str, limit: int, *, owner: int | None = None) -> bytes:
    """Read the file *name* of the open *directory*, a regular file of at most *limit* bytes.

    Raises `SourceError` where it is anything else, or not *owner*'s.
    """
    with open(open_regular(directory, name, owner=owner), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SourceError(f"larger than {limit} bytes")
    return data
