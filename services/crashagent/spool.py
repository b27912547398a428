"""The spool: a core comes in where nobody else can touch it, and is whole before it has its name.

What one crash leaves on disk, in order, so that a kill at any instant loses nothing:

1. ``.spool/.intake.<time>.item``: the crash was accepted (what the sender said of it);
2. ``.spool/.intake.<time>.part``: its core, as far as it came;
3. ``.spool/.core.<…>.<time>.item``: the core is whole and synced (the item in full; replaces 1);
4. ``core.<…>.<time>``: the part, renamed into the crash directory; now coremond may have it.

`Spool.recover` takes up what an earlier crashagent left at any of these.
"""

import errno
import fcntl
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from common import elf, naming
from common.errors import BusyError, CollectorError, SourceError
from common.files import (
    TEMPORARY_SUFFIX,
    create,
    exists,
    open_own_directory,
    open_regular,
    read_limited,
    remove,
    write_durably,
    write_whole,
)
from common.item import MESSAGE_LIMIT, CrashItem, Encoding, to_json
from common.log import Logger
from common.naming import SourceName
from common.packing.crew import Crew
from common.packing.opened import OpenCore
from common.packing.registry import codec_of
from common.record import facts_of
from services.crashagent.part import ROOM, Part, open_part

log = Logger()

KILLED = "crashagent was ended while the core came in"
_PATIENCE = 10.0
"""Seconds for which an earlier crashagent's keeper may work on in the spool."""
_PAUSE = 0.1
"""Seconds between two looks whether it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeNote(CrashItem):
    """The item of a crash whose core is on its way in."""

    pipe: int = 0
    """The inode of what it comes from, which is its alone as long as it comes."""


class Intake:
    """One core on its way in."""

    def __init__(self, item: CrashItem, part: Part) -> None:
        self.item = item
        self.part = part

    def close(self) -> None:
        """Close the part's file."""
        os.close(self.part.descriptor)


class Spool:
    """Owns the crash directory, as far as crashagent writes there.

    Cores are written in *encoding*, packed by *crew*.
    """

    def __init__(self, directory: Path, hostname: str, encoding: Encoding, crew: Crew) -> None:
        self._path = directory
        self.hostname = hostname
        """Of crashes whose own is not known."""
        self._encoding = encoding
        self._crew = crew
        self._last_moment = 0
        self._lock = Lock()
        self._open()

    def _open(self) -> None:
        if not self._path.exists():
            self._path.mkdir(parents=True)
            self._path.chmod(0o1777)  # processes of any user leave their cores there
        self._crash_dir = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(FileExistsError):
            os.mkdir(naming.SPOOL, 0o700, dir_fd=self._crash_dir)
        self._directory = open_own_directory(self._crash_dir, naming.SPOOL)

    def close(self) -> None:
        """Let go of the directories."""
        os.close(self._directory)
        os.close(self._crash_dir)

    def _follow(self) -> None:
        """Go on in the directory that has the path now, if it was replaced."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            self._open()
            return
        if not os.path.samestat(os.fstat(self._crash_dir), there):
            self._open()

    def moment(self) -> int:
        """Give the time in nanoseconds, which is nobody else's: intakes are told apart by it."""
        with self._lock:
            self._last_moment = max(time.time_ns(), self._last_moment + 1)
            return self._last_moment

    def begin(self, item: CrashItem, *, pipe: int = 0) -> Intake:
        """Note on disk that the crash *item* was accepted, and open the file for its core.

        *pipe* is the inode of what the core comes from.
        """
        self._follow()
        note = IntakeNote(**facts_of(item), path=item.path, encoding=self._encoding, pipe=pipe)
        # Whole at once: the keeper would not know the crash by an empty note, and hand it on again.
        write_whole(self._directory, _intake_item(item.crashed_at), to_json(note))
        try:
            part = create(self._directory, naming.part_name(item.crashed_at))
        except OSError:
            remove(self._directory, _intake_item(item.crashed_at))  # or it would count as a crash
            raise
        item = replace(item, encoding=self._encoding)
        return Intake(item, open_part(part, self._encoding, self._crew))

    def note(self, item: CrashItem) -> CrashItem:
        """Take in a crash that has no core, all at once."""
        intake = self.begin(item)
        try:
            intake.item = replace(intake.item, packed=intake.part.end(""))
            return self.finish(intake)
        finally:
            intake.close()

    def finish(self, intake: Intake) -> CrashItem:
        """Give the core its name; it is whole, synced and described when that is done.

        On a full disk the end of the core gives way to its description.
        """
        try:
            return self._finish(intake)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
        why = "the disk was full"
        packed = intake.part.end(why, room=ROOM)
        intake.item = replace(intake.item, packed=packed, truncated=True, truncated_why=why)
        return self._finish(intake)

    def _finish(self, intake: Intake) -> CrashItem:
        os.fsync(intake.part.descriptor)
        item = self._named(intake)
        name = os.path.basename(item.path)
        note = _intake_item(item.crashed_at)
        write_durably(self._directory, note, to_json(item))
        self._rename(note, naming.sidecar_name(name))
        self._let_out(item.crashed_at, name)
        return item

    def _let_out(self, moment: int, name: str) -> None:
        """Move the core that came at *moment* into the crash directory, as *name*."""
        part = naming.part_name(moment)
        os.rename(part, name, src_dir_fd=self._directory, dst_dir_fd=self._crash_dir)
        os.fsync(self._directory)
        os.fsync(self._crash_dir)

    def _named(self, intake: Intake) -> CrashItem:
        item = intake.item
        notes = elf.read_notes(OpenCore(intake.part.descriptor).read) or elf.CoreNotes()
        name = SourceName(
            process=item.comm or notes.comm or "unknown",
            pid=item.pid or notes.pid or 0,
            host=item.hostname or self.hostname,
            crashed_at=item.crashed_at,
        )
        if exists(self._crash_dir, str(name)):  # someone was quicker: nobody can guess the next
            name = replace(name, process=f"{name.process[:32]}-{secrets.token_hex(4)}")
        return replace(
            item, hostname=item.hostname or self.hostname, path=str(self._path / str(name))
        )

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def recover(self, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[CrashItem]:
        """Find every intake that an earlier crashagent left; they are finished one by one.

        That takes time, as much is read again: it may be done while others come in. It waits, until
        *is_stopped*, for whoever else works in the directory: another crashagent, or the keeper of
        an earlier one, which must find what is noted there before it is finished.
        """
        names = self._files()
        return self._take_up(_moments(names), _temporaries(names), is_stopped)

    def _take_up(
        self, left: set[int], temporaries: set[str], is_stopped: Callable[[], bool]
    ) -> Iterator[CrashItem]:
        if not self._have_alone(is_stopped):
            return
        for name in temporaries:
            remove(self._directory, name)
        names = self._files()
        whole = {
            moment: source
            for name in names
            if (source := naming.source_of_sidecar(name))
            and (moment := naming.moment_of(source)) is not None
        }
        for moment in sorted(left & _moments(names)):
            try:
                if moment in whole:
                    yield self._finish_renaming(moment, whole[moment])
                else:
                    yield self._finish_truncated(moment)
            except OSError as error:
                log.error(
                    "core left in the spool",
                    file=naming.part_name(moment),
                    reason=str(error),
                    effect="it is tried again at the next start",
                )

    def _have_alone(self, is_stopped: Callable[[], bool]) -> bool:
        """Wait until nobody else works in the spool; False if it was stopped before.

        The lock is let go with the last descriptor, which the keeper has.
        """
        said_at = time.monotonic() + _PATIENCE
        while not is_stopped():
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= said_at:
                    said_at = math.inf
                    log.warning(
                        "another crashagent is there",
                        file=str(self._path / naming.SPOOL),
                        effect="what was left there is taken up once it has ended",
                    )
                time.sleep(_PAUSE)
            except OSError:  # such a file system knows no locks of directories
                return True
            else:
                return True
        return False

    def _files(self) -> set[str]:
        """Name what is a file; others may remove some meanwhile."""
        names = set()
        for name in os.listdir(self._directory):
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.lstat(name, dir_fd=self._directory).st_mode):
                    names.add(name)
        return names

    def _finish_renaming(self, moment: int, source: str) -> CrashItem:
        item = self._read_item(naming.sidecar_name(source), moment)
        self._let_out(moment, source)
        return replace(item, path=str(self._path / source))

    def _finish_truncated(self, moment: int) -> CrashItem:
        item = self._read_item(_intake_item(moment), moment)
        if not exists(self._directory, naming.part_name(moment)):
            os.close(create(self._directory, naming.part_name(moment)))
        if item.truncated and not item.truncated_why:  # nobody came to say how it ended
            item = replace(item, truncated_why=KILLED)
            log.warning(
                "core came in partly",
                file=naming.part_name(moment),
                reason=KILLED,
                effect="it is kept so, marked",
            )
        file = os.open(naming.part_name(moment), os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._directory)
        try:
            part = open_part(file, item.encoding, self._crew)
            return self.finish(Intake(replace(item, packed=part.end(item.truncated_why)), part))
        finally:
            os.close(file)

    def _read_item(self, name: str, moment: int) -> CrashItem:
        try:
            return CrashItem.from_json(
                read_limited(self._directory, name, MESSAGE_LIMIT, owner=os.geteuid())
            )
        except (CollectorError, FileNotFoundError):
            return CrashItem(
                path=str(self._path),
                encoding=self._encoding_of(naming.part_name(moment)),
                arrived="apport",
                crashed_at=moment,
                truncated=True,
            )

    def _encoding_of(self, part: str) -> Encoding:
        """Say how the core in *part* is written, of which nothing is said."""
        try:
            file = open_regular(self._directory, part)
        except (FileNotFoundError, SourceError, BusyError):
            return "raw"
        try:
            codec = codec_of(file)
        finally:
            os.close(file)
        return codec.name if codec else "raw"


def _intake_item(crashed_at: int) -> str:
    return f"{naming.INTAKE_PREFIX}{crashed_at:019d}{naming.SIDECAR_SUFFIX}"


def _temporaries(names: set[str]) -> set[str]:
    """Choose what is being written, or was when its writer ended."""
    return {
        name
        for name in names
        if name.startswith("." + naming.INTAKE_PREFIX) and name.endswith(TEMPORARY_SUFFIX)
    }


def _moments(names: set[str]) -> set[int]:
    """Give the moments of the intakes that files are left of."""
    moments = set()
    for name in names:
        middle, _, suffix = name.removeprefix(naming.INTAKE_PREFIX).partition(".")
        is_ours = name.startswith(naming.INTAKE_PREFIX) and suffix in {"item", "part"}
        if is_ours and len(middle) == 19 and middle.isascii() and middle.isdecimal():
            moments.add(int(middle))
    return moments
