"""The directories in the crash directory that one pod alone has, as they come and go."""

import os
import resource
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from inotify_simple import INotify, flags

from common.kubelet import read_pod_directory
from common.pod import Pod
from services.coremond.kinds import SourceKind
from services.coremond.watch import WATCHED, Directory, Found, SourceDirectory

_MOST_PODS = 1024
"""Directories of pods that are watched."""
_LEFT_FOR = 86400.0
"""Seconds that the empty directory of a pod that is no more is left there."""


class PodDirectory(Directory):
    """A directory in the crash directory that one pod alone has, as its own crash directory."""

    def __init__(self, path: Path, kind: SourceKind, *, sources_go: bool, descriptor: int) -> None:
        super().__init__(path, kind, is_ours=False, sources_go=sources_go)
        self.descriptor = descriptor
        # Whoever handles one of its sources goes on when it is not watched any more.
        weakref.finalize(self, os.close, descriptor)

    @property
    def identity(self) -> tuple[int, int]:
        """Which directory it is, whatever it is called."""
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino


class PodDirectories:
    """Owns the watches on the directories of pods in our own; *make* gives the kind of one's files.

    The kubelet makes such a directory for a pod's ``subPathExpr``, as root: those of anybody else
    are passed over. *is_over* says that the pod of one is no more; it goes then, if it is empty.
    """

    def __init__(
        self,
        parent: SourceDirectory,
        make: Callable[[Pod], SourceKind],
        is_over: Callable[[Pod], bool],
    ) -> None:
        self._parent = parent
        self._make = make
        self._is_over = is_over
        self._events = INotify(nonblocking=True)
        self._parent_watch = -1
        self._by_watch: dict[int, PodDirectory] = {}
        self.all: tuple[PodDirectory, ...] = ()
        """Those that are there; other threads may look."""

    def close(self) -> None:
        """End the watches."""
        self._events.close()

    def fileno(self) -> int:
        """Give a descriptor that is readable when something has changed."""
        descriptor: int = self._events.fileno()
        return descriptor

    def changed(self) -> tuple[set[Found], bool]:
        """Give the sources that were completed since, and whether all must be looked at."""
        found: set[Found] = set()
        everything = False
        for event in self._events.read(timeout=0):
            directory = self._by_watch.get(event.wd)
            if event.mask & flags.Q_OVERFLOW or event.wd == self._parent_watch:
                is_lost = bool(event.mask & flags.Q_OVERFLOW)
                everything = everything or is_lost or self._pod_of(event.name) is not None
            elif directory and directory.kind.is_source(event.name):
                found.add(Found(directory, event.name))
        return found, everything

    def _pod_of(self, name: str) -> Pod | None:
        """Give the pod whose directory *name* is; None where it is called so by anybody else."""
        if (pod := read_pod_directory(name)) is None:
            return None
        try:
            status = os.lstat(name, dir_fd=self._parent.descriptor)
        except OSError:  # it went meanwhile
            return None
        return pod if stat.S_ISDIR(status.st_mode) and _is_roots(status) else None

    def refresh(self) -> None:
        """Watch the directories that came, and no longer those that went."""
        if self._parent.descriptor < 0:
            return
        with suppress(OSError):  # there are no more watches: it is looked through all the same
            self._parent_watch = self._events.add_watch(
                f"/proc/self/fd/{self._parent.descriptor}",
                flags.CREATE | flags.MOVED_TO | flags.ONLYDIR,
            )
        known = {directory.identity: directory for directory in self.all}
        there: list[PodDirectory] = []
        watched: dict[int, PodDirectory] = {}
        for name, pod in self._pods_there():
            if len(there) >= self._most():
                break
            if (opened := self._open(name, pod)) is None:
                continue
            before = known.get(opened.identity)
            directory = before if before and before.path == opened.path else opened
            there.append(directory)
            with suppress(OSError):  # likewise
                path = f"/proc/self/fd/{directory.descriptor}"
                watched[self._events.add_watch(path, WATCHED)] = directory
        for watch in self._by_watch.keys() - watched.keys():
            with suppress(OSError):
                self._events.rm_watch(watch)
        self._by_watch, self.all = watched, tuple(there)

    def _pods_there(self) -> list[tuple[str, Pod]]:
        """Give the directories that are pods', those of the living first."""
        names = sorted(os.listdir(self._parent.descriptor))
        pods = [(name, pod) for name in names if (pod := self._pod_of(name))]
        return sorted(pods, key=lambda found: self._is_over(found[1]))

    @staticmethod
    def _most() -> int:
        """Give how many may be watched: each takes a descriptor, of which cores need some, too."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _MOST_PODS if soft < 0 else min(_MOST_PODS, soft // 2)

    def _open(self, name: str, pod: Pod) -> PodDirectory | None:
        """Open the directory of a pod's; None where it is none, or goes now."""
        try:
            descriptor = os.open(
                name,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=self._parent.descriptor,
            )
        except OSError:
            return None  # it went meanwhile, or is no directory
        directory = PodDirectory(
            self._parent.path / name,
            self._make(pod),
            sources_go=self._parent.sources_go,
            descriptor=descriptor,
        )
        status = os.fstat(descriptor)
        if not _is_roots(status):  # it is another by now
            return None
        if self._is_over(pod) and time.time() - status.st_mtime > _LEFT_FOR:
            with suppress(OSError):  # there is something in it
                os.rmdir(name, dir_fd=self._parent.descriptor)
                return None
        return directory


def _is_roots(status: os.stat_result) -> bool:
    """Say whether nobody but root, or ourselves, made it."""
    return status.st_uid in {0, os.geteuid()}
