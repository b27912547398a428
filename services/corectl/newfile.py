"""A file that is made whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import SourceError
from common.files import TEMPORARY_SUFFIX, create, opened_directory, remove


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[int]:
    """Make the file *path* for the block to write; it goes again if the block fails.

    A file that is there is a `SourceError`. With *force* it is replaced, once the block is done, if
    it is a regular file.
    """
    with opened_directory(path.parent) as directory:
        name = path.name
        if force:
            _refuse_irregular(directory, name)
            name = f".{path.name}{TEMPORARY_SUFFIX}"
            remove(directory, name)
        try:
            descriptor = create(directory, name)
        except FileExistsError as error:
            what = "a directory" if path.is_dir() else "there already; --force replaces it"
            raise SourceError(f"{path} is {what}") from error
        try:
            yield descriptor
            if force:
                os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            remove(directory, name)
            raise
        finally:
            os.close(descriptor)


def _refuse_irregular(directory: int, name: str) -> None:
    try:
        mode = os.lstat(name, dir_fd=directory).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise SourceError(f"{name} is no regular file, so it is not replaced")
