"""Which build this is."""

import os
from pathlib import Path

from common import __version__

_UNKNOWN = "unknown"


def _stamp(path: Path) -> tuple[str, str]:
    """Read the commit and the date that `stamping` left in *path*."""
    try:
        commit, date = path.read_text().split()
    except (OSError, ValueError):
        return _UNKNOWN, _UNKNOWN
    return commit, date


VERSION = __version__
_COMMIT, _DATE = _stamp(Path(__file__).with_name("build"))
COMMIT_HASH = os.environ.get("COREMOND_COMMIT_HASH") or _COMMIT
"""As the environment says, which the image and make set; else of what was installed."""
BUILD_DATE = os.environ.get("COREMOND_BUILD_DATE") or _DATE
"""Likewise; RFC 3339."""


def describe(program: str) -> str:
    """Say in a line which build of *program* this is."""
    return f"{program} {VERSION}, commit {COMMIT_HASH}, built {BUILD_DATE}"
