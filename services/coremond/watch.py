"""The crash directory: which files in it are cores that may be waiting, and when one is new."""

import os
from pathlib import Path

from inotify_simple import INotify, flags

from common.naming import is_core_name

_WATCHED = flags.CLOSE_WRITE | flags.MOVED_TO | flags.ONLYDIR | flags.DELETE_SELF | flags.MOVE_SELF


class CrashDirectory:
    """Owns the watch on the crash directory, and the descriptor it is read by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._events = INotify(nonblocking=True)
        self._watch = -1
        self._open()

    def close(self) -> None:
        """End the watch."""
        self._events.close()
        os.close(self.descriptor)

    def fileno(self) -> int:
        """Give a descriptor that is readable when something has changed."""
        descriptor: int = self._events.fileno()
        return descriptor

    def changed(self) -> set[str] | None:
        """Give the names of cores that were completed since; None if all must be looked at."""
        names: set[str] = set()
        everything = False
        for event in self._events.read(timeout=0):
            if event.mask & (flags.Q_OVERFLOW | flags.DELETE_SELF | flags.MOVE_SELF):
                everything = True
            elif event.wd == self._watch and is_core_name(event.name):
                names.add(event.name)
        return None if everything else names

    def names(self) -> set[str]:
        """Give the names of all cores that are there, complete or not.

        A directory that was replaced under its path is followed.
        """
        here, there = os.fstat(self.descriptor), os.stat(self.path)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            os.close(self.descriptor)
            self._open()
        return {name for name in os.listdir(self.descriptor) if is_core_name(name)}

    def _open(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._watch = self._events.add_watch(f"/proc/self/fd/{self.descriptor}", _WATCHED)
