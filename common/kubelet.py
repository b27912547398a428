"""The pods of this node by the kubelet's own directories of logs, which need no API to be read.

``pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log``, and a link to the newest of a container
in ``containers/<pod>_<namespace>_<container>-<container id>.log``. No name of Kubernetes' has a
``_``. Source: the kubelet's pkg/kubelet/kuberuntime (BuildPodLogsDirectory, logSymlink).
"""

import os
import re
import time
from collections.abc import Callable, Iterable
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
_MOST_CONTAINERS, _MOST_SPANS = 64, 15

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
        self.changed_at = -1
        """When it last changed, as far as was seen (ns)."""
        self._listed_at = 0
        self.before = 0
        """What is new was not there yet then (ns); 0 is unknown."""
        self.known: dict[str, T] = {}
        self._went: dict[str, int] = {}
        """Those that went, the first first, with when (ns)."""
        self.is_whole = True
        """There were no more names than are remembered."""

    def refresh(self) -> bool:
        """Read the names again, if they may have changed; say whether they were read."""
        try:
            listed_at = time.time_ns()
            changed_at = os.stat(self._path).st_mtime_ns
            if changed_at == self.changed_at and self._listed_at - changed_at > _TICK:
                self._listed_at = listed_at  # they are the same
                return False
            names = os.listdir(self._path)
        except OSError:
            return False
        self.before = self._listed_at if self.is_whole else 0
        self.changed_at, self._listed_at = changed_at, listed_at
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
        self._links_of: dict[str, list[_Link]] = {}
        """By the pod's uid."""

    def _read_pod(self, name: str) -> tuple[str, Pod] | None:
        """Read a pod's directory: when it was made is known of one that came since we looked."""
        pod = read_pod_name(name)
        if pod is None:
            return None
        known = self._pods.known.get(pod.uid)
        if known and known.full_name == pod.full_name:
            return pod.uid, known if known.until is None else replace(known, until=None)
        return pod.uid, replace(
            pod, since=self._pods.before, made_by=self._pods.changed_at + _TICK, seen=()
        )

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
            target = os.readlink(f"{self.root}/containers/{name}")
        own = f"{namespace}_{pod}_"
        led = next((part for part in target.split("/") if part.startswith(own)), "")
        uid = led.removeprefix(own)
        uid = uid if _UID.fullmatch(uid) else ""
        return container_id, _Link(namespace, pod, container, container_id, uid)

    def refresh(self) -> None:
        """Look at what came and went since."""
        with self._lock:
            self._pods.refresh()
            self._refresh_links()
        for pod in self.there():
            self._look_into(pod)

    def _refresh_links(self) -> bool:
        if not self._links.refresh():
            return False
        self._links_of = {}
        for link in self._links.known.values():
            if link.uid:
                self._links_of.setdefault(link.uid, []).append(link)
        return True

    def by_container(self, container_id: str) -> Placed | None:
        """Find whose container has this id."""
        with self._lock:
            link = self._links.known.get(container_id)
            if link is None and self._refresh_links():
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
        return self._look_into(pod) if pod else None

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
        return [self._look_into(pod) for pod in pods]

    def there(self) -> list[Pod]:
        """Give the pods that are there now; their containers are not looked at."""
        with self._lock:
            self._pods.refresh()
            return [pod for pod in self._pods.known.values() if pod.until is None]

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
        return self.root / "pods" / _directory(pod)

    def _look_into(self, pod: Pod) -> Pod:
        """Give the *pod* with all containers that it was ever seen to have.

        What is removed of its directory changes the directory. So those that are in it are all that
        ran since its last change, and up to now.
        """
        names, changed_at, looked_at = list[str](), 0, time.time_ns()
        path = f"{self.root}/pods/{_directory(pod)}"
        with suppress(OSError):  # it was deleted
            changed_at = os.stat(path).st_mtime_ns
            if not _is_seen(pod, changed_at + _TICK):
                changed_at = 0
                names = os.listdir(path)
                changed_at = os.stat(path).st_mtime_ns
        with self._lock:
            known = self._pods.known.get(pod.uid)
            is_known = known is not None and known.full_name == pod.full_name
            pod = known if known and is_known else pod
            pod = _with_containers(pod, names, self._links_of.get(pod.uid, ()))
            if changed_at:
                pod = replace(pod, seen=_with_span(pod.seen or (), changed_at + _TICK, looked_at))
            if is_known:
                self._pods.known[pod.uid] = pod
        if changed_at and pod.seen and pod.seen[-1][0] == changed_at + _TICK:
            return replace(pod, seen=(*pod.seen[:-1], (changed_at + _TICK, None)))
        return pod


def _directory(pod: Pod) -> str:
    return f"{pod.namespace}_{pod.name}_{pod.uid}"


def _with_containers(pod: Pod, names: Iterable[str], links: Iterable[_Link]) -> Pod:
    """Add to the containers of a *pod* those that are called so, and those that have *links*."""
    known = {each.name: each.ids for each in pod.containers}
    ids: dict[str, tuple[str, ...]] = dict.fromkeys((*known, *names), ())
    for link in links:
        ids[link.container] = (link.container_id, *ids.get(link.container, ()))
    if ids == known:
        return pod
    return replace(
        pod,
        containers=tuple(
            Container(name=name, ids=ids[name]) for name in sorted(ids)[:_MOST_CONTAINERS]
        ),
    )


def _is_seen(pod: Pod, since: int) -> bool:
    """Say whether the directory of a *pod* was looked into since that moment, when it changed."""
    last, until = (pod.seen or ((0, -1),))[-1]
    return last == since and until is not None and until >= since


def _with_span(
    spans: tuple[tuple[int, int | None], ...], since: int, until: int
) -> tuple[tuple[int, int | None], ...]:
    """Add one that lasted *until* then; a directory that did not change lengthens the last."""
    if spans and spans[-1][0] > since:  # another thread looked later
        return spans
    if spans and spans[-1][0] == since:
        return (*spans[:-1], (since, max(until, spans[-1][1] or 0)))
    return (*spans[-_MOST_SPANS:], (since, until))
