"""What the tests share: where bundles live, and the program that crashes."""

import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import crashes, kernel, node
from tests.bundle import Bundle, Home
from tests.node import Node

# What a shell starts in its background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those that set core_pattern run one after the other, and not wait for each other."""
    for item in items:
        if isinstance(item, pytest.Function) and "real_kernel" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("kernel"))


@pytest.fixture
def home() -> Iterator[Path]:
    with Home() as path:
        yield path


@pytest.fixture
def start_bundle(home: Path) -> Iterator[Callable[..., Bundle]]:
    """Give a function that starts a bundle with the settings it is given."""
    with ExitStack() as stack:

        def start(**settings: str) -> Bundle:
            return stack.enter_context(Bundle(home, settings))

        yield start


@pytest.fixture
def bundle(start_bundle: Callable[..., Bundle]) -> Bundle:
    return start_bundle()


@pytest.fixture
def faithful(home: Path) -> Iterator[Node]:
    """Give a node with cgroups and log directories, on which pods can be made up."""
    if lacking := node.missing():
        pytest.skip(f"missing: {lacking}")
    with Node(home / "log") as made:
        yield made


@pytest.fixture(scope="session")
def crash_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("a C compiler is missing (Debian package gcc)")
    return crashes.compile_program(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def real_kernel() -> None:
    """Ask for a kernel whose core_pattern can be set."""
    if what := kernel.missing():
        pytest.skip(f"missing: {what}")


@pytest.fixture
def coredump_socket(real_kernel: None) -> None:
    """Ask for a kernel that hands cores to a socket, and asks before."""
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 17):
        pytest.skip("missing: Linux 6.17, for its coredump socket")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """Mount a disk of 8 MiB where the cores go."""
    cores = home / "cores"
    cores.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(cores)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("missing: root that may mount a tmpfs")
    yield cores
    subprocess.run(["umount", str(cores)], check=True)
