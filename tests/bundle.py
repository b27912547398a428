"""A bundle that runs: the real supervisord with the three real programs, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from common.daemon import end_with_parent
from common.naming import CORE_SUFFIXES
from tests import loglines

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
"""Seconds after which something that should have happened has not."""
_GOING = 10.0
"""Seconds that a source has to go, once its core is there."""


def wait_until(holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until *holds* gives something true, and give it."""
    deadline = time.monotonic() + patience
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s for {what}")
        time.sleep(0.02)
    return result


class Bundle:
    """Owns the folder and supervisord; ends what it started."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.crash_dir = home / "crash"
        self.spool = self.crash_dir / ".spool"
        self.run_dir = home / "run"
        self.node = "node-1"
        self.store_dir = home / "cores" / self.node
        self.apport_socket = home / "apport.socket"
        self.crash_dir.mkdir(exist_ok=True)
        self.settings = {
            "COREMON_RUN_DIR": str(self.run_dir),
            "COREMON_CRASH_DIR": str(self.crash_dir),
            "COREMON_CORES_DIR": str(home / "cores"),
            "COREMON_LEVELS_FILE": str(home / "minlevel.yaml"),
            "COREMON_KEEP_FREE": "0",
            "CRASHAGENT_APPORT_SOCKET": str(self.apport_socket),
            "QKVIEW_ADDRESS": "127.0.0.1:0",
            "COREMON_METRICS_ADDRESS": "127.0.0.1:0",
            "QKVIEW_TLS_DIR": str(home / "tls"),
            "NODE_NAME": self.node,
            **(settings or {}),
        }
        self.command = [str(BIN / "coremond-bundle")]
        self.lines: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of the bundle's programs, and of corectl beside them."""
        return {**os.environ, **self.settings}

    def start(self, *, until_ready: bool = True) -> None:
        """Start supervisord, and wait until the three programs serve."""
        seen = len(self.lines)
        self._process = subprocess.Popen(
            self.command,
            env=self.env,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=end_with_parent,  # no thread of ours holds a lock
        )
        self._reader = Thread(target=self._read, args=[self._process], daemon=True)
        self._reader.start()
        if until_ready:
            for text in ("listen and serve", "coremon dest", "grpc server is starting up"):
                self.wait_for(text, since=seen)
            # The last thing that coremond opens.
            wait_until(lambda: (self.run_dir / "coremond.mon").exists(), "coremond to serve")

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.decode().removesuffix("\n"))

    def stop(self) -> None:
        """Stop supervisord as an operator would, and wait for the last line."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        self._reader.join(10)
        assert process.stdout is not None
        process.stdout.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is not None:
            print("\n".join(self.lines[-200:]))

    def events(self, since: int = 0) -> list[dict[str, str]]:
        """Give the fields of the programs' lines."""
        return [loglines.parse(line) for line in self.lines[since:] if loglines.is_ours(line)]

    def find(self, text: str, since: int = 0, **facts: str) -> dict[str, str] | None:
        """Give the fields of the first line that says *text* with these *facts*."""
        for event in self.events(since):
            if event["m"] == text and facts.items() <= event.items():
                return event
        return None

    def wait_for(self, text: str, since: int = 0, **facts: str) -> dict[str, str]:
        """Wait for such a line."""
        found: dict[str, str] = wait_until(
            lambda: self.find(text, since, **facts), f"the line {text!r} {facts}"
        )
        return found

    def pid_of(self, program: str) -> int:
        """Give the pid of a program that runs; 0 if it does not."""
        for process in self.processes():
            if process["name"] == program:
                return int(process["pid"])
        return 0

    def processes(self) -> list[dict[str, Any]]:
        """Ask supervisord for its programs; none if it is not there."""
        try:
            found: list[dict[str, Any]] = self.ask("getAllProcessInfo")
        except (OSError, Fault):
            return []
        return found

    def ask(self, method: str, *words: str) -> Any:
        """Have supervisord do something: a method of its XML-RPC interface."""
        server = ServerProxy(
            "http://localhost",
            transport=SupervisorTransport(serverurl=f"unix://{self.run_dir}/supervisor.sock"),
        )
        try:
            return getattr(server.supervisor, method)(*words)
        finally:
            server("close")()

    def kill(self, program: str, number: int = signal.SIGKILL) -> int:
        """Kill a program by a signal; give the pid it had, 0 if it was not there to be killed."""
        pid = self.pid_of(program)
        if pid:
            os.kill(pid, number)
        return pid

    def kill_supervisord(self) -> None:
        """Kill supervisord itself with SIGKILL."""
        assert self._process is not None
        self._process.kill()

    def records(self) -> list[dict[str, Any]]:
        """Read every crash record, oldest crash first."""
        found = []
        for path in self.store_dir.glob("core.*.json"):
            try:
                found.append(json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue
        return sorted(found, key=lambda record: (record["crashed_at"], record["name"]))

    def stored(self) -> list[dict[str, Any]]:
        """Give the records whose core is there."""
        return [r for r in self.records() if r["state"] == "stored" and self.core(r).exists()]

    def core(self, record: Mapping[str, Any]) -> Path:
        """Give the path of a record's core."""
        return self.store_dir / f"{record['name']}{CORE_SUFFIXES[record['codec']]}"

    def wait_for_stored(self, number: int = 1, patience: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until *number* cores are stored."""
        found: list[dict[str, Any]] = wait_until(
            lambda: len(self.stored()) >= number and self.stored(),
            f"{number} stored cores",
            patience,
        )
        return found

    def leftovers(self) -> list[str]:
        """Name every file that stays, and is neither a core nor what lies beside one.

        A source goes a moment after its core is there.
        """
        end = time.monotonic() + _GOING
        while (names := self._left_over()) and time.monotonic() < end:
            time.sleep(0.05)
        return names

    def _left_over(self) -> list[str]:
        names = [
            f"{folder.name}/{path.name}"
            for folder in (self.crash_dir, self.spool)
            for path in folder.glob("*")
            if path != self.spool
        ]
        for path in self.store_dir.iterdir():
            whole = path.name.startswith("core.") and path.name.endswith(
                (*CORE_SUFFIXES.values(), ".crc", ".json", ".log")
            )
            if not whole and path.name != ".lock":
                names.append(f"cores/{path.name}")
        return sorted(names)

    def corectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run corectl as this bundle's operator."""
        return subprocess.run(
            [BIN / "corectl", *words], env=self.env, capture_output=True, text=True, timeout=60
        )


class Home:
    """Owns a short-named folder in /tmp, for sockets' paths may have 107 bytes."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)
