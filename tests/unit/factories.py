"""Ordinary crashes, cores and disks, so that each test states only what differs."""

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from common.disk import DiskLimits
from common.files import opened_directory, write_all
from common.item import CoreEvent, CrashItem
from common.metrics import Registry
from common.naming import SPOOL, sidecar_name
from common.packing.crew import Crew
from common.packing.opened import OpenCore
from common.packing.restoring import unpacked
from common.record import CrashRecord
from common.settings import NANOSECONDS, Floor
from services.coremond.container_log import ContainerLogs
from services.coremond.convert import Converter
from services.coremond.directories import open_directories
from services.coremond.holds import Holds
from services.coremond.identity import CrashIdentifier
from services.coremond.measures import Measures
from services.coremond.progress import Progress
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings, Retention
from services.coremond.store import CoreStore
from services.coremond.sweep import Sweep
from services.coremond.tell import Teller
from services.coremond.watch import Found
from services.coremond.worker import Worker

CRASHED_AT = 1_742_738_615_173_108_860

without_deadline = settings(deadline=None)
with_files = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

file_texts = st.binary().map(os.fsdecode)
"""Any bytes, as the names of files are seen in Python."""

awkward_texts = st.text('./\\%!\n\t"|=… \0\x1b\x85\u2028\u202eé😀a0', max_size=40)

hostile_texts = st.one_of(st.text(), awkward_texts, file_texts, st.text().map(lambda t: t * 50))
"""What a crashed process may choose."""


def item(**facts: Any) -> CrashItem:
    """Make the item of an ordinary crash, with *facts* that are its own."""
    ordinary: dict[str, Any] = {
        "path": f"/var/crash/core.observer.9.f5-observer-0.{CRASHED_AT}",
        "arrived": "apport",
        "pid": 9,
        "host_pid": 4711,
        "uid": 1000,
        "gid": 100,
        "signal": 11,
        "comm": "observer",
        "exe": "/usr/bin/observer",
        "cmdline": "observer --all",
        "hostname": "f5-observer-0",
        "crashed_at": CRASHED_AT,
    }
    return CrashItem(**{**ordinary, **facts})


def event(**facts: Any) -> CoreEvent:
    """Make the event of an ordinary stored core, with *facts* that are its own."""
    ordinary: dict[str, Any] = {"kind": "stored", "id": "0123456789ab", "at": CRASHED_AT}
    return CoreEvent(**{**ordinary, **facts})


def elf_core(
    *,
    wide: bool = True,
    order: str = "<",
    small_ids: bool = False,
    many: bool = False,
    pid: int = 9,
    tid: int = 10,
    signal: int = 11,
    uid: int = 1000,
    gid: int = 100,
    comm: bytes = b"observer",
    cmdline: bytes = b"observer --all ",
    memory: bytes = b"\1" * 64,
) -> bytes:
    """Build a core as a kernel writes it: headers, two notes, one segment of *memory*.

    With *many*, the number of segments stands where PN_XNUM says: in a section header at the end.
    """
    status = bytearray(336 if wide else 144)
    struct.pack_into(order + "H", status, 12, signal)
    struct.pack_into(order + "I", status, 32 if wide else 24, tid)
    psinfo = bytearray(136 if wide else 124 if small_ids else 128)
    ids, place, names = ("II", 16, 40) if wide else ("HH", 8, 28) if small_ids else ("II", 8, 32)
    struct.pack_into(order + ids + "I", psinfo, place, uid, gid, pid)
    psinfo[names : names + len(comm)] = comm
    psinfo[names + 16 : names + 16 + len(cmdline)] = cmdline
    notes = note(order, 1, bytes(status)) + note(order, 3, bytes(psinfo))
    start, entry = (64, 56) if wide else (52, 32)
    at = start + 2 * entry
    end = at + len(notes) + len(memory)
    return (
        elf_header(wide, order, 0xFFFF if many else 2, end if many else 0)
        + elf_segment(wide, order, 4, at, len(notes))
        + elf_segment(wide, order, 1, at + len(notes), len(memory))
        + notes
        + memory
        + (_section_of_many(wide, order, 2) if many else b"")
    )


def note(order: str, kind: int, body: bytes) -> bytes:
    """Build one note of the owner CORE."""
    padding = bytes(-len(body) % 4)
    return struct.pack(order + "III", 5, len(body), kind) + b"CORE\0\0\0\0" + body + padding


def elf_header(wide: bool, order: str, segments: int, sections: int = 0) -> bytes:
    """Build the header of a core whose program headers follow at once."""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    start, entry = (64, 56) if wide else (52, 32)
    return ident + struct.pack(
        order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
        *(4, 62, 1, 0, start, sections, 0, start, entry, segments),
        *(64 if wide else 40, 1 if sections else 0, 0),
    )


def elf_segment(wide: bool, order: str, kind: int, offset: int, size: int) -> bytes:
    """Build a program header."""
    if wide:
        return struct.pack(order + "IIQQQQQQ", kind, 4, offset, 0, 0, size, size, 1)
    return struct.pack(order + "IIIIIIII", kind, offset, 0, 0, size, size, 4, 1)


def _section_of_many(wide: bool, order: str, segments: int) -> bytes:
    section = bytearray(64 if wide else 40)
    struct.pack_into(order + "I", section, 44 if wide else 28, segments)
    return bytes(section)


@contextmanager
def memory_file(content: bytes = b"") -> Iterator[int]:
    """Give the descriptor of a file in memory that holds *content*, at its start."""
    descriptor = os.memfd_create("test")
    try:
        write_all(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def content_of(descriptor: int) -> bytes:
    """Give all that is in the open file."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def core_in(descriptor: int) -> bytes:
    """Give the core in the open file, packed in units or raw."""
    if OpenCore(descriptor).codec is None:
        return content_of(descriptor)
    return b"".join(unpacked(descriptor))


def _link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"secret")
    path.symlink_to("target")


def _hard_link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"secret")
    path.hardlink_to(path.parent / "target")


def _socket(path: Path) -> None:
    # Its own path may be too long for an address.
    with opened_directory(path.parent) as parent, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{parent}/{path.name[:80]}")
    (path.parent / path.name[:80]).rename(path)


no_plain_files: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a symbolic link": _link,
    "hard link": _hard_link,
    "a socket": _socket,
}
"""What others may put where a file should be: how to make it, by what it is called."""

in_place_of_a_file = pytest.mark.parametrize("make", no_plain_files.values(), ids=no_plain_files)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """Give a disk of *size* bytes at *path*; skips where nobody lets us mount one."""
    if os.geteuid() != 0:
        pytest.skip("missing: the user root, to mount a disk that can be filled")
    libc = ctypes.CDLL(None, use_errno=True)
    path.mkdir(exist_ok=True)
    where = os.fsencode(path)
    if libc.mount(b"tmpfs", where, b"tmpfs", 0, b"size=%d" % size) != 0:
        reason = os.strerror(ctypes.get_errno())
        pytest.skip(f"missing: CAP_SYS_ADMIN, to mount a disk that can be filled ({reason})")
    try:
        yield path
    finally:
        libc.umount2(where, 2)  # MNT_DETACH


class Killed(BaseException):
    """The program was killed: nothing of it runs any more."""


class Killer:
    """Kills the program before the change to the disk that has the number *at*, from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self._left = at
        self._monkeypatch = monkeypatch

    def __enter__(self) -> Self:
        self._patched = self._monkeypatch.context()
        patch = self._patched.__enter__()
        for name in ("rename", "unlink", "write", "pwritev", "ftruncate", "link", "sendfile"):
            patch.setattr(os, name, self._counted(getattr(os, name), lambda *_: True))
        patch.setattr(os, "open", self._counted(os.open, _creates))
        return self

    def __exit__(self, *_: object) -> None:
        self._patched.__exit__(None, None, None)

    def _counted(
        self, function: Callable[..., Any], changes: Callable[..., bool]
    ) -> Callable[..., Any]:
        def counted(*args: Any, **keywords: Any) -> Any:
            if changes(*args):
                self._left -= 1
                if self._left < 0:
                    raise Killed
            return function(*args, **keywords)

        return counted


def _creates(_path: object, flags: int, *_: object) -> bool:
    return bool(flags & os.O_CREAT)


def numbers_of(registry: Registry) -> dict[str, float]:
    """Give each number that *registry* has, by its name and the values of its labels."""
    found = {}
    for family in registry.families():
        name = family.name.removeprefix("coremond_")
        for sample in family.samples:
            found[" ".join([name + sample.suffix, *sample.labels.values()])] = sample.value
    return found


def events_said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the texts of the lines that were logged."""
    return [record.getMessage() for record in caplog.records]


class House:
    """coremond without its sockets: a crash directory, a store and a worker, and their clock."""

    def __init__(
        self,
        home: Path,
        *,
        keep: Retention | None = None,
        delete_src: bool = True,
        max_core: int = 0,
        keep_free: int = 0,
        **settings: Any,
    ) -> None:
        self.settings = CoremondSettings(
            run_dir=home / "run",
            crash_dir=home / "crash",
            cores_dir=home / "cores",
            node="node-1",
            keep=keep or Retention(),
            delete_src=delete_src,
            disk=DiskLimits(max_core=max_core, keep_free=Floor(bytes=keep_free)),
            **settings,
        )
        self.crash_dir = self.settings.crash_dir
        self.spool = self.crash_dir / SPOOL
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings.run_dir.mkdir(mode=0o700, exist_ok=True)
        self.now = CRASHED_AT + 10**6 * NANOSECONDS
        self.told: list[CoreEvent] = []
        self.is_stopped = False

    def __enter__(self) -> Self:
        self.directories = open_directories(self.settings)
        self.store = CoreStore(self.settings.store_dir)
        self.store.recover(self.directories.has)
        keep, disk = self.settings.keep, self.settings.disk
        self.room = Room(self.store, disk, max_use=keep.max_use)
        self.crew = Crew(1)
        self.measures = Measures(100)
        teller = Teller(self.store, self.tell, lambda: self.now, self.measures)
        self.worker = Worker(
            self.directories,
            self.store,
            CrashIdentifier(self.settings.node),
            ContainerLogs(None, lines=0, size=0),
            self.settings,
            Converter(
                self.store,
                self.settings,
                self.crew,
                Progress(self.settings.run_dir),
                is_stopped=lambda: self.is_stopped,
                clock=lambda: self.now,
            ),
            room=self.room,
            teller=teller,
            holds=Holds(self.settings.run_dir, teller.tell_hold, clock=lambda: self.now),
            clock=lambda: self.now,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.__exit__(None, None, None)
        self.directories.close()
        self.store.close()

    def tell(self, event: CoreEvent) -> None:
        """Hear an event, as it comes out of the wire."""
        self.told.append(CoreEvent.from_wire(event.to_wire()))

    def add(
        self,
        content: bytes = b"a core",
        *,
        at: float = 0,
        pid: int = 9,
        process: str = "observer",
        host: str = "f5-observer-0",
        told: CrashItem | None = None,
    ) -> str:
        """Put a source into the crash directory, of a crash *at* seconds; give its name."""
        name = f"core.{process}.{pid}.{host}.{CRASHED_AT + int(at * NANOSECONDS)}"
        (self.crash_dir / name).write_bytes(content)
        if told:
            (self.spool / sidecar_name(name)).write_bytes(told.to_wire()[1])
        return name

    def crash(self, *, at: float = 0, **facts: Any) -> CrashRecord:
        """Let a process crash and take the core all the way; give the newest record."""
        name = self.add(at=at, **facts)
        before = {record.name: record for record in self.store.records()}
        assert self.handle(name)
        changed = [r for r in self.store.records() if before.get(r.name) != r]
        # What was removed for it has changed as well.
        [newest] = [r for r in changed if r.state != "removed"]
        return newest

    def handle(self, name: str, told: CrashItem | None = None) -> bool:
        """Have the source *name* of our own crash directory handled, of which *told* told."""
        ours, *_ = self.directories
        return self.worker.handle(Found(ours, name), told)

    def handle_all(self) -> None:
        """Look through all sources, as a scan does."""
        for found in sorted(self.directories.all()):
            self.worker.handle(found, None)
        self.directories.tidy()

    def sweep(self) -> None:
        """Apply the retention settings once."""
        keep = self.settings.keep
        Sweep(
            self.directories, self.store, self.worker, self.room, keep, clock=lambda: self.now
        ).run()

    def sources(self) -> list[str]:
        """Give the names of all that is in the crash directory."""
        return sorted([*os.listdir(self.spool), *self.cores_waiting()])

    def cores_waiting(self) -> list[str]:
        return [name for name in os.listdir(self.crash_dir) if name != SPOOL]

    def files(self) -> list[str]:
        """Give the names of all that is in the store."""
        return sorted(n for n in os.listdir(self.settings.store_dir) if n != ".lock")

    def states(self) -> list[str]:
        """Give the state of each record, the oldest crash first."""
        records = sorted(self.store.records(), key=lambda record: (record.crashed_at, record.name))
        return [record.state for record in records]
