"""Have systemd-coredump store cores: storing.py BINARY LIBRARIES TARGET CORE…; prints seconds.

With ``--serve`` for the cores it listens where the helper of systemd-coredump looks for its other
half, says so, and stores what comes until its standard input ends.

To be run by root in a mount namespace of its own: what systemd-coredump reads and writes is covered
there, so that nothing of the machine is touched. It gets what its socket unit would give it: a
connection as descriptor 3, with the fields of a crash and the core's descriptor. A core named - is
the standard input. Source: systemd, src/coredump/coredump.c, process_socket().
"""

import array
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CONNECTION = 3
SOCKET = Path("/run/systemd/coredump")
STORE = Path("/var/lib/systemd/coredump")
CONFIG = Path("/run/systemd/coredump.conf.d/benchmark.conf")
SETTINGS = """[Coredump]
Storage=external
Compress=yes
ExternalSizeMax=1T
ProcessSizeMax=0
MaxUse=0
KeepFree=0
"""
"""It stores only: no backtrace, and nothing is deleted."""


def cover(target: str) -> None:
    """Put *target* where it stores, and the settings where it reads them."""
    place = os.open(target, os.O_PATH)
    for covered in ("/var/lib", "/run"):
        _mount("-t", "tmpfs", "tmpfs", covered)
    STORE.mkdir(parents=True)
    CONFIG.parent.mkdir(parents=True)
    CONFIG.write_text(SETTINGS)
    _mount("--bind", f"/proc/{os.getpid()}/fd/{place}", str(STORE))
    _mount("--bind", "/dev/null", "/dev/kmsg")  # it logs there where no journal is


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def fields() -> dict[str, str]:
    """Give what is known of the crash."""
    return {
        "PID": str(os.getpid()),
        "UID": "0",
        "GID": "0",
        "SIGNAL": "6",
        "TIMESTAMP": f"{time.time_ns() // 1000}",
        "RLIMIT": f"{2**64 - 1}",
        "HOSTNAME": platform.node(),
        "COMM": "python3",
        "EXE": sys.executable,
    }


def store(binary: str, libraries: str, core: int) -> None:
    """Have one core stored."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        child = start(binary, libraries, its)
        its.close()
        for name, value in fields().items():
            ours.send(f"COREDUMP_{name}={value}".encode())
        rights = array.array("i", [core])
        ours.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"systemd-coredump ended with {os.waitstatus_to_exitcode(status)}")


def start(binary: str, libraries: str, connection: socket.socket) -> int:
    """Start it as its socket unit would; give its pid."""
    child = os.fork()
    if not child:
        with suppress(OSError):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(connection.fileno(), CONNECTION)
            os.set_inheritable(CONNECTION, True)
            environment = {
                "LISTEN_FDS": "1",
                "LISTEN_PID": str(os.getpid()),
                "LD_LIBRARY_PATH": libraries,
            }
            os.execve(binary, [binary], environment)
        os._exit(127)
    return child


def serve(binary: str, libraries: str, target: str) -> None:
    """Store what the helper sends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(SOCKET))
        place = os.open(SOCKET.parent, os.O_PATH)  # /run is covered in a moment
        try:
            listener.listen(128)
            cover(target)
            print("ready", flush=True)
            while 0 not in select.select([listener.fileno(), 0], [], [])[0]:
                connection, _ = listener.accept()
                with connection:
                    start(binary, libraries, connection)
        finally:
            os.unlink(SOCKET.name, dir_fd=place)


def main(binary: str, libraries: str, target: str, *cores: str) -> None:
    """Store each core, one after the other."""
    if cores == ("--serve",):
        serve(binary, libraries, target)
        return
    descriptors = [0 if core == "-" else os.open(core, os.O_RDONLY) for core in cores]
    cover(target)
    started = time.perf_counter()
    for descriptor in descriptors:
        store(binary, libraries, descriptor)
        os.close(descriptor)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
