"""A node as a kubelet and a container runtime leave it: cgroups, and directories of logs."""

import os
import secrets
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

Driver = Literal["cgroupfs", "systemd"]

_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids")
_JOIN = 'echo $$ > "$0" && exec "$@"'
_NAMED = 'hostname "$0" && exec "$@"'


def new_id() -> str:
    """Give an id as containerd draws it."""
    return secrets.token_hex(32)


def missing() -> str:
    """Say what is missing for cgroups to be made here; empty if nothing is."""
    return "" if _hierarchy() else "a cgroup hierarchy that can be written"


def _hierarchy() -> Path | None:
    for path in map(Path, _HIERARCHIES):
        if (path / "cgroup.procs").exists() and os.access(path / "cgroup.procs", os.W_OK):
            return path
    return None


class Node:
    """Owns made-up pods; *logs* stands for /var/log."""

    def __init__(self, logs: Path) -> None:
        hierarchy = _hierarchy()
        assert hierarchy
        self.logs = logs
        self._root = hierarchy / f"cm-{secrets.token_hex(4)}"
        self._containers: dict[str, Path] = {}
        for each in ("pods", "containers"):
            (logs / each).mkdir(parents=True)

    def __enter__(self) -> Self:
        self._root.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for folder, *_rest in os.walk(self._root, topdown=False):
            end = time.monotonic() + 10
            while True:
                try:
                    os.rmdir(folder)
                    break
                except OSError:  # a process that ended is still in it
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)

    def run_pod(
        self,
        namespace: str,
        name: str,
        containers: Mapping[str, str],
        *,
        uid: str = "",
        driver: Driver = "cgroupfs",
        runtime: str = "cri-containerd",
    ) -> str:
        """Make a pod with *containers*, names and their ids; give its uid."""
        uid = uid or str(uuid.uuid4())
        for container, container_id in containers.items():
            log = self.logs / "pods" / f"{namespace}_{name}_{uid}" / container / "0.log"
            log.parent.mkdir(parents=True)
            log.touch()
            link = self.logs / "containers" / f"{name}_{namespace}_{container}-{container_id}.log"
            link.symlink_to(log)
            if driver == "cgroupfs":
                place = f"kubepods/burstable/pod{uid}/{container_id}"
            else:
                pod = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
                scope = f"{runtime}-{container_id}.scope"
                place = f"kubepods.slice/kubepods-burstable.slice/{pod}/{scope}"
            self._containers[container_id] = self._root / place
            self._containers[container_id].mkdir(parents=True)
        return uid

    def end_pod(self, namespace: str, name: str, uid: str) -> None:
        """Remove the logs of a pod, as the kubelet does."""
        folder = self.logs / "pods" / f"{namespace}_{name}_{uid}"
        for link in (self.logs / "containers").iterdir():
            if folder in link.readlink().parents:
                link.unlink()
        for path, _, names in os.walk(folder, topdown=False):
            for each in names:
                os.unlink(Path(path) / each)
            with suppress(OSError):
                os.rmdir(path)

    def log_of(self, namespace: str, name: str, uid: str, container: str) -> Path:
        """Give the log of a container."""
        return self.logs / "pods" / f"{namespace}_{name}_{uid}" / container / "0.log"

    def command(self, container_id: str, *words: str | Path, hostname: str = "") -> list[str]:
        """Give the command that runs *words* in a container's cgroup, and with its host name."""
        joined = ["sh", "-c", _JOIN, str(self._containers[container_id] / "cgroup.procs")]
        named = ["unshare", "--uts", "sh", "-c", _NAMED, hostname] if hostname else []
        return [*joined, *named, *map(str, words)]

    def run(self, container_id: str, *words: str | Path, hostname: str = "") -> None:
        """Run a program to its death."""
        command = self.command(container_id, *words, hostname=hostname)
        result = subprocess.run(command, capture_output=True, cwd="/", check=False)
        assert result.returncode != 0, "it was to crash"
