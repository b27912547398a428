"""What a pidfd tells of its process, also of one that is just being dumped.

Sources: ioctl_pidfd(2) and include/uapi/linux/pidfd.h; unix(7) for the pidfd of a peer.
"""

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

_SO_PEERPIDFD = 77
_GET_INFO = 0xC048FF0B  # PIDFD_GET_INFO in its form of 72 bytes, since Linux 6.16
_INFO = struct.Struct("=QQ11IiII")
_PID, _CREDENTIALS, _EXIT, _COREDUMP, _SIGNAL = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 6
_COREDUMPED, _DUMPED_AS_USER = 1 << 0, 1 << 2


@dataclass(frozen=True, slots=True)
class PidfdInfo:
    """One process, as the kernel knows it."""

    pid: int = 0
    """In our pid namespace; 0 where it is reaped, or in none that we see."""
    is_dumped: bool | None = None
    """Whether its core is being dumped, or was; None where that is not told."""
    dumpable: int | None = None
    """1 where the core is its user's, 2 where it is root's alone: prctl(2), PR_GET_DUMPABLE."""
    signal: int | None = None
    """What it died of; None where the kernel does not tell (before Linux 6.19)."""


def peer_pidfd(connection: socket.socket) -> int:
    """Give a new pidfd of the process that connected; OSError where there is none."""
    return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)


def read_pidfd(pidfd: int) -> PidfdInfo:
    """Ask the kernel; OSError (ENOTTY, ESRCH) where it does not tell.

    A process that is reaped is still told of, as it is asked for its exit, too. Of one in a pid
    namespace that is not below ours (a pod without ``hostPID``) nothing is told.
    """
    asked = bytearray(_INFO.size)
    struct.pack_into("=Q", asked, 0, _PID | _CREDENTIALS | _EXIT | _COREDUMP | _SIGNAL)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, asked)
    except OSError as error:
        if error.errno == errno.EREMOTE:
            return PidfdInfo()
        raise
    mask, _, pid, *_, coredump, number = _INFO.unpack(asked)
    return PidfdInfo(
        pid=pid if mask & _PID else 0,
        is_dumped=bool(mask & _COREDUMP and coredump & _COREDUMPED),
        dumpable=1 if coredump & _DUMPED_AS_USER else 2,
        signal=number if mask & _SIGNAL else None,
    )


def pid_of(pidfd: int) -> int:
    """Give the pid of the process behind *pidfd*; -1 once it is reaped: proc_pid_fdinfo(5)."""
    descriptor = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(descriptor, 4096).split(b"\n")
    finally:
        os.close(descriptor)
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Pid:")), -1)


def inode_of(pidfd: int) -> int:
    """Give what is this process's alone, of all that were since the machine started."""
    return os.fstat(pidfd).st_ino
