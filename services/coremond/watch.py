"""A directory that sources come into: which files in it may be cores, and when one is new."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import INotify, flags

from common.errors import BusyError
from common.item import clean
from common.log import Logger
from common.packing.opened import OpenCore
from common.record import Source
from services.coremond import sources
from services.coremond.kinds import OpenSource, SourceKind, Told

log = Logger()

WATCHED = flags.CLOSE_WRITE | flags.MOVED_TO | flags.ONLYDIR | flags.DELETE_SELF | flags.MOVE_SELF


class Directory:
    """A directory that sources come into, and the descriptor it is read by."""

    def __init__(self, path: Path, kind: SourceKind, *, is_ours: bool, sources_go: bool) -> None:
        self.path = path
        self.kind = kind
        self.is_ours = is_ours
        """It is made where it is missing, and its files go when they are too old."""
        self.sources_go = sources_go
        """A source is removed once it was taken in."""
        self.descriptor = -1

    def names(self) -> set[str]:
        """Give the names of all sources that are there, complete or not."""
        return {name for name in os.listdir(self.descriptor) if self.kind.is_source(name)}

    def has(self, source: Source) -> bool:
        """Say whether the very file that *source* describes is there."""
        return sources.is_there(self.descriptor, source)

    def tidy(self) -> None:
        """Remove what crashagent left of sources that are gone."""
        if self.is_ours and self.descriptor >= 0:
            sources.remove_stale_sidecars(self.descriptor)


class SourceDirectory(Directory):
    """Owns the watch on one directory, and the descriptor it is read by.

    It need not be there: it is looked for again whenever its names are asked for, and followed when
    another is in its place.
    """

    def __init__(self, path: Path, kind: SourceKind, *, is_ours: bool, sources_go: bool) -> None:
        super().__init__(path, kind, is_ours=is_ours, sources_go=sources_go)
        self._watched = WATCHED | (flags.CREATE if kind.is_linked else 0)
        self._events = INotify(nonblocking=True)
        self._watch = -1
        self._problem = ""

    def close(self) -> None:
        """End the watch."""
        self._events.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def open(self) -> None:
        """Open the directory that is at the path now, in the place of the one before."""
        if self.is_ours and not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(0o1777)  # processes of any user leave their cores there
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self.descriptor >= 0 and os.path.sameopenfile(descriptor, self.descriptor):
                return
            watch = self._events.add_watch(f"/proc/self/fd/{descriptor}", self._watched)
            if self.descriptor < 0:
                self.descriptor = os.dup(descriptor)
            else:  # whoever uses the number in another thread may go on
                os.dup2(descriptor, self.descriptor, inheritable=False)
                with suppress(OSError):  # the one before is gone, and its watch with it
                    self._events.rm_watch(self._watch)
            self._watch = watch
        finally:
            os.close(descriptor)

    def follow(self) -> bool:
        """Open the directory that is there now; say whether one is."""
        is_there, problem = False, ""
        try:
            self.open()
            is_there = True
        except FileNotFoundError:
            pass  # it may come
        except OSError as error:
            problem = error.strerror or str(error)
        if problem and problem != self._problem:
            log.error(
                "source directory not read",
                path=self.path,
                reason=problem,
                effect="tried again at each look through",
            )
        self._problem = problem
        return is_there

    def fileno(self) -> int:
        """Give a descriptor that is readable when something has changed."""
        descriptor: int = self._events.fileno()
        return descriptor

    def changed(self) -> set[str] | None:
        """Give the names of sources that were completed since; None if all must be looked at."""
        names: set[str] = set()
        everything = False
        for event in self._events.read(timeout=0):
            if event.mask & (flags.Q_OVERFLOW | flags.DELETE_SELF | flags.MOVE_SELF):
                everything = True
            elif event.wd == self._watch and self.kind.is_source(event.name):
                names.add(event.name)
        return None if everything else names

    def names(self) -> set[str]:
        """Give the names of all sources that are there, complete or not."""
        return super().names() if self.follow() else set()


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a source directory that may hold a core."""

    directory: Directory
    name: str

    def __lt__(self, other: "Found") -> bool:
        return (self.name, self.directory.path) < (other.name, other.directory.path)

    @property
    def path(self) -> str:
        """Its path, as it is shown."""
        return clean(os.fsencode(self.directory.path / self.name))

    def refuse_if_hidden(self, status: os.stat_result) -> None:
        """Raise `BusyError` while whoever writes it lets nobody read it."""
        if self.directory.kind.is_hidden and not stat.S_IMODE(status.st_mode):
            raise BusyError("it has mode 0: it is still being written")

    def tell(self, descriptor: int, status: os.stat_result, core: OpenCore) -> Told:
        """Tell what is known of it, which is open now, with *core* in it."""
        source = OpenSource(
            directory=self.directory.descriptor,
            name=self.name,
            descriptor=descriptor,
            status=status,
            core=core,
        )
        return self.directory.kind.tell(source)

    def remove(self) -> None:
        """Remove it, with what crashagent left of it."""
        sources.remove_source(self.directory.descriptor, self.name)
