"""Stamp what is installed with the commit and the moment that it was built of and at.

setuptools calls this while it builds; `buildinfo` reads what it leaves.
"""

import os
import subprocess
import time
from pathlib import Path

from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

STAMP = Path("common", "build")
"""Where it stands among what is installed."""


class BuildPy(build_py):  # type: ignore[misc]  # it has no types
    """Builds as setuptools does, and adds the stamp; a tree that is only linked to has none."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, STAMP)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"{_commit()} {_date()}\n")


def _commit() -> str:
    """Name the commit of the working directory; ``unknown`` if it is not the top of a clone."""
    # By its name, so that a clone further up is not taken for ours, nor its owner asked for.
    where = ["--git-dir=.git", "--work-tree=."]
    words = ["git", *where, "describe", "--always", "--exclude=*", "--dirty"]
    told = os.environ.get("COREMOND_COMMIT_HASH", "")
    try:
        return told or subprocess.check_output(words, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _date() -> str:
    told = os.environ.get("COREMOND_BUILD_DATE", "")
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return told or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
