"""The one writer of a node's directory of stored cores.

A core is stored in this order, each step durable before the next, so that a kill at any instant
leaves either nothing that counts or a whole core: ``.<name>.tmp`` (packed, synced, read back),
``<name>.gz.crc``, ``<name>.json``, and last ``<name>.gz`` (or .zst, .lz4). It is removed in the
opposite order of what counts: the record says so first. `CoreStore.recover` ends what a kill left.
"""

import errno
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common import corestore, files
from common.errors import ConfigError, CorruptError
from common.item import Packed
from common.log import Logger
from common.naming import CHECKSUM_SUFFIX, CORE_SUFFIXES, LOG_SUFFIX, PREFIX, RECORD_SUFFIX
from common.packing.sums import Sums, sums_of
from common.record import ContainerKey, CrashRecord, Source, SourceKey

log = Logger()

_LOCK = ".lock"


class CoreStore:
    """Owns the directory, and keeps its records at hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = os.open(
            _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ConfigError([f"{path}: another coremond keeps its cores there"]) from error
        self._records = {record.name: record for record in corestore.read_records(path)}
        self._by_source: dict[SourceKey, str] = {}
        self._by_container = defaultdict[ContainerKey, dict[str, CrashRecord]](dict)
        for record in self._records.values():
            self._index(record)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._lock)
        os.close(self._directory)

    @property
    def descriptor(self) -> int:
        """The open directory."""
        return self._directory

    def records(self) -> list[CrashRecord]:
        """Give every record."""
        return list(self._records.values())

    def of_container(self, key: ContainerKey) -> list[CrashRecord]:
        """Give the records of one container."""
        return list(self._by_container[key].values()) if key in self._by_container else []

    def by_container(self) -> list[list[CrashRecord]]:
        """Give the records of each container."""
        return [list(records.values()) for records in self._by_container.values()]

    def record_of(self, source: Source) -> CrashRecord | None:
        """Give the record that *source* was counted in, None if it is new."""
        name = self._by_source.get(source.key)
        return self._records.get(name) if name else None

    def has_name(self, name: str) -> bool:
        """Say whether a crash is called *name*."""
        return name in self._records

    def check(self) -> None:
        """Raise FileNotFoundError where the directory is not there, or another is, under its path.

        Who starts anew makes it anew.
        """
        here, there = os.fstat(self._directory), os.stat(self.path)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(errno.ENOENT, "another directory is in its place", self.path)

    def room(self) -> tuple[int, int]:
        """Say how many bytes are free on its disk, and of how many."""
        disk = os.fstatvfs(self._directory)
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize

    def has_core(self, record: CrashRecord) -> bool:
        """Say whether the file of a stored core is there."""
        return files.exists(self._directory, record.core)

    def recover(self, has_source: Callable[[Source], bool]) -> None:
        """End what an earlier coremond left in the middle; *has_source* says what is still there.

        A core that was about to appear is undone if its source is there, and is done again.
        """
        names = set(os.listdir(self._directory))
        for name in names:
            if name.startswith("." + PREFIX) and name.endswith(files.TEMPORARY_SUFFIX):
                files.remove(self._directory, name)
        for record in self.records():
            is_there = record.core in names
            if record.state == "removed" and is_there:
                self._unlink(record)
            elif record.state == "stored" and not is_there:
                try:
                    self._end_missing(record, has_source)
                except OSError as error:
                    log.error(
                        "record not brought up to date",
                        record=record.name,
                        reason=str(error),
                        effect="tried again at the next start",
                    )
        self._remove_strays(names)
        os.fsync(self._directory)

    def _remove_strays(self, names: set[str]) -> None:
        """Remove what stands beside a core, where the core is not."""
        for name in names:
            if name.endswith(CHECKSUM_SUFFIX) and name.removesuffix(CHECKSUM_SUFFIX) not in names:
                files.remove(self._directory, name)
            elif name.startswith(PREFIX) and name.endswith(LOG_SUFFIX):
                cores = {name.removesuffix(LOG_SUFFIX) + each for each in CORE_SUFFIXES.values()}
                if not cores & names:
                    files.remove(self._directory, name)

    def _end_missing(self, record: CrashRecord, has_source: Callable[[Source], bool]) -> None:
        if any(has_source(source) for source in record.sources):
            files.remove(self._directory, record.checksum)
            self.forget(record)
        else:
            self.remove(record, "its file was not there any more", record.crashed_at)

    def create(self, name: str) -> int:
        """Open the hidden file in which the core of the crash *name* is packed."""
        hidden = self._hidden(name)
        files.remove(self._directory, hidden)
        return files.create(self._directory, hidden)

    def adopt(self, name: str, descriptor: int) -> int:
        """Let the open file, which is packed as it should be, be that hidden file too; open it.

        Raises an `OSError` where it is on another file system.
        """
        hidden = self._hidden(name)
        files.remove(self._directory, hidden)
        os.link(f"/proc/self/fd/{descriptor}", hidden, dst_dir_fd=self._directory)
        return os.open(hidden, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)

    def discard(self, name: str) -> None:
        """Remove that file, and what `prepare` wrote: the core is not to be."""
        files.remove(self._directory, self._hidden(name))
        for suffix in CORE_SUFFIXES.values():
            files.remove(self._directory, name + suffix + CHECKSUM_SUFFIX)
        files.remove(self._directory, name + RECORD_SUFFIX)
        files.remove(self._directory, name + LOG_SUFFIX)

    def attach(self, record: CrashRecord, log_end: bytes) -> CrashRecord:
        """Write the end of the container's log, which goes with the core; give the new record."""
        name = record.name + LOG_SUFFIX
        files.write_durably(self._directory, name, log_end)
        return replace(record, log=name, log_size=len(log_end))

    def settle(self, packed: Packed, descriptor: int) -> Sums:
        """Make the packed core in *descriptor* durable, and read it back.

        A `CorruptError` says that the disk gave back something else than was written.
        """
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        sums = sums_of(descriptor)
        if (sums.crc32, sums.size) != (packed.crc32, packed.packed):
            raise CorruptError("what was written is not what can be read back")
        return sums

    def prepare(self, record: CrashRecord) -> None:
        """Write the checksum and the record of a settled core; then only `publish` is left.

        Until then, it does not count as known. Many may be prepared at once.
        """
        line = corestore.checksum_line(record).encode()
        files.write_durably(self._directory, record.checksum, line)
        self._write(record)

    def publish(self, record: CrashRecord) -> None:
        """Let the core that is prepared appear."""
        os.rename(
            self._hidden(record.name),
            record.core,
            src_dir_fd=self._directory,
            dst_dir_fd=self._directory,
        )
        os.fsync(self._directory)
        self._note(record)

    def save(self, record: CrashRecord) -> None:
        """Write the record, new or changed."""
        self._write(record)
        self._note(record)

    def _write(self, record: CrashRecord) -> None:
        files.write_durably(self._directory, record.name + RECORD_SUFFIX, record.to_json())
        os.fsync(self._directory)

    def _note(self, record: CrashRecord) -> None:
        self._records[record.name] = record
        self._index(record)

    def remove(self, record: CrashRecord, reason: str, now: int) -> CrashRecord:
        """Remove a stored core; its record stays, and says why and when (ns)."""
        removed = replace(record, state="removed", reason=reason, removed_at=now)
        try:
            self.save(removed)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            # Its own space is what the record needs; `recover` would end this likewise.
            self._unlink(removed)
            self.save(removed)
        self._unlink(removed)
        os.fsync(self._directory)
        return removed

    def forget(self, record: CrashRecord) -> None:
        """Delete the record itself."""
        files.remove(self._directory, record.name + RECORD_SUFFIX)
        del self._records[record.name]
        container = self._by_container[record.container_key]
        container.pop(record.name, None)
        if not container:
            del self._by_container[record.container_key]
        for source in record.sources:
            self._by_source.pop(source.key, None)

    def _unlink(self, record: CrashRecord) -> None:
        files.remove(self._directory, record.core)
        files.remove(self._directory, record.checksum)
        if record.log:
            files.remove(self._directory, record.log)

    def _index(self, record: CrashRecord) -> None:
        self._by_container[record.container_key][record.name] = record
        for source in record.sources:
            self._by_source[source.key] = record.name

    @staticmethod
    def _hidden(name: str) -> str:
        return f".{name}{files.TEMPORARY_SUFFIX}"
