"""What can be seen of the host, as far as crashes on their way depend on it."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.corepattern import FILE_TEMPLATE, CorePattern, read_pattern
from services.corectl.knock import SOCKETS, is_listed, knock_unix
from services.corectl.settings import CorectlSettings

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_INITIAL_MOUNT_NAMESPACE = 0xEFFFFFF8
"""Their inode numbers: Linux, include/uapi/linux/nsfs.h; the second since 6.18."""
_OTHERS_MAY_WRITE = stat.S_IWOTH | stat.S_IXOTH
_KNOCK_TIMEOUT = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """A directory that cores go to."""

    path: str
    problem: str = ""
    """Why it cannot be used at all; empty where it can."""
    mode: int = 0
    is_for_all: bool = False
    """Processes of every user may leave files there."""
    is_sticky: bool = False
    """They cannot remove each other's."""
    label: str = ""
    """Its SELinux context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Socket:
    """A socket that crashes come to."""

    path: str
    problem: str = ""
    """Why nobody answers there; empty where somebody does."""
    is_private: bool = True
    """Only root can connect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFacts:
    """All that was seen; what could not be is None or empty."""

    pattern: CorePattern
    uses_pid: bool = False
    pipe_limit: int | None = None
    suid_dumpable: int | None = None
    release: str = ""
    core_modes: tuple[str, ...] = ()
    """What the kernel says it can do; empty before 6.16."""
    rlimit: tuple[str, str] | None = None
    """The soft and the hard RLIMIT_CORE of PID 1, which others begin with."""
    crash_dir: Directory
    apport_socket: Socket
    kernel_socket: Socket
    items_socket: Socket
    source_pattern: str = FILE_TEMPLATE
    """The names that coremond reads beside those that begin with core."""
    systemd_socket: Socket | None = None
    """Where crashagent takes the place of systemd-coredump's own; None where it does not."""
    systemd_cores: Directory | None = None
    """Where coremond takes systemd-coredump's cores from; None where it does not."""
    apport_reports: Directory | None = None
    """The same of Apport's reports."""
    systemd_storage: str = "external"
    """Storage= of coredump.conf."""
    handler: str = ""
    """Why the program of a pipe cannot be run; empty where it can, or cannot be looked at."""
    sees_host_pids: bool | None = None
    is_host_mounts: bool | None = None
    """Paths mean here what they mean to the host."""
    strange_paths: tuple[str, ...] = ()
    """Paths of ours that are something else on the host."""
    selinux: str = ""
    """``enforcing``, ``permissive`` or empty."""
    apparmor: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        """The first two numbers of the kernel's release."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def has_sockets(self) -> bool:
        """Say whether core_pattern can name a socket (``@``)."""
        return self.kernel >= (6, 16) and (not self.core_modes or "socket" in self.core_modes)

    @property
    def asks_first(self) -> bool:
        """Say whether the kernel asks a socket before it sends a core (``@@``)."""
        return self.has_sockets and self.kernel >= (6, 17)


def look(settings: CorectlSettings, root: Path = Path("/")) -> HostFacts:
    """Look at the host; *root* is where its /proc, /sys and /etc are."""
    kernel = root / "proc/sys/kernel"
    pattern = read_pattern(_read(kernel / "core_pattern"))
    sees_host_pids, is_host_mounts = _sees_host_pids(root), _is_host_mounts(root)
    # With mounts of our own, those of the host can be seen through its PID 1.
    is_beside = bool(sees_host_pids) and is_host_mounts is False
    paths = [
        settings.crash_dir,
        *([settings.kernel_socket.parent] if settings.kernel_socket else []),
    ]
    return HostFacts(
        pattern=pattern,
        uses_pid=_read(kernel / "core_uses_pid").strip() not in {"", "0"},
        pipe_limit=_number(kernel / "core_pipe_limit"),
        suid_dumpable=_number(root / "proc/sys/fs/suid_dumpable"),
        release=_read(kernel / "osrelease").strip(),
        core_modes=tuple(_read(kernel / "core_modes").split()),
        rlimit=_rlimit(_read(root / "proc/1/limits")),
        crash_dir=look_at_directory(settings.crash_dir),
        apport_socket=look_at_socket(settings.apport_socket),
        kernel_socket=(
            _look_quietly(settings.kernel_socket, root)
            if settings.kernel_socket
            else Socket(path="", problem="CRASHAGENT_KERNEL_SOCKET is off")
        ),
        items_socket=look_at_socket(settings.run_dir / "items.sock"),
        source_pattern=settings.source_pattern,
        systemd_socket=(
            _look_quietly(settings.systemd_socket, root) if settings.systemd_socket else None
        ),
        systemd_cores=_look_if_taken(settings.systemd_dir),
        apport_reports=_look_if_taken(settings.apport_reports),
        systemd_storage=_storage(root),
        handler=_look_at_handler(pattern, root, is_host_mounts, is_beside),
        sees_host_pids=sees_host_pids,
        is_host_mounts=is_host_mounts,
        strange_paths=tuple(str(p) for p in paths if is_beside and _differs(p, root)),
        selinux={"1": "enforcing", "0": "permissive"}.get(
            _read(root / "sys/fs/selinux/enforce").strip(), ""
        ),
        apparmor=_read(root / "sys/module/apparmor/parameters/enabled").strip() == "Y",
    )


def look_at_directory(path: Path) -> Directory:
    """See whether *path* is a directory, and who may write there."""
    try:
        status = path.stat()
    except OSError as error:
        return Directory(path=str(path), problem=error.strerror or str(error))
    if not stat.S_ISDIR(status.st_mode):
        return Directory(path=str(path), problem="it is no directory")
    return Directory(
        path=str(path),
        mode=stat.S_IMODE(status.st_mode),
        is_for_all=status.st_mode & _OTHERS_MAY_WRITE == _OTHERS_MAY_WRITE,
        is_sticky=bool(status.st_mode & stat.S_ISVTX),
        label=_label(path),
    )


def _look_if_taken(path: Path | None) -> Directory | None:
    return None if path is None else look_at_directory(path)


def _label(path: Path) -> str:
    try:
        return os.getxattr(path, "security.selinux").decode(errors="replace").rstrip("\0")
    except OSError:
        return ""


def look_at_socket(path: Path) -> Socket:
    """See whether somebody answers at *path*."""
    try:
        knock_unix(path, _KNOCK_TIMEOUT)
    except OSError as error:
        return Socket(path=str(path), problem=error.strerror or str(error))
    return Socket(path=str(path))


def _look_quietly(path: Path, root: Path) -> Socket:
    """See whether somebody listens at *path*, where whoever connects is taken for a crash."""
    if not is_listed(path, root / SOCKETS.relative_to("/")):
        return look_at_socket(path)
    try:
        is_open = path.stat().st_mode & 0o077 and path.parent.stat().st_mode & 0o077
    except OSError as error:
        return Socket(path=str(path), problem=error.strerror or str(error))
    return Socket(path=str(path), is_private=not is_open)


def _look_at_handler(
    pattern: CorePattern, root: Path, is_host_mounts: bool | None, is_beside: bool
) -> str:
    if pattern.form != "pipe" or not (is_host_mounts or is_beside):
        return ""
    host = root if is_host_mounts else root / "proc/1/root"
    program = host / pattern.target.lstrip("/")
    try:
        is_runnable = stat.S_ISREG(program.stat().st_mode) and program.stat().st_mode & 0o111
    except PermissionError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return "" if is_runnable else "it is no program"


def _storage(root: Path) -> str:
    """Read the last Storage= of coredump.conf and its drop-ins."""
    found = "external"
    for text in _systemd_files(root):
        for value in re.findall(r"(?m)^\s*Storage\s*=\s*(\S+)", text):
            found = value.lower()
    return found


def _systemd_files(root: Path) -> Iterator[str]:
    yield _read(root / "etc/systemd/coredump.conf")
    folders = [root / top / "systemd/coredump.conf.d" for top in ("usr/lib", "run", "etc")]
    drop_ins = {path.name: path for folder in folders for path in folder.glob("*.conf")}
    for name in sorted(drop_ins):
        yield _read(drop_ins[name])


def _is_host_mounts(root: Path) -> bool | None:
    """Say whether we have the mount namespace of the host's PID 1; None where that is not told."""
    own = root / "proc/self/ns/mnt"
    if _is_initial(own, _INITIAL_MOUNT_NAMESPACE):
        return True
    if not (sees_pids := _sees_host_pids(root)):
        return sees_pids  # where PID 1 is a container's, so are the mounts
    try:
        return os.path.samestat(own.stat(), (root / "proc/1/ns/mnt").stat())
    except OSError:
        return None


def _sees_host_pids(root: Path) -> bool | None:
    return _is_initial(root / "proc/self/ns/pid", _INITIAL_PID_NAMESPACE)


def _differs(path: Path, root: Path) -> bool:
    """Say whether *path* is surely something else on the host."""
    try:
        return not os.path.samestat(path.stat(), (root / f"proc/1/root{path}").stat())
    except PermissionError:
        return False
    except OSError:
        return path.exists()


def _is_initial(namespace: Path, inode: int) -> bool | None:
    try:
        return namespace.stat().st_ino == inode
    except OSError:
        return None


def _rlimit(limits: str) -> tuple[str, str] | None:
    found = re.search(r"(?m)^Max core file size\s+(\S+)\s+(\S+)", limits)
    return (found[1], found[2]) if found else None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    """Read a small file; what cannot be read is empty."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""
