"""A source and what crashagent left beside it: how they are opened, read and removed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from common import naming
from common.errors import CollectorError, SourceError
from common.files import exists, open_own_directory, read_limited, remove
from common.item import MESSAGE_LIMIT, Crash, CrashItem
from common.log import Logger
from common.record import CrashRecord, Source

log = Logger()


def read_sidecar(directory: int, name: str) -> CrashItem | None:
    """Read the item that crashagent left of the source *name*; None without one."""
    sidecar = naming.sidecar_name(name)
    try:
        with _spool(directory) as spool:
            return CrashItem.from_json(
                read_limited(spool, sidecar, MESSAGE_LIMIT, owner=os.geteuid())
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
    """Remove the source *name*, then what crashagent left of it."""
    remove(directory, name)
    with suppress(FileNotFoundError, SourceError), _spool(directory) as spool:
        remove(spool, naming.sidecar_name(name))


@contextmanager
def _spool(directory: int) -> Iterator[int]:
    """Open crashagent's own directory in the crash directory."""
    spool = open_own_directory(directory, naming.SPOOL)
    try:
        yield spool
    finally:
        os.close(spool)


def is_there(directory: int, source: Source) -> bool:
    """Say whether the directory still has the very file that *source* describes."""
    name = naming.decode_name(source.name)
    try:
        status = os.lstat(name, dir_fd=directory)
    except (OSError, ValueError):
        return False
    return Source.of(name, status).key == source.key


def is_grown(record: CrashRecord, source: Source, crash: Crash) -> bool:
    """Say whether *source*, of *crash*, is a source of *record* to which something was added.

    A file may get the number of one that is gone; then the process has another.
    """
    return (
        (record.arrived, record.host_pid, record.signal)
        == (crash.arrived, crash.host_pid, crash.signal)
        and (crash.host_pid is not None or record.crashed_at == crash.crashed_at)
        and any(_is_same_file(known, source) for known in record.sources)
    )


def grown(record: CrashRecord, source: Source) -> CrashRecord:
    """Describe the source in *record* anew, to which something was added."""
    others = (known for known in record.sources if not _is_same_file(known, source))
    return replace(record, sources=(*others, source))


def _is_same_file(one: Source, other: Source) -> bool:
    return (one.name, one.inode) == (other.name, other.inode)


def remove_stale_sidecars(directory: int) -> None:
    """Remove the items whose source is gone.

    A core that is about to get its name has its item and its part; the part is looked for first, so
    that one which is renamed in between is seen under its name.
    """
    with suppress(FileNotFoundError, SourceError), _spool(directory) as spool:
        for name in os.listdir(spool):
            source = naming.source_of_sidecar(name)
            moment = naming.moment_of(source)
            if moment is None or exists(spool, naming.part_name(moment)):
                continue
            if not exists(directory, source):
                remove(spool, name)
