"""The demo does what it says, and leaves nothing behind when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import demo, kernel
from tests.bundle import ROOT, wait_until

pytestmark = [
    pytest.mark.usefixtures("real_kernel"),
    pytest.mark.xdist_group("demo"),
]


def start_demo() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def of_the_demo() -> list[int]:
    """Find every process of a bundle that lives in the demo's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes()
        except OSError:
            continue
        if f"COREMON_CRASH_DIR={demo.HOME}/crash\0".encode() in environ:
            found.append(int(path.parent.name))
    return found


def test_the_demo_shows_one_core_that_is_the_kernels_own() -> None:
    with start_demo() as process:
        shown, _ = process.communicate(timeout=90)

    assert process.returncode == 0, shown
    assert shown.rstrip().endswith("the same bytes")
    assert "RUNNING" in shown
    wait_until(nothing_left, "the bundle to end and the pattern to be back")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after", [0.6, 1.5, 2.5])
def test_an_interrupted_demo_leaves_no_process_and_no_pattern(
    number: signal.Signals, after: float
) -> None:
    with start_demo() as process:
        time.sleep(after)
        os.kill(process.pid, number)
        process.communicate(timeout=60)

    wait_until(nothing_left, "the bundle to end and the pattern to be back")


def nothing_left() -> bool:
    pattern = kernel.SETTINGS["core_pattern"].read_text()
    return not of_the_demo() and str(demo.HOME) not in pattern
