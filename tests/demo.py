"""Show the whole path once: python -m tests.demo [FOLDER], which `make demo` runs.

A bundle is started in FOLDER (./var/demo), a real program crashes, and what became of it is shown.
As root the kernel writes the core; without, the crash is taken through the Apport socket.
"""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import crashes, kernel, loglines, workspace
from tests.bundle import ROOT, Bundle, wait_until

HOST = "f5-observer-0"
PROGRAM = "observer"


class DemoBundle(Bundle):
    """A bundle that lives where the demo shows it, and keeps its sources to compare with."""

    def __init__(self, home: Path) -> None:
        shutil.rmtree(home, ignore_errors=True)
        self.env_file = workspace.make(
            home,
            COREMON_DELETE_SRC="false",
            COREMON_KEEP_FREE="0",
            QKVIEW_ADDRESS="127.0.0.1:0",
            COREMON_METRICS_ADDRESS="127.0.0.1:0",
        )
        super().__init__(home, workspace.read(self.env_file) | {"NODE_NAME": "demo-node"})
        self.node = "demo-node"
        self.store_dir = home / "cores" / self.node
        self.run_dir = Path(self.settings["COREMON_RUN_DIR"])
        self.apport_socket = Path(self.settings["CRASHAGENT_APPORT_SOCKET"])


def main(home: Path) -> int:
    """Run the demo in the folder *home*; 0 if everything was as it should be."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say(f"Starting supervisord with coremond, crashagent and qkview-collect under {home}")
    try:
        with DemoBundle(home) as bundle:
            original = crash(bundle)
            [record] = bundle.wait_for_stored()
            show(bundle, record)
            return judge(bundle, record, original)
    except KeyboardInterrupt:
        print("\nInterrupted; everything is put back.", file=sys.stderr)
        return 130


def say(text: str) -> None:
    """Print what comes next."""
    print(f"\n== {text}", flush=True)


def crash(bundle: DemoBundle) -> str:
    """Let a real program crash, its core on the way to *bundle*; give the SHA-256 of its core."""
    missing = kernel.missing()
    pattern = kernel.file_pattern(bundle.crash_dir)
    if not missing and len(os.fsencode(pattern)) > kernel.PATTERN_LIMIT:
        missing = f"a shorter path than {bundle.crash_dir} (core_pattern has 127 bytes)"
    if missing:
        return crash_by_apport(bundle, missing)
    say(f"core_pattern is now {pattern}; killing {PROGRAM} with SIGSEGV")
    with kernel.core_pattern(pattern):
        crashes.kill_victim(crashes.start_victim(PROGRAM, HOST))
        bundle.wait_for_stored()
    print(f"core_pattern is back: {kernel.SETTINGS['core_pattern'].read_text().strip()}")
    [core] = bundle.crash_dir.glob("core.*")
    return digest(core)


def crash_by_apport(bundle: DemoBundle, missing: str) -> str:
    """Let the program crash in a folder of its own, and hand its core in as Apport would."""
    say(f"The kernel cannot be told where to write cores; what is missing: {missing}")
    print("So the core is taken as the kernel writes it here, and handed to the Apport socket.")
    with own_folder(bundle.home / "work"):
        victim = crashes.start_victim(PROGRAM)
        pid = crashes.kill_victim(victim)
        cores = sorted(Path.cwd().glob("core*"))
        if not cores:
            pattern = kernel.SETTINGS["core_pattern"].read_text().strip()
            sys.exit(
                f"The kernel wrote no core here: core_pattern is {pattern!r}, and the limit on "
                f"cores is {resource.getrlimit(resource.RLIMIT_CORE)[1]}. Run `make demo` as root."
            )
        with cores[0].open("rb") as core:
            crashes.forward(bundle.apport_socket, f"{pid} 11 0 1".encode(), core.fileno())
        bundle.wait_for_stored()
        return digest(cores[0])


@contextmanager
def own_folder(path: Path) -> Iterator[None]:
    """Work in *path* while the block runs."""
    path.mkdir()
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def digest(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show(bundle: DemoBundle, record: dict[str, Any]) -> None:
    """Show the programs, their lines, the files and the record."""
    wait_until(
        lambda: {process["statename"] for process in bundle.processes()} == {"RUNNING"},
        "the programs to be RUNNING",
    )
    say("corectl status")
    print(bundle.corectl("status").stdout, end="")
    say("The programs' log lines")
    print("\n".join(line for line in bundle.lines if loglines.is_ours(line)))
    say(f"The files in {bundle.store_dir}")
    subprocess.run(["ls", "-l", bundle.store_dir], check=True)
    say("corectl info")
    print(bundle.corectl("info", record["id"]).stdout, end="", flush=True)


def judge(bundle: DemoBundle, record: dict[str, Any], original: str) -> int:
    """Compare what is stored with what the kernel wrote, by tools that are not ours."""
    core = bundle.core(record)
    verified = bundle.corectl("verify", record["id"])
    with subprocess.Popen(["gunzip", "-c", core], stdout=subprocess.PIPE) as gunzip:
        assert gunzip.stdout is not None
        unpacked = hashlib.file_digest(gunzip.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    is_same = unpacked == original and gunzip.returncode == 0
    say("One stored core")
    print(f"core:      {core}")
    print(f"size:      {record['size']} bytes, packed into {record['packed']}")
    print(f"checksum:  {(core.parent / (core.name + '.crc')).read_text().strip()}")
    print(f"verified:  {verified.stdout.strip() or verified.stderr.strip()}")
    print(f"original:  sha256 {original}")
    print(f"gunzip'ed: sha256 {unpacked}: {'the same bytes' if is_same else 'DIFFERENT BYTES'}")
    return 0 if is_same and verified.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "var" / "demo"))
