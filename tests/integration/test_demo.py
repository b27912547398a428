"""The demo does what it says, and leaves nothing behind when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests import kernel
from tests.bundle import ROOT, wait_until

pytestmark = pytest.mark.usefixtures("real_kernel")


def start_demo(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo", str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def of_the_demo(home: Path) -> list[int]:
    """Find every process of a bundle that lives in the demo's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes()
        except OSError:
            continue
        if f"COREMON_CRASH_DIR={home}/crash\0".encode() in environ:
            found.append(int(path.parent.name))
    return found


def test_the_demo_shows_one_core_that_is_the_kernels_own(home: Path) -> None:
    with start_demo(home) as process:
        shown, _ = process.communicate(timeout=90)

    assert process.returncode == 0, shown
    assert shown.rstrip().endswith("the same bytes")
    assert "RUNNING" in shown
    wait_until(partial(nothing_left, home), "the bundle to end and the pattern to be back")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after", [0.6, 1.5, 2.5])
def test_an_interrupted_demo_leaves_no_process_and_no_pattern(
    home: Path, number: signal.Signals, after: float
) -> None:
    with start_demo(home) as process:
        time.sleep(after)
        os.kill(process.pid, number)
        process.communicate(timeout=60)

    wait_until(partial(nothing_left, home), "the bundle to end and the pattern to be back")


def nothing_left(home: Path) -> bool:
    pattern = kernel.SETTINGS["core_pattern"].read_text()
    return not of_the_demo(home) and str(home) not in pattern
