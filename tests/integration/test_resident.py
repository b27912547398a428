"""What is taken from a process's memory is what the kernel itself would have written."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.item import Encoding
from common.packing import restoring
from common.packing.crew import Crew
from common.packing.sources import Allowance, Source, StreamSource
from services.crashagent import coredump_socket
from services.crashagent.listener import open_listener
from services.crashagent.part import open_part
from services.crashagent.pidfd import peer_pidfd, read_pidfd
from services.crashagent.process import hold
from services.crashagent.resident import Memory, Stream, read_head
from tests import kernel
from tests.benchmarks.inputs import is_same
from tests.bundle import wait_until
from tests.crashes import PROGRAMS

KINDS = [
    "sparse",
    "checkered",
    "threads",
    "leaderless",
    "shared",
    "huge",
    "locked",
    "file",
    "forked",
    "only-read",
    "forbidden",
    "userfault",
    "write-protected",
    "merged",
    "memfd",
    "system-v",
    "stacks",
    "moved",
    "hugetlb",
    "keys",
    "vforked",
    "ending",
    "guarded",
    "filter-0x33",
    "filter-0x7f",
    "filter-0x1",
    "filter-0x1ff",
    "filter-0x2",
]
MISSING = 77
"""What the program ends with where its memory cannot be laid out so."""
PYTHON = "import json, os; kept = [json.dumps({'n': n}) for n in range(10**5)]; os.abort()"


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program that lays out its memory."""
    program = tmp_path_factory.mktemp("bin") / "memory"
    subprocess.run(["cc", "-w", "-pthread", "-o", program, PROGRAMS / "memory.c"], check=True)
    return program


@contextmanager
def crashed(folder: Path, words: list[str]) -> Iterator[socket.socket]:
    """Give the connection that the kernel opens for a program that crashes."""
    path = folder / "k.sock"
    with closing(open_listener(path)) as listener, kernel.core_pattern(f"@@{path}"):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process:
            listener.settimeout(0.1)
            with wait_until(lambda: accepted(listener, process), "the crash") as connection:
                connection.setblocking(False)
                yield connection


def accepted(listener: socket.socket, process: "subprocess.Popen[bytes]") -> socket.socket | None:
    try:
        return listener.accept()[0]
    except TimeoutError:
        if process.poll() == MISSING:
            assert process.stderr is not None
            pytest.skip(f"missing: {process.stderr.read().decode().strip()}")
        return None


def read(connection: socket.socket, view: memoryview) -> int:
    connection.setblocking(True)
    return connection.recv_into(view)


@pytest.mark.usefixtures("coredump_socket")
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("kind", [*KINDS, "python"])
def test_it_is_what_the_kernel_itself_would_have_written(
    kind: str, encoding: Encoding, memory: Path
) -> None:
    words = [str(memory), kind] if kind != "python" else [sys.executable, "-c", PYTHON]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "file":
            words.append(str(folder / "mapped"))
        with crashed(folder, words) as connection, Crew(2) as crew:
            request = coredump_socket.read_request(connection)
            assert request is not None
            coredump_socket.ask_for_core(connection, request)
            pidfd = peer_pidfd(connection)
            held = hold(read_pidfd(pidfd).pid)
            os.close(pidfd)
            assert held is not None
            stream = Stream(lambda view: read(connection, view))
            with closing(held), Memory(held, read_head(stream)) as pages:
                write(pages.source(Allowance()), folder / "ours", encoding, crew)
            write(StreamSource(stream.read), folder / "kernels", "raw", crew)
        if encoding != "raw":
            restore(folder / "ours", folder / "unpacked")

        assert (folder / "kernels").stat().st_size > 0
        assert is_same(folder / ("ours" if encoding == "raw" else "unpacked"), folder / "kernels")


def write(source: Source, path: Path, encoding: Encoding, crew: Crew) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        part = open_part(file, encoding, crew)
        part.fill(source, lambda: None)
        part.end(source.cut)
    finally:
        os.close(file)
    assert not source.cut


def restore(packed: Path, target: Path) -> None:
    with packed.open("rb") as reading, target.open("w+b") as writing:
        restoring.restore(reading.fileno(), writing.fileno())
