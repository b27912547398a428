"""What is left of a core, in one word."""

import os
from collections.abc import Collection
from pathlib import Path

from common.record import CrashRecord


def presence(record: CrashRecord, files: Collection[str]) -> str:
    """Say what is left of the core of *record*, given the names of the *files* in the store."""
    if record.state == "held":
        return "none"
    if record.state == "removed":
        return "removed"
    if record.core not in files:
        return "missing"
    return "truncated" if record.truncated else "present"


def files_in(directory: Path) -> frozenset[str]:
    """Name the files in *directory*; a missing one has none."""
    try:
        return frozenset(os.listdir(directory))
    except FileNotFoundError:
        return frozenset()


def why_absent(record: CrashRecord) -> str:
    """Say in words why a core is not kept; empty where it should be."""
    if record.state == "stored":
        return ""
    what = "was removed" if record.state == "removed" else "was never stored"
    return f"its core {what}: {record.reason}" if record.reason else f"its core {what}"
