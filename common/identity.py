"""Whose crash it is: the pod and the container, and how sure that is.

The surest source that answers counts: the container or the pod of the process's cgroup, the pod
whose directory the core was left in, what the environment in the core claims, the host name. All
but the first is the process's own word, or its pod's: where it does not fit together, or others may
be there that nobody has told of, it is a guess.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from common.cgroup import Placement, read_placement
from common.item import Crash
from common.pod import Container, NoPods, Placed, Pod, Pods
from common.record import ContainerBy, Identity, IdentityBy
from common.workload import stem

_SLACK = 5_000_000_000
"""Clocks that tell when a pod was there, and when it crashed, differ by at most so many ns."""
_TOLD_WITHIN = 60_000_000_000
"""Nanoseconds in which the API, while it is followed, tells of a pod that came."""
_SECOND = 1_000_000_000
"""What a moment that is told in whole seconds lacks at most (ns)."""
_COMM = 15
"""Bytes of a program's name that the kernel keeps."""
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the environment of a process says of its pod; empty where it does not."""

    pod: str = ""
    namespace: str = ""
    uid: str = ""
    container: str = ""
    hostname: str = ""


CLAIMS: Mapping[str, str] = {
    "HOSTNAME": "hostname",
    **{
        f"{prefix}{name}": key
        for prefix in ("", "COREMOND_", "MY_", "K8S_", "KUBERNETES_")
        for name, key in (
            ("POD_NAME", "pod"),
            ("POD_NAMESPACE", "namespace"),
            ("POD_UID", "uid"),
            ("CONTAINER_NAME", "container"),
        )
    },
}
"""The variables that are read, and what of a `Claim` each is."""


def read_claim(environ: Iterable[tuple[str, str]]) -> Claim:
    """Read what an environment claims; what no name in Kubernetes can be is passed over."""
    found: dict[str, str] = {}
    for name, value in environ:
        key = CLAIMS.get(name)
        if key and key not in found and _DNS_NAME.fullmatch(value):
            found[key] = value
    return Claim(**found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Where a crashed process belonged."""

    namespace: str
    pod: str
    container: str
    workload: str
    identity: Identity
    found: Pod | None = None
    """All that is known of the pod."""


class Identifier:
    """Finds out whose a crash is; *api* knows more, *kubelet* is there also without a network.

    *own* is our own host name, which crashagent gives to a process whose own it cannot see.
    """

    def __init__(
        self, node: str, *, kubelet: Pods | None = None, api: Pods | None = None, own: str = ""
    ) -> None:
        self._node = node
        self._own = own or os.uname().nodename
        self._kubelet = kubelet or NoPods()
        self._api = api or NoPods()

    def whose(
        self,
        crash: Crash,
        *,
        claim: Callable[[], Claim] = Claim,
        directory: Pod | None = None,
    ) -> Whose:
        """Find whose *crash* it is.

        *directory* is the pod whose directory the core was left in. *claim* reads what the core's
        environment claims; it is asked only where nothing surer is known.
        """
        placement = read_placement(crash.cgroup)
        container_id = placement.container_id or crash.container_id
        if container_id and (placed := self._placed(container_id, placement.pod_uid)):
            identity = Identity(by="container-id", container_by="container-id")
            return _whose(placed.pod, placed.container, identity)
        if placement.pod_uid and (pod := self._pod(placement.pod_uid)):
            return self._in_pod(pod, crash, Claim(), "pod-uid")
        if directory and placement.pod_uid in {"", directory.uid}:
            return self._left_in(directory, crash)
        if crash.cgroup and placement == Placement() and not container_id:
            # Where there are pods, whatever is in none of them is the node's.
            return self._unknown(crash.hostname if self._knows_none() else self._node, is_sure=True)
        if (placement.pod_uid or container_id) and not self._knows_none():
            return self._of_nobody(crash, claim(), placement)
        return self._by_word(crash, claim())

    def _left_in(self, directory: Pod, crash: Crash) -> Whose:
        """Go by the pod whose *directory* the core was left in.

        A pod can ask for a directory that is called as another's: then it is a guess.
        """
        pod = self._pod(directory.uid)
        if pod is None and self._knows_none() and not self._api.is_awaited():
            pod = directory
        if pod is None or pod.full_name != directory.full_name or self._is_gainsaid(pod, crash):
            likely = [*self._called(crash.hostname, crash), pod or directory]
            return self._in_pod(likely[0], crash, Claim(), "guess")
        pod, whose = self._joined(pod), self._in_pod(pod, crash, Claim(), "pod-uid")
        for container in directory.containers:
            is_its = not pod.containers or pod.container(container.name) is not None
            identity = Identity(by="pod-uid", container_by="directory" if is_its else "guess")
            return _whose(pod, container.name, identity)
        return whose

    def _is_gainsaid(self, pod: Pod, crash: Crash) -> bool:
        """Say whether the crash's host name is another's than the *pod*'s."""
        here = self._called(crash.hostname, crash)
        if _key(pod) in map(_key, here):
            return False
        if _is_same_host(crash.hostname, self._node) and self._told(pod):
            return bool(pod.hostname)
        return bool(here) and crash.hostname != self._own

    def _of_nobody(self, crash: Crash, claim: Claim, placement: Placement) -> Whose:
        """Go by the process's word for a container that nobody knows: it is a guess at best.

        It may be one that no kubelet has made. A pod that nobody knows is none that somebody does.
        """
        if placement.pod_uid:
            return self._unknown(crash.hostname, is_sure=False)
        return replace(self._by_word(crash, claim), identity=Identity(by="guess"))

    def _placed(self, container_id: str, pod_uid: str) -> Placed | None:
        """Find whose container has this id, in the pod with this uid, if one is told."""
        placed = self._known(container_id)
        if placed and pod_uid and not placed.pod.uid:
            return Placed(replace(placed.pod, uid=pod_uid), placed.container)
        return placed if placed and pod_uid in {"", placed.pod.uid} else None

    def _known(self, container_id: str) -> Placed | None:
        placed = self._api.by_container(container_id)
        if placed:
            return placed
        placed = self._kubelet.by_container(container_id)
        if placed and placed.pod.uid and (richer := self._told(placed.pod)):
            return Placed(richer, placed.container)
        return placed

    def _pod(self, uid: str) -> Pod | None:
        """Find the pod with this uid; whose that is, the kubelet knows best."""
        seen = self._kubelet.by_uid(uid)
        return (self._told(seen) or seen) if seen else self._api.by_uid(uid)

    def _told(self, pod: Pod) -> Pod | None:
        """Give what the API tells of a *pod* of the kubelet's: others may say that it is they."""
        told = self._api.by_uid(pod.uid)
        if told and told.full_name == pod.full_name:
            return told
        named = self._api.by_name(pod.name)
        return next((each for each in named if _key(each) == _key(pod)), None)

    def _joined(self, pod: Pod) -> Pod:
        """Add to a *pod* the containers that the kubelet alone knows, which came just now."""
        seen = self._kubelet.by_uid(pod.uid) if pod.seen is None else None
        if not seen or seen.full_name != pod.full_name:
            return pod
        new = [each for each in seen.containers if not pod.container(each.name)]
        known = [
            replace(each, ids=other.ids)
            if not each.ids and (other := seen.container(each.name))
            else each
            for each in pod.containers
        ]
        return replace(pod, containers=(*known, *new))

    def _by_word(self, crash: Crash, claim: Claim) -> Whose:
        """Go by what the process itself says."""
        hostname = crash.hostname or claim.hostname
        here = self._called(hostname, crash)
        if here and hostname == self._own:  # said for a process whose own could not be seen
            hostname, here = "", []
        claimed = self._claimed(crash, claim)
        agreed = [pod for pod in claimed if self._may_see(pod, hostname, here)]
        pod = _only_one(agreed, crash)
        if pod and (not here or _key(pod) in map(_key, here)):
            return self._in_pod(pod, crash, claim, "core-environ")
        is_theirs = all(_is_whole_name(hostname, pod) for pod in here)
        if is_theirs and not claimed and not _is_same_host(hostname, self._node):
            pod = _only_one(here, crash)
            if pod and _is_said_of(pod, claim) and self._is_told(crash.crashed_at):
                return self._in_pod(pod, crash, claim, "hostname")
        if likely := [pod for pod in here if _fits(pod, crash)] or here or claimed:
            return self._in_pod(likely[0], crash, claim, "guess")
        if claim.pod and self._knows_none():
            pod = Pod(namespace=claim.namespace, name=claim.pod, uid=claim.uid, hostname="")
            return replace(self._in_pod(pod, crash, claim, "core-environ"), found=None)
        is_sure = self._knows_none() and not self._api.is_awaited()
        return self._unknown(crash.hostname or claim.hostname, is_sure=is_sure)

    def _is_told(self, moment: int) -> bool:
        """Say whether the API has told of all pods; another may have asked for any host name.

        What it has not told of a while after it came is no pod of the API's.
        """
        if self._api.is_awaited():
            return False
        new = (pod for pod in self._kubelet.there() if pod.since > moment - _TOLD_WITHIN)
        return self._api.is_empty() or all(map(self._told, new))

    def _knows_none(self) -> bool:
        return self._api.is_empty() and self._kubelet.is_empty()

    def _called(self, hostname: str, crash: Crash) -> list[Pod]:
        """Give the pods that see this host name, which may have a domain behind it."""
        if not hostname:
            return []
        if whole := self._there(crash, lambda pods: pods.by_hostname(hostname)):
            return whole
        first = hostname.partition(".")[0]
        here = self._there(crash, lambda pods: pods.by_hostname(first))
        return [pod for pod in here if _is_whole_name(hostname, pod)] or here

    def _may_see(self, pod: Pod, hostname: str, here: list[Pod]) -> bool:
        """Say whether a process of the *pod* may see the host name, which *here* are known for.

        A pod on the node's network has the node's, and who knows the kubelet's directories alone
        does not know what a pod asked for.
        """
        if not hostname or _key(pod) in map(_key, here):
            return True
        is_open = not here or _is_same_host(hostname, self._node)
        return is_open and (not pod.hostname or self._told(pod) is None)

    def _claimed(self, crash: Crash, claim: Claim) -> list[Pod]:
        """Give the pods that the process may claim to be of."""
        if claim.uid and (pod := self._pod(claim.uid)):
            return [pod] if _is_said_of(pod, claim) else []
        if not claim.pod:
            return []
        named = self._there(crash, lambda pods: pods.by_name(claim.pod))
        return [pod for pod in named if _is_said_of(pod, claim)]

    def _there(self, crash: Crash, ask: Callable[[Pods], list[Pod]]) -> list[Pod]:
        """Give the pods that were there at the crash, the likeliest first; the API's word counts.

        Pods of one name follow each other: the newest that was there at the very moment.
        """
        # What the API tells of may be known to be called otherwise.
        unknown = [pod for pod in ask(self._kubelet) if self._told(pod) is None]
        return sorted(
            (pod for pod in (*ask(self._api), *unknown) if _was_there(pod, crash.crashed_at)),
            key=lambda pod: _likelihood(pod, crash),
            reverse=True,
        )

    def _in_pod(self, pod: Pod, crash: Crash, claim: Claim, by: IdentityBy) -> Whose:
        """Tell which container of the *pod* it was, as far as can be told."""
        pod = self._joined(pod)
        name, container_by = _choose_container(pod, crash, claim)
        if by == "guess":
            container_by = "guess"
        return _whose(pod, name, Identity(by=by, container_by=container_by))

    def _unknown(self, hostname: str, *, is_sure: bool) -> Whose:
        """Go by the host name alone: in a pod it is the pod's name, and its stem the container's.

        Where pods are known and none has it, that is a guess.
        """
        name = hostname or self._node
        return Whose(
            namespace="",
            pod=name,
            container=stem(name),
            workload=stem(name),
            identity=Identity(by="hostname" if hostname and is_sure else "guess"),
        )


def _whose(pod: Pod, container: str, identity: Identity) -> Whose:
    return Whose(
        namespace=pod.namespace,
        pod=pod.name,
        container=container,
        workload=stem(pod.name),
        identity=identity,
        found=pod,
    )


def _key(pod: Pod) -> tuple[str, str, str]:
    return pod.uid, *pod.full_name


def _likelihood(pod: Pod, crash: Crash) -> tuple[bool, bool, int]:
    """Tell which of those that may have been there at the crash is likeliest: the greatest."""
    return _was_there(pod, crash.crashed_at, _SECOND), pod.until is None, pod.since


def _only_one(pods: list[Pod], crash: Crash) -> Pod | None:
    """Give the one of *pods* that it was: those of one name are there one after the other."""
    if len(pods) > 1 and len({pod.full_name for pod in pods}) == 1:
        *others, newest = sorted(pods, key=lambda pod: pod.since)
        is_newer = all(0 < other.made_by <= newest.since for other in others)
        if is_newer and 0 < newest.made_by <= crash.crashed_at:
            return newest
        pods = [pod for pod in pods if _was_there(pod, crash.crashed_at, _SECOND)]
    return pods[0] if len(pods) == 1 else None


def _was_there(pod: Pod, moment: int, slack: int = _SLACK) -> bool:
    """Say whether the *pod* may have been there at the *moment*; 0 is any."""
    if not moment:
        return True
    return pod.since <= moment + slack and (pod.until is None or moment <= pod.until + slack)


def _is_same_host(one: str, other: str) -> bool:
    """Say whether both may be names of one host, with its domain or without."""
    return bool(one) and one.partition(".")[0] == other.partition(".")[0]


def _is_whole_name(hostname: str, pod: Pod) -> bool:
    """Say whether *hostname* is the *pod*'s, alone or with the domain that a pod can ask for.

    That is ``<hostname>.<subdomain>.<namespace>.svc.<the cluster's domain>``.
    """
    match hostname.split("."):
        case [_, _, pod.namespace, "svc", *_]:
            return True
    return hostname == pod.hostname


def _is_said_of(pod: Pod, claim: Claim) -> bool:
    """Say whether the *claim* may be that of a process in the *pod*."""
    return (
        claim.pod in {"", pod.name}
        and claim.namespace in {"", pod.namespace}
        and (claim.uid in {"", pod.uid} or not pod.uid)
    )


def _choose_container(pod: Pod, crash: Crash, claim: Claim) -> tuple[str, ContainerBy]:
    running = [each for each in pod.containers if _ran(each, crash.crashed_at)] or pod.containers
    if not running:  # nobody knows them
        return (claim.container, "core-environ") if claim.container else (stem(pod.name), "guess")
    alike = [each for each in running if _is_alike(each, crash)]
    if len(running) == 1 and not _may_be_another(pod, crash):
        over = [each for each in pod.containers if each not in running and _is_alike(each, crash)]
        # It may run again, and nobody has told so yet.
        return (over[0].name, "guess") if over and not alike else (running[0].name, "only-one")
    if claim.container and pod.container(claim.container):
        return claim.container, "core-environ"
    if len(alike) == 1:
        return alike[0].name, "process"
    regular = [each for each in running if each.kind == "container"]
    return (alike or regular or running)[0].name, "guess"


def _may_be_another(pod: Pod, crash: Crash) -> bool:
    """Say whether it may be a container of the *pod* that nobody has told of.

    It has an id that none of them has, such as one that was attached just now, or some were removed
    before they were seen.
    """
    told = read_placement(crash.cgroup).container_id or crash.container_id
    known = {each for container in pod.containers for each in container.ids}
    return bool(told and known and told not in known) or not pod.is_whole(crash.crashed_at)


def _ran(container: Container, moment: int) -> bool:
    """Say whether the *container* may have run at the *moment*: the same clock tells both."""
    is_begun = container.since - _SECOND <= moment
    return is_begun and (container.until is None or moment <= container.until)


def _fits(pod: Pod, crash: Crash) -> bool:
    return any(_is_alike(each, crash) for each in pod.containers)


def _is_alike(container: Container, crash: Crash) -> bool:
    """Say whether the *container* is called as the program that crashed, or told to run it."""
    program = crash.exe.rpartition("/")[2]
    image = container.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    names = {container.name, image, container.command.rpartition("/")[2]} - {""}
    return any(name == program or name[:_COMM] == crash.comm for name in names)
