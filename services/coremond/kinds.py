"""What a kind of source directory has to know: which files are sources, and what they tell."""

import os
from dataclasses import dataclass
from typing import Protocol

from common.item import Crash, CrashItem
from common.packing.opened import OpenCore
from common.pod import Pod


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSource:
    """A source that is open, and complete."""

    directory: int
    """The open directory that it is in."""
    name: str
    descriptor: int
    status: os.stat_result
    core: OpenCore
    """What is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a directory tells of a source in it, beside what the core says itself."""

    seen: Crash | None = None
    """What whoever put it there saw of the crash; it goes before what the core says."""
    readings: tuple[Crash, ...] = ()
    """What the source's name may mean, the likeliest first; it goes behind what the core says."""
    item: CrashItem | None = None
    """What crashagent says of it; nobody else's word counts for how it is packed."""
    owner: int | None = None
    """Whose crash it is, where it is not the file's owner's, and nobody but root can say so."""
    pod: Pod | None = None
    """The pod that alone could put it there."""
    lack: str = ""
    """Why there is no core in it, so that the crash is recorded and no more; empty if there is."""


class SourceKind(Protocol):
    """Knows the sources of one kind of directory. All that is in them is hostile."""

    @property
    def is_linked(self) -> bool:
        """Its files get their names by link(2), of which no event but IN_CREATE tells."""
        ...

    @property
    def is_hidden(self) -> bool:
        """A file has mode 0 while it is written."""
        ...

    @property
    def may_grow(self) -> bool:
        """Something may be added to a source later; it is the same crash then."""
        ...

    def is_source(self, name: str) -> bool:
        """Say whether a file of this *name* may hold a core."""
        ...

    def tell(self, source: OpenSource) -> Told:
        """Tell what is known of *source*."""
        ...
