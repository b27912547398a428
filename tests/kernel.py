"""The kernel's core_pattern, borrowed: one borrower at a time, and always given back."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "core_pattern": Path("/proc/sys/kernel/core_pattern"),
    "core_pipe_limit": Path("/proc/sys/kernel/core_pipe_limit"),
    "suid_dumpable": Path("/proc/sys/fs/suid_dumpable"),
}
LOCK = Path("/tmp/core_pattern.lock")  # a fixed place, so that all borrowers meet
PATTERN_LIMIT = 127
"""Bytes a core_pattern may have: core(5)."""

# Waits until whoever holds the other end of its standard input is gone, however that came about.
_GUARDIAN = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.buffer.read()
for path, value in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(path, "w") as file:
        file.write(value)
"""


def missing() -> str:
    """Say what is missing for the pattern to be set here; empty if nothing is."""
    if os.geteuid() != 0:
        return "root (only it may set core_pattern)"
    if not os.access(SETTINGS["core_pattern"], os.W_OK):
        return "a writable /proc/sys/kernel/core_pattern"
    return ""


@contextmanager
def core_pattern(pattern: str, *, pipe_limit: int = 0) -> Iterator[None]:
    """Set the pattern while the ``with`` block runs.

    A guardian process puts the old values back as soon as this process lets go of it, also when
    this process is killed; the lock stays until it has.
    """
    if len(os.fsencode(pattern)) > PATTERN_LIMIT:
        raise ValueError(f"a core_pattern may have {PATTERN_LIMIT} bytes: {pattern}")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = {name: path.read_text().rstrip("\n") for name, path in SETTINGS.items()}
        pairs = [word for name, path in SETTINGS.items() for word in (str(path), old[name])]
        guardian = subprocess.Popen(
            [sys.executable, "-S", "-c", _GUARDIAN, *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
        with guardian:
            assert guardian.stdout is not None
            guardian.stdout.readline()
            SETTINGS["core_pipe_limit"].write_text(str(pipe_limit))
            SETTINGS["core_pattern"].write_text(pattern)
            yield
            # Leaving closes the guardian's input and waits for it.


def file_pattern(directory: Path) -> str:
    """Write the file pattern of the product page, for *directory*."""
    return f"{directory}/core.%e.%p.%h.%t".replace("%", "%%", str(directory).count("%"))
