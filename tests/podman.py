"""The image and its containers, by a podman whose storage is the tests' own.

What a second run needs again (the base, the layers) is kept in a cache directory.
"""

import ast
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlparse

from tests.bundle import ROOT, Bundle

BASE = "docker.io/library/debian:bookworm-slim"
NEEDED = ("podman", "runc", "mmdebstrap")

_UNUSED = ("man", "doc", "locale", "info")
"""Folders of /usr/share that the -slim images of Debian do without."""
_LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
"""Those of podman itself are more than root may ask for without CAP_SYS_RESOURCE."""
IN_CONTAINER = ["--network=none", *_LIMITS]
"""What stands behind ``podman run`` for any container here."""
_KEPT = "240h"
_PIP_PATHS = {"cert", "client-cert"}
_PIP_SECTIONS = {":env:", "global"}
"""Those that hold for all of pip's commands."""


def missing() -> str:
    """Say what is missing for containers to run here; empty if nothing is."""
    if os.geteuid() != 0:
        return "root (for containers of several users)"
    return ", ".join(name for name in NEEDED if not shutil.which(name))


class Podman:
    """Owns the storage for as long as the ``with`` block runs, and removes its containers."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._folder = cache / "coremond-tests" / "podman"
        # podman wants a short path for its sockets, and the same one each time.
        running = Path("/tmp", f"cm-podman-{hashlib.sha256(bytes(self._folder)).hexdigest()[:8]}")
        self.words = [
            "podman",
            *(
                f"--root={self._folder}/storage",
                f"--runroot={running}/run",
                f"--tmpdir={running}/tmp",
            ),
            *("--cgroup-manager=cgroupfs", "--events-backend=file", "--log-level=fatal"),
            *("--storage-driver=overlay", "--runtime=runc"),
        ]

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # Others wait, for they share the containers.
            lock = stack.enter_context(open(self._folder / "lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._remove_containers()  # of who was killed
            self.run("image", "prune", "--force", f"--filter=until={_KEPT}")
            stack.callback(self._remove_containers)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a podman command to its end."""
        ended = subprocess.run([*self.words, *words], capture_output=True, text=True, cwd=ROOT)
        if check and ended.returncode != 0:
            raise AssertionError(f"podman {shlex.join(words)}:\n{ended.stdout}{ended.stderr}")
        return ended

    def ask(self, *words: str) -> Any:
        """Run a podman command that answers in JSON."""
        return json.loads(self.run(*words).stdout)

    def make_base(self) -> None:
        """Have Debian's image there, made as this machine fetches packages."""
        apt = self._write("apt.conf", _apt_configuration())
        words = [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={apt}"),
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNUSED),
            "bookworm",
        ]
        key = hashlib.sha256("\0".join([*words, apt.read_text()]).encode()).hexdigest()[:12]
        made = f"localhost/base:{key}"
        if self.run("image", "exists", made, check=False).returncode != 0:
            tar = self._folder / "base.tar"
            try:
                subprocess.run([*words, tar], check=True)
                self.run("import", str(tar), made)
            finally:
                tar.unlink(missing_ok=True)
        self.run("tag", made, BASE)

    def build(self, *words: str) -> None:
        """Build the image of the checkout."""
        self.run("build", *self.in_build(), *words, str(ROOT))

    def in_build(self) -> list[str]:
        """Give what stands behind ``podman build`` here, with this machine's settings of pip's."""
        return [
            *("--format=docker", "--pull=never", "--network=host", *_LIMITS),
            *(f"--volume={here}:{there}:ro" for here, there in self._pip_files().items()),
        ]

    def contain(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        return self.run("run", "--rm", *IN_CONTAINER, *words, check=check)

    def _pip_files(self) -> dict[Path, Path]:
        """Give the files here that pip needs in the build, and where."""
        options, places = _pip_configuration()
        lines = [f"{name} = {value}" for name, value in sorted(options.items())]
        written = self._write("pip.conf", "\n".join(["[global]", *lines, ""]))
        return {written: Path("/etc/pip.conf"), **places}

    def _write(self, name: str, text: str) -> Path:
        """Write a file for podman, which may have the passwords of proxies in it."""
        path = self._folder / name
        path.touch(0o600)
        path.write_text(text)
        return path

    def _remove_containers(self) -> None:
        self.run("rm", "--all", "--force", "--time=5")


def _apt_configuration() -> str:
    """Give how apt fetches here: proxies, and what it checks."""
    if not shutil.which("apt-config"):
        return ""
    words = ["apt-config", "dump", "--no-empty", "Acquire"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _pip_configuration() -> tuple[dict[str, str], dict[Path, Path]]:
    """Give pip's options, and where the files they name are to be in the build."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    # Those of the environment come first, and win.
    lines = [line.partition("=") for line in reversed(listed.splitlines())]
    options: dict[str, str] = {}
    for key, _, text in lines:
        section, _, name = key.rpartition(".")
        if section in _PIP_SECTIONS:
            options[name] = str(ast.literal_eval(text))
    places: dict[Path, Path] = {}
    for name, value in options.items():
        if name in _PIP_PATHS and Path(value).exists():
            # Not in its own place, which packages write to.
            places[Path(value).resolve()] = target = Path("/mnt", name)
            options[name] = str(target)
        else:
            places |= {path: path for word in value.split() if (path := _local_place(word))}
    return options, places


def _local_place(word: str) -> Path | None:
    """Give the directory that *word* of an option names, or an index in it; None if it is none."""
    parsed = urlparse(word)
    if parsed.scheme not in {"", "file"} or not parsed.path.startswith("/"):
        return None
    path = Path(unquote(parsed.path))
    path = path.parent if path.name == "simple" else path  # the files of an index lie beside it
    return path if path.is_dir() else None


class Collector(Bundle):
    """The image in a container; its crash and cores directories are those of *home*."""

    def __init__(
        self,
        podman: Podman,
        image: str,
        home: Path,
        *options: str,
        settings: Mapping[str, str] | None = None,
        user: int = 0,
    ) -> None:
        super().__init__(home)
        self._podman = podman
        self.name = home.name
        self.settings = {"NODE_NAME": self.node, **(settings or {})}
        self.crash_dir.chmod(0o1777)
        for folder in (home / "cores", self.run_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chown(folder, user, user)
        self.command = [
            *podman.words,
            "run",
            *IN_CONTAINER,
            *("--name", self.name, f"--user={user}:{user}"),
            *(f"--env={name}={value}" for name, value in self.settings.items()),
            *(f"--volume={self.crash_dir}:/var/crash", f"--volume={home}/cores:/var/cores"),
            *options,
            image,
        ]

    def start(self, *, until_ready: bool = True) -> None:
        """Start the container, and wait until the three programs serve."""
        super().start(until_ready=False)
        if until_ready:
            for text in ("listen and serve", "coremon dest", "grpc server is starting up"):
                self.wait_for(text)

    def stop(self) -> None:
        """Stop the container as an operator would, and have its last line."""
        self._podman.run("stop", "--time=30", self.name, check=False)
        super().stop()
        self._podman.run("rm", "--force", "--time=5", self.name, check=False)

    def state(self) -> dict[str, Any]:
        """Tell how the container is."""
        [told] = self._podman.ask("container", "inspect", self.name)
        state: dict[str, Any] = told["State"]
        return state

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as its user."""
        return self._podman.run("exec", self.name, *words, check=False)

    def corectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run corectl in the container."""
        return self.execute("corectl", *words)

    def is_well(self) -> bool:
        """Run the health check of the image once."""
        return self._podman.run("healthcheck", "run", self.name, check=False).returncode == 0


def crash(
    podman: Podman,
    image: str,
    *options: str,
    user: int,
    host: str,
    code: str = "import os; os.abort()",
) -> None:
    """Have a process of *user* crash in a container of its own, called *host*."""
    podman.contain(
        *("--cap-drop=ALL", "--ulimit=core=-1:-1", f"--user={user}:{user}", f"--hostname={host}"),
        *("--entrypoint=sh", *options, image),
        *("-c", f"python3 -c {shlex.quote(code)}; exit 0"),  # process 1 itself would live on
    )
