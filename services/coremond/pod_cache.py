"""The pods of this node as the API tells of them, and for a while those that were deleted.

Source: the Kubernetes API reference, core/v1 Pod; of a static pod the kubelet's own uid is the
annotation kubernetes.io/config.hash, which its mirror in the API has. Anybody can write one, too.
"""

import re
import time
from calendar import timegm
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from common.pod import Container, ContainerKind, Placed, Pod, default_hostname
from common.settings import NANOSECONDS
from common.workload import stem

KEPT = 3600.0
"""Seconds that a deleted pod is remembered."""
MOST_DELETED = 1024
_MOST_IDS = 32
"""Ids of a container that are remembered: each start gives it a new one."""
_STATIC_UID, _MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"
_HASH = re.compile(r"[0-9a-f]{32}", re.ASCII)
_POD_HASH = "pod-template-hash"


class _Part(msgspec.Struct, rename="camel", kw_only=True):
    """A piece of the API's JSON; whatever is not named here is passed over."""


class _Owner(_Part):
    kind: str = ""
    name: str = ""
    controller: bool | None = False


class _Metadata(_Part):
    name: str
    namespace: str
    uid: str
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Resources(_Part):
    limits: dict[str, str | int | float] | None = None


class _ContainerSpec(_Part):
    name: str
    image: str = ""
    command: list[str] | None = None
    restart_policy: str | None = None
    resources: _Resources | None = None


class _Spec(_Part):
    hostname: str | None = None
    hostname_override: str | None = None
    host_network: bool | None = False
    containers: list[_ContainerSpec] | None = None
    init_containers: list[_ContainerSpec] | None = None
    ephemeral_containers: list[_ContainerSpec] | None = None


class _Ended(_Part):
    container_id: str | None = msgspec.field(default=None, name="containerID")
    exit_code: int = 0
    started_at: str | None = None
    finished_at: str | None = None


class _Running(_Part):
    started_at: str | None = None


class _State(_Part):
    running: _Running | None = None
    terminated: _Ended | None = None


class _ContainerStatus(_Part):
    name: str
    image_id: str | None = msgspec.field(default=None, name="imageID")
    container_id: str | None = msgspec.field(default=None, name="containerID")
    restart_count: int = 0
    state: _State | None = None
    last_state: _State | None = None


class _Status(_Part):
    qos_class: str | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None
    ephemeral_container_statuses: list[_ContainerStatus] | None = None


class ApiPod(_Part):
    """A pod, as the API gives it, as far as it matters here."""

    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Told(NamedTuple):
    """A pod, under the uid that the API has for it."""

    uid: str
    pod: Pod


class PodCache:
    """Knows the pods that it was told of; many threads may ask.

    *labels* and *annotations* are the patterns of those that are kept. *is_awaited* says that
    somebody will tell of all pods, and then of all that changes.
    """

    def __init__(
        self,
        *,
        labels: Iterable[str] = (),
        annotations: Iterable[str] = (),
        is_awaited: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._labels = tuple(labels)
        self._annotations = tuple(annotations)
        self._is_awaited = is_awaited
        self._clock = clock
        self._lock = Lock()
        self._pods: dict[str, Pod] = {}
        """By the API's uid, those that are there."""
        self._deleted = OrderedDict[str, Pod]()
        """By the API's uid, the first deleted first."""
        self._mirrors: dict[str, set[str]] = {}
        """By the kubelet's uid, the API's of all that say that they are that static pod."""
        self._by_id: dict[str, Placed] = {}

    def replace_all(self, pods: Iterable[ApiPod]) -> None:
        """Take *pods* for all that there are, once all have come; of each little is kept."""
        there = [self._read(pod) for pod in pods]
        with self._lock:
            self._is_awaited = False
            for uid in self._pods.keys() - {told.uid for told in there}:
                self._delete(uid)
            for told in there:
                self._put(told)

    def put(self, pod: ApiPod) -> None:
        """Take a pod that is new, or has changed."""
        told = self._read(pod)
        with self._lock:
            self._put(told)

    def delete(self, pod: ApiPod) -> None:
        """Take a pod, in its last state, that is there no more."""
        told = self._read(pod)
        with self._lock:
            self._put(told)
            self._delete(told.uid)

    def set_awaited(self, is_awaited: bool) -> None:
        """Take note whether there may be changes that nobody tells of."""
        with self._lock:
            self._is_awaited = is_awaited

    def _put(self, told: _Told) -> None:
        uid, pod = told
        before = self._pods.get(uid) or self._take_deleted(told)
        if before:
            pod = replace(pod, containers=_with_what_was(pod.containers, before))
            self._forget(uid, before)
        self._pods[uid] = pod
        if pod.uid != uid:
            self._mirrors.setdefault(pod.uid, set()).add(uid)
        self._index(pod)

    def _take_deleted(self, told: _Told) -> Pod | None:
        """Give what was deleted and is there again: a static pod's mirror has another uid then."""
        for uid in (told.uid, *self._mirrors.get(told.pod.uid, ())):
            gone = self._deleted.get(uid)
            if gone and gone.full_name == told.pod.full_name:
                del self._deleted[uid]
                self._forget(uid, gone)
                return gone
        return None

    def _forget(self, uid: str, pod: Pod) -> None:
        for container in pod.containers:
            for container_id in container.ids:
                self._by_id.pop(container_id, None)
        if mirrors := self._mirrors.get(pod.uid):
            mirrors.discard(uid)
            if not mirrors:
                del self._mirrors[pod.uid]

    def _delete(self, uid: str) -> None:
        gone = replace(self._pods.pop(uid), until=self._clock())
        self._deleted[uid] = gone
        self._index(gone)
        oldest = self._clock() - int(KEPT * NANOSECONDS)
        while self._deleted:
            first = next(iter(self._deleted.values()))
            if len(self._deleted) <= MOST_DELETED and (first.until or 0) >= oldest:
                break
            self._forget(*self._deleted.popitem(last=False))

    def _index(self, pod: Pod) -> None:
        for container in pod.containers:
            for container_id in container.ids:
                self._by_id[container_id] = Placed(pod, container.name)

    def by_container(self, container_id: str) -> Placed | None:
        """Find whose container has this id, or had it."""
        with self._lock:
            return self._by_id.get(container_id)

    def by_uid(self, uid: str) -> Pod | None:
        """Find the pod with this uid; none where several say that they are that static pod."""
        with self._lock:
            if pod := self._pods.get(uid) or self._deleted.get(uid):
                return pod if pod.uid == uid else replace(pod, uid=uid)
            mirrors = self._mirrors.get(uid, ())
            for pods in (self._pods, self._deleted):
                if found := [pods[each] for each in mirrors if each in pods]:
                    return found[0] if len(found) == 1 else None
        return None

    def by_hostname(self, hostname: str) -> list[Pod]:
        """Find the pods whose processes see this host name."""
        return self._choose(lambda pod: pod.hostname == hostname)

    def by_name(self, name: str) -> list[Pod]:
        """Find the pods of this name, in any namespace."""
        return self._choose(lambda pod: pod.name == name)

    def _choose(self, is_it: Callable[[Pod], bool]) -> list[Pod]:
        with self._lock:
            pods = [*self._pods.values(), *self._deleted.values()]
        return [pod for pod in pods if is_it(pod)]

    def there(self) -> list[Pod]:
        """Give the pods that are there now."""
        with self._lock:
            return list(self._pods.values())

    def is_empty(self) -> bool:
        """Say whether no pod is known at all."""
        with self._lock:
            return not self._pods and not self._deleted

    def is_awaited(self) -> bool:
        """Say whether there may be pods, or changes, that are still to be told of."""
        with self._lock:
            return self._is_awaited

    def _read(self, pod: ApiPod) -> _Told:
        metadata, spec = pod.metadata, pod.spec
        labels, annotations = metadata.labels or {}, metadata.annotations or {}
        kind, owner = _owner(metadata, labels)
        static_uid = _static_uid(annotations)
        hostname = spec.hostname_override or spec.hostname or default_hostname(metadata.name)
        read = Pod(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=static_uid or metadata.uid,
            hostname="" if spec.host_network else hostname,
            containers=_containers(pod),
            since=0 if static_uid else _moment(metadata.creation_timestamp),  # the mirror's
            owner_kind=kind,
            owner_name=owner,
            qos=pod.status.qos_class or "",
            labels=_chosen(labels, self._labels),
            annotations=_chosen(annotations, self._annotations),
        )
        return _Told(metadata.uid, read)


def _static_uid(annotations: dict[str, str]) -> str:
    """Give the uid that the kubelet has for a static pod, whose mirror this is; empty if it is not.

    Users choose annotations: one that is not the kubelet's hash could be the uid of any pod.
    """
    uid = annotations.get(_STATIC_UID, "")
    return uid if _HASH.fullmatch(uid) and annotations.get(_MIRROR) == uid else ""


def _owner(metadata: _Metadata, labels: dict[str, str]) -> tuple[str, str]:
    """Give the workload that made the pod; what stands between is seen by its name."""
    owner = next((each for each in metadata.owner_references or () if each.controller), None)
    if owner is None:
        return "", ""
    pod_hash = labels.get(_POD_HASH)
    if owner.kind == "ReplicaSet" and pod_hash and owner.name.endswith(f"-{pod_hash}"):
        return "Deployment", owner.name.removesuffix(f"-{pod_hash}")
    if owner.kind == "Job" and (cron := stem(f"{owner.name}-bcdfg")) != owner.name:
        return "CronJob", cron
    return owner.kind, owner.name


def _containers(pod: ApiPod) -> tuple[Container, ...]:
    spec, status = pod.spec, pod.status
    kinds: tuple[tuple[ContainerKind, Any, Any], ...] = (
        ("container", spec.containers, status.container_statuses),
        ("init", spec.init_containers, status.init_container_statuses),
        ("ephemeral", spec.ephemeral_containers, status.ephemeral_container_statuses),
    )
    return tuple(
        _container(kind, each, next((s for s in statuses or () if s.name == each.name), None))
        for kind, specs, statuses in kinds
        for each in specs or ()
    )


def _container(
    kind: ContainerKind, spec: _ContainerSpec, status: _ContainerStatus | None
) -> Container:
    limits = (spec.resources.limits if spec.resources else None) or {}
    running = status.state.running if status and status.state else None
    ended = status.state.terminated if status and status.state else None
    before = status.last_state.terminated if status and status.last_state else None
    is_first = status is not None and not status.restart_count
    is_over = kind != "container" and spec.restart_policy != "Always"
    ids = [status.container_id if status else None]
    ids += [state.container_id for state in (ended, before) if state]
    return Container(
        name=spec.name,
        kind=kind,
        ids=tuple(dict.fromkeys(_bare(each) for each in ids if each)),
        image=spec.image,
        image_id=(status.image_id if status else None) or "",
        command=(spec.command or [""])[0],
        restart_count=status.restart_count if status else None,
        limits={name: str(value) for name, value in limits.items()},
        since=_moment(begun.started_at) if is_first and (begun := running or ended) else 0,
        until=_moment(ended.finished_at) if is_over and ended and not ended.exit_code else None,
    )


def _bare(container_id: str) -> str:
    """Give the id without the name of the runtime: ``containerd://<id>``."""
    return container_id.rpartition("/")[2]


def _with_what_was(containers: tuple[Container, ...], before: Pod) -> tuple[Container, ...]:
    return tuple(
        replace(
            each,
            ids=tuple(dict.fromkeys((*each.ids, *earlier.ids)))[:_MOST_IDS],
            since=earlier.since or each.since,
        )
        if (earlier := before.container(each.name))
        else each
        for each in containers
    )


def _chosen(values: dict[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    return {
        name: value
        for name, value in values.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _moment(timestamp: str | None) -> int:
    """Read a moment as the API writes it, in whole seconds that are over; 0 where it is not one."""
    try:
        return (timegm(time.strptime(timestamp or "", "%Y-%m-%dT%H:%M:%SZ")) + 1) * NANOSECONDS
    except ValueError:
        return 0
