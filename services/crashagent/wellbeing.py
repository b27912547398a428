"""Whether crashagent can be reached, and can write what comes in."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from services.crashagent.settings import CrashagentSettings


def faults_of(settings: CrashagentSettings) -> Iterator[str]:
    """Say what keeps crashes from being taken in."""
    for path in (settings.apport_socket, settings.kernel_socket, settings.systemd_socket):
        if path:
            yield from _socket_faults(path)
    crash_dir = settings.crash_dir
    if not os.path.isdir(crash_dir):
        yield f"{crash_dir}: it is no directory, or is not there"
    elif not os.access(crash_dir, os.R_OK | os.W_OK | os.X_OK):
        yield f"{crash_dir}: it cannot be written"


def _socket_faults(path: Path) -> Iterator[str]:
    """Say why nobody can connect at *path*, as far as it can be seen without connecting."""
    try:
        status = os.stat(path)
    except OSError as error:
        yield f"nobody can connect at {path}: {error.strerror or error}"
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield f"nobody can connect at {path}: it is no socket"
