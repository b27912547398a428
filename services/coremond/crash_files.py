"""Our own crash directory, and those of pods in it: the kernel's files there, and crashagent's."""

from common.pod import Pod
from services.coremond import sources
from services.coremond.apport_reports import is_apports
from services.coremond.file_pattern import FilePattern, is_source_name, readings_of
from services.coremond.kinds import OpenSource, Told


class CrashFiles:
    """Files by the name of a core, each with what crashagent left beside it, if it was that."""

    is_linked = is_hidden = may_grow = False

    def __init__(self, pattern: FilePattern) -> None:
        self._pattern = pattern

    def is_source(self, name: str) -> bool:
        """Take what is called as a core, or as the pattern says; Apport's files are its own."""
        return not is_apports(name) and is_source_name(name, self._pattern)

    def tell(self, source: OpenSource) -> Told:
        """Tell what crashagent says of it, and what its name may mean."""
        item = sources.read_sidecar(source.directory, source.name)
        if item and item.turned_away:
            return Told(seen=item, item=item, lack=item.turned_away)
        readings = readings_of(source.name, self._pattern)
        return Told(seen=item, item=item, readings=tuple(readings))


class PodFiles(CrashFiles):
    """The same in a directory that *pod* alone has; what crashagent left is never there."""

    def __init__(self, pattern: FilePattern, pod: Pod) -> None:
        super().__init__(pattern)
        self._pod = pod

    def tell(self, source: OpenSource) -> Told:
        """Tell what its name may mean, and that it is the pod's."""
        return Told(readings=tuple(readings_of(source.name, self._pattern)), pod=self._pod)
