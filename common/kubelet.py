"""The pods of this node by the kubelet's own directories of logs, which need no API to be read.

``pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log``, and a link to the newest of a container
in ``containers/<pod>_<namespace>_<container>-<container id>.log``. No name of Kubernetes' has a
``_``. Source: the kubelet's pkg/kubelet/kuberuntime (BuildPodLogsDirectory, logSymlink).
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from common.pod import Container, Placed, Pod, default_hostname

KEPT = 3600.0
"""Seconds that a pod is remembered after its directory went."""
_MOST = 8192
"""Names of a directory that are remembered."""
_TICK = 20_000_000
"""A directory that changed so many ns before it was read may have changed again unnoticed."""

_LINK = re.compile(r"([^_]+)_([^_]+)_([^_]+)-([0-9a-f]{64})\.log", re.ASCII)
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.ASCII)

T = TypeVar("T")


def read_pod_name(directory: str) -> Pod | None:
    """Read ``<namespace>_<pod>_<uid>``; None where it is not that."""
    match directory.split("_"):
        case [namespace, name, uid] if namespace and name and _UID.fullmatch(uid):
            return Pod(namespace=namespace, name=name, uid=uid, hostname=default_hostname(name))
        case _:
            return None


def read_pod_directory(name: str) -> Pod | None:
    """Read ``<namespace>_<pod>_<uid>``, or that and ``_<container>``; None where it is not that."""
    parts = name.split("_")
    pod = read_pod_name("_".join(parts[:3]))
    if pod is None or len(parts) > 4 or not parts[-1]:
        return None
    return replace(pod, containers=(Container(name=parts[3]),)) if len(parts) == 4 else pod


@dataclass(frozen=True, slots=True)
class _Link:
    """The link to a container's newest log."""

    namespace: str
    pod: str
    container: str
    container_id: str
    uid: str
    """The pod's, by what it leads to; empty where it does not say so."""


class _Listing(Generic[T]):
    """Remembers what was read from the names of a directory, and reads them again as they change.

    *read* gives the key and the meaning of a name; *gone* changes the meaning of one that went.
    """

    def __init__(
        self, path: Path, read: Callable[[str], tuple[str, T] | None], gone: Callable[[T, int], T]
    ) -> None:
        self._path = path
        self._read = read
        self._gone = gone
        self._changed_at = -1
        self._listed_at = 0
        self.known: dict[str, T] = {}
        self._went: dict[str, int] = {}
        """Those that went, the first first, with when (ns)."""
        self.is_whole = True
        """There were no more names than are remembered."""

    def refresh(self) -> bool:
        """Read the names again, if they may have changed; say whether they were read."""
        try:
            changed_at = os.stat(self._path).st_mtime_ns
            if changed_at == self._changed_at and self._listed_at - changed_at > _TICK:
                return False
            listed_at = time.time_ns()
            names = os.listdir(self._path)
        except OSError:
            return False
        self._changed_at, self._listed_at = changed_at, listed_at
        self.is_whole = len(names) <= _MOST
        there = dict(found for name in names[:_MOST] if (found := self._read(name)))
        for key in self.known.keys() - there.keys() - self._went.keys():
            self._went[key] = listed_at
            self.known[key] = self._gone(self.known[key], listed_at)
        for key in there.keys() & self._went.keys():
            del self._went[key]
        self.known.update(there)
        self._forget(listed_at)
        return True

    def _forget(self, now: int) -> None:
        oldest = now - int(KEPT * 1e9)
        for key, when in list(self._went.items()):
            if when >= oldest and len(self.known) <= 2 * _MOST:
                break
            del self._went[key], self.known[key]


class KubeletLogs:
    """Knows the pods that have, or had a while ago, logs under *root*; many threads may ask."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = Lock()
        self._pods = _Listing[Pod](
            root / "pods", self._read_pod, lambda pod, now: replace(pod, until=now)
        )
        self._links = _Listing[_Link](root / "containers", self._read_link, lambda link, _: link)

    def _read_pod(self, name: str) -> tuple[str, Pod] | None:
        """Read a pod's directory: it was made before its last change."""
        pod = read_pod_name(name)
        if pod is None:
            return None
        known = self._pods.known.get(pod.uid)
        if known and known.until is None and (known.namespace, known.name) == _names(pod):
            return pod.uid, known
        since = 0
        with suppress(OSError):
            since = os.stat(self.root / "pods" / name).st_mtime_ns
        return pod.uid, replace(pod, since=since)

    def _read_link(self, name: str) -> tuple[str, _Link] | None:
        """Read a link while it is there, for its container may be asked for when it is not."""
        if not (match := _LINK.fullmatch(name)):
            return None
        pod, namespace, container, container_id = match.groups()
        known = self._links.known.get(container_id)
        if known and known.uid:
            return container_id, known
        target = ""
        with suppress(OSError):
            target = os.readlink(self.root / "containers" / name)
        led = next((found for part in target.split("/") if (found := read_pod_name(part))), None)
        uid = led.uid if led and _names(led) == (namespace, pod) else ""
        return container_id, _Link(namespace, pod, container, container_id, uid)

    def refresh(self) -> None:
        """Look at what came and went since."""
        with self._lock:
            self._pods.refresh()
            self._links.refresh()

    def by_container(self, container_id: str) -> Placed | None:
        """Find whose container has this id."""
        with self._lock:
            link = self._links.known.get(container_id)
            if link is None and self._links.refresh():
                link = self._links.known.get(container_id)
            if link is None:
                return None
            pod = self._pods.known.get(link.uid)
        pod = pod or Pod(
            namespace=link.namespace,
            name=link.pod,
            uid=link.uid,
            hostname=default_hostname(link.pod),
        )
        containers = (Container(name=link.container, ids=(container_id,)),)
        return Placed(replace(pod, containers=containers), link.container)

    def by_uid(self, uid: str) -> Pod | None:
        """Find the pod with this uid."""
        with self._lock:
            pod = self._pods.known.get(uid)
            if pod is None and self._pods.refresh():
                pod = self._pods.known.get(uid)
        return self._with_containers(pod) if pod else None

    def by_hostname(self, hostname: str) -> list[Pod]:
        """Find the pods that would have this host name, if they asked for no other."""
        return self._choose(lambda pod: pod.hostname == hostname)

    def by_name(self, name: str) -> list[Pod]:
        """Find the pods of this name, in any namespace."""
        return self._choose(lambda pod: pod.name == name)

    def _choose(self, is_it: Callable[[Pod], bool]) -> list[Pod]:
        with self._lock:
            self._pods.refresh()
            pods = [pod for pod in self._pods.known.values() if is_it(pod)]
        return [self._with_containers(pod) for pod in pods]

    def is_empty(self) -> bool:
        """Say whether no pod is known at all."""
        with self._lock:
            self._pods.refresh()
            return not self._pods.known

    def is_awaited(self) -> bool:
        """Say that what is there can be read at once."""
        return False

    def is_over(self, pod: Pod) -> bool:
        """Say whether the *pod* is surely no more: others have logs, and it has none."""
        with self._lock:
            self._pods.refresh()
            known, is_whole = self._pods.known, self._pods.is_whole
            is_known = pod.uid in known or not is_whole
            return not is_known and any(each.until is None for each in known.values())

    def directory(self, pod: Pod) -> Path:
        """Give the directory of a pod's logs."""
        return self.root / "pods" / f"{pod.namespace}_{pod.name}_{pod.uid}"

    def _with_containers(self, pod: Pod) -> Pod:
        try:
            names = sorted(os.listdir(self.directory(pod)))
        except OSError:  # it was deleted
            with self._lock:
                links = list(self._links.known.values())
            names = sorted({each.container for each in links if each.uid == pod.uid})
        return replace(pod, containers=tuple(Container(name=name) for name in names[:64]))


def _names(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.name
