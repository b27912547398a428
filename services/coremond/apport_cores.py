"""The cores that Apport writes for users who ask for them by ulimit, in a directory of its own.

``core.<exe>.<uid>.<boot id>.<pid>.<start time>``, where the executable's ``/`` and ``.`` are ``_``
and the start time is in ticks since the boot. Source: Apport,
apport/fileutils.py, get_core_path().
"""

import re

from common.item import Crash
from common.naming import is_number
from services.coremond.kinds import OpenSource, Told

_BOOT_ID = r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}"
_NAME = re.compile(rf"core\.([^./]+)\.(\d{{1,10}})\.{_BOOT_ID}\.(\d{{1,10}})\.\d{{1,20}}", re.ASCII)


def read_name(name: str) -> Crash | None:
    """Read such a core's name; None where it is none."""
    match = _NAME.fullmatch(name)
    if not match or not (is_number(match[2]) and is_number(match[3])):
        return None
    # Which of its lines were slashes nobody knows, so it is no path; it may stand in for a name.
    return Crash(comm=match[1].strip("_"), uid=int(match[2]), host_pid=int(match[3]))


class ApportCores:
    """The directory with those cores."""

    is_linked = is_hidden = may_grow = False

    def is_source(self, name: str) -> bool:
        """Take what is named as Apport does."""
        return read_name(name) is not None

    def tell(self, source: OpenSource) -> Told:
        """Tell what the name says; the core says most of it better."""
        named = read_name(source.name)
        return Told(readings=(named,) if named else ())
