"""All directories that sources come into, together."""

from collections.abc import Iterator

import zmq

from common.record import Source
from services.coremond.pod_directories import PodDirectories
from services.coremond.watch import Directory, Found, SourceDirectory


class SourceDirectories:
    """All directories that sources come into."""

    def __init__(self, pods: PodDirectories, *directories: SourceDirectory) -> None:
        self._pods = pods
        self._directories = directories

    def __iter__(self) -> Iterator[Directory]:
        yield from self._directories
        yield from self._pods.all

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(str(directory.path) for directory in self._directories))

    def close(self) -> None:
        """End all watches."""
        self._pods.close()
        for directory in self._directories:
            directory.close()

    def register(self, poller: zmq.Poller) -> None:
        """Let *poller* wait for changes, beside other things."""
        poller.register(self._pods.fileno(), zmq.POLLIN)
        for directory in self._directories:
            poller.register(directory.fileno(), zmq.POLLIN)

    def changed(self) -> tuple[set[Found], bool]:
        """Give the sources that were completed since, and whether all must be looked at."""
        found, everything = self._pods.changed()
        for directory in self._directories:
            names = directory.changed()
            everything = everything or names is None
            found |= {Found(directory, name) for name in names or ()}
        return found, everything

    def all(self) -> set[Found]:
        """Give all sources that are there, complete or not."""
        self._pods.refresh()
        return {Found(directory, name) for directory in self for name in directory.names()}

    def find(self, path: str) -> Found | None:
        """Give the source that is at *path*, or would be; None where none can be."""
        folder, _, name = path.rpartition("/")
        for directory in self:
            if folder == str(directory.path) and directory.kind.is_source(name):
                return Found(directory, name)
        return None

    def has(self, source: Source) -> bool:
        """Say whether any of them has the very file that *source* describes."""
        return any(directory.has(source) for directory in self)

    def tidy(self) -> None:
        """Remove what crashagent left of sources that are gone."""
        for directory in self:
            directory.tidy()
