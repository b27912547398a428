"""A tiny program that crashes on purpose, under a name that nothing else has."""

import os
import secrets
import signal
import sys
from dataclasses import dataclass

_CODE = """
import os, resource, signal, sys
with open("/proc/self/comm", "w") as comm:
    comm.write(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGSEGV)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crashed:
    """A program that crashed, and what the kernel said of it."""

    comm: str
    pid: int
    dumped: bool
    """The kernel says that it handed a core over."""
    ended: str = ""
    """How it ended instead of crashing; empty where it crashed."""


def crash() -> Crashed:
    """Crash one, and wait until the kernel has let it go."""
    comm = f"doctor-{secrets.token_hex(4)}"  # 15 bytes, which is all that a comm may have
    words = [sys.executable, "-I", "-S", "-c", _CODE, comm]
    pid = os.posix_spawn(sys.executable, words, os.environ)
    _, status = os.waitpid(pid, 0)
    has_crashed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV
    return Crashed(
        comm=comm,
        pid=pid,
        dumped=os.WCOREDUMP(status),
        ended="" if has_crashed else f"exit status {os.waitstatus_to_exitcode(status)}",
    )
