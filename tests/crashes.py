"""Real crashes by the real kernel, each on its way to a bundle."""

import array
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from common import files
from common.daemon import end_with_parent
from tests import kernel
from tests.bundle import ROOT, Bundle

PROGRAMS = ROOT / "tests" / "programs"


@contextmanager
def by_file(bundle: Bundle) -> Iterator[None]:
    """Let the kernel write cores into the bundle's crash directory."""
    with kernel.core_pattern(kernel.file_pattern(bundle.crash_dir)):
        yield


@contextmanager
def by_apport(bundle: Bundle, *, at_once: int = 10) -> Iterator[None]:
    """Let the kernel hand cores to what Apport on a host does, towards the bundle's socket.

    The kernel drops what crashes beside *at_once* others; 10 is what Apport sets.
    """
    handler = bundle.home / "a"
    words = [sys.executable, str(PROGRAMS / "apport_host.py"), str(bundle.apport_socket)]
    handler.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@" 2>{bundle.home}/apport.err\n')
    handler.chmod(0o755)
    with kernel.core_pattern(f"|{handler} %p %s %c %d %P", pipe_limit=at_once):
        yield


def compile_program(directory: Path) -> Path:
    """Compile the C program that crashes; it is called ``crash``."""
    program = directory / "crash"
    subprocess.run(
        ["cc", "-g", "-O0", "-w", "-pthread", "-o", program, PROGRAMS / "crash.c"], check=True
    )
    return program


def run_to_death(*words: str | Path) -> int:
    """Run a program that crashes; give its pid."""
    process = subprocess.Popen([*words])
    code = process.wait(60)
    assert code < 0, f"{words} ended with {code}"
    return process.pid


def start_victim(name: str, host: str = "") -> subprocess.Popen[bytes]:
    """Start the Python program that waits to be killed."""
    words = [sys.executable, str(PROGRAMS / "victim.py"), name, *([host] if host else [])]
    process = subprocess.Popen(
        ["unshare", "--uts", *words] if host else words,
        stdout=subprocess.PIPE,
        preexec_fn=end_with_parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill_victim(process: subprocess.Popen[bytes], number: int = signal.SIGSEGV) -> int:
    """Crash it by a signal; give its pid."""
    os.kill(process.pid, number)
    with process:
        assert process.wait(60) == -number
    return process.pid


def forward(socket_path: Path, message: bytes, *descriptors: int) -> None:
    """Send *message* with *descriptors* to an Apport socket, and say no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(socket_path))
        rights = array.array("i", descriptors)
        connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        connection.shutdown(socket.SHUT_RDWR)


def is_accepted(path: Path) -> bool:
    """Say whether nobody waits in the backlog of the socket at *path*."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    states = [line.split()[5] for line in lines if line.endswith(f" {path}")]
    return "02" not in states and "03" in states  # SS_CONNECTING, SS_CONNECTED


class Sender:
    """Hands a core in through an Apport socket, bit by bit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading, self._writing = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_message(self, message: bytes, *more: int) -> None:
        """Send *message* with the pipe, and the descriptors *more*."""
        forward(self._path, message, self._reading, *more)
        os.close(self._reading)

    def write(self, data: bytes) -> None:
        """Send a part of the core."""
        files.write_all(self._writing, data)

    def close(self) -> None:
        """End the core."""
        os.close(self._writing)
