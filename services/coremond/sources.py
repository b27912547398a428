"""A source and what crashagent left beside it: how they are opened, read and removed."""

import os
import stat
from collections.abc import Set as AbstractSet

from common import naming
from common.errors import CollectorError
from common.files import exists, read_limited, remove
from common.item import MESSAGE_LIMIT, CrashItem
from common.log import Logger
from common.record import Source

log = Logger()


def read_sidecar(directory: int, name: str) -> CrashItem | None:
    """Read the item that crashagent left beside the source *name*; None without one.

    Only a file of our own user counts: others may write in a crash directory.
    """
    sidecar = naming.sidecar_name(name)
    try:
        return CrashItem.from_json(
            read_limited(directory, sidecar, MESSAGE_LIMIT, owner=os.geteuid())
        )
    except FileNotFoundError:
        return None
    except (CollectorError, OSError) as error:
        log.warning(
            "item file refused",
            file=sidecar,
            reason=str(error),
            effect="the crash is recorded without it",
        )
        return None


def remove_source(directory: int, name: str) -> None:
    """Remove the source *name*, then what was beside it."""
    remove(directory, name)
    _remove_sidecar(directory, naming.sidecar_name(name))


def is_there(directory: int, source: Source) -> bool:
    """Say whether the directory still has the very file that *source* describes."""
    name = naming.decode_name(source.name)
    try:
        status = os.lstat(name, dir_fd=directory)
    except (OSError, ValueError):
        return False
    return Source.of(name, status).key == source.key


def remove_stale_sidecars(directory: int, names: AbstractSet[str]) -> None:
    """Remove item files whose source is gone; *names* are the directory's.

    A core that is about to get its name has its item file and its part; the part is looked for
    first, so that one which is renamed in between is seen under its name.
    """
    for name in names:
        source = naming.source_of_sidecar(name)
        moment = naming.moment_of(source)
        if moment is None or source in names:
            continue
        if not exists(directory, naming.part_name(moment)) and not exists(directory, source):
            _remove_sidecar(directory, name)


def _remove_sidecar(directory: int, name: str) -> None:
    """Remove the item file *name*, if it is one of ours: others may write here too."""
    try:
        status = os.lstat(name, dir_fd=directory)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        remove(directory, name)
