"""Whose crash it is: the pod and the container, and how sure that is.

The surest source that answers counts: the container or the pod of the process's cgroup, the pod
whose directory the core was left in, what the environment in the core claims, the host name. All
but the first two are the process's own word: where they do not fit together, it is a guess.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from common.cgroup import Placement, read_placement
from common.item import Crash
from common.pod import Container, NoPods, Placed, Pod, Pods
from common.record import ContainerBy, Identity, IdentityBy
from common.workload import stem

_SLACK = 5_000_000_000
"""Clocks that tell when a pod was there, and when it crashed, differ by at most so many ns."""
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
    """Finds out whose a crash is; *api* knows more, *kubelet* is there also without a network."""

    def __init__(self, node: str, *, kubelet: Pods | None = None, api: Pods | None = None) -> None:
        self._node = node
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
        if container_id and (placed := self._placed(container_id)):
            identity = Identity(by="container-id", container_by="container-id")
            return _whose(placed.pod, placed.container, identity)
        uid = placement.pod_uid or (directory.uid if directory else "")
        if uid and (pod := self._pod(uid) or directory):
            if directory and directory.containers and directory.uid == uid:
                identity = Identity(by="pod-uid", container_by="directory")
                return _whose(pod, directory.containers[0].name, identity)
            return self._in_pod(pod, crash, Claim(), "pod-uid")
        if crash.cgroup and placement == Placement() and not container_id:
            # Where there are pods, whatever is in none of them is the node's.
            return self._unknown(crash.hostname if self._knows_none() else self._node, is_sure=True)
        return self._by_word(crash, claim())

    def _placed(self, container_id: str) -> Placed | None:
        placed = self._api.by_container(container_id)
        if placed:
            return placed
        placed = self._kubelet.by_container(container_id)
        if placed and placed.pod.uid and (richer := self._api.by_uid(placed.pod.uid)):
            return Placed(richer, placed.container)
        return placed

    def _pod(self, uid: str) -> Pod | None:
        return self._api.by_uid(uid) or self._kubelet.by_uid(uid)

    def _by_word(self, crash: Crash, claim: Claim) -> Whose:
        """Go by what the process itself says."""
        hostname = crash.hostname or claim.hostname
        here = self._called(hostname, crash)
        claimed = self._claimed(crash, claim)
        agreed = [pod for pod in claimed if self._may_see(pod, hostname, here)]
        if len(_names(agreed)) == 1:
            return self._in_pod(agreed[0], crash, claim, "core-environ")
        if len(_names(here)) == 1 and not claimed:
            return self._in_pod(here[0], crash, claim, "hostname")
        if likely := [pod for pod in here if _fits(pod, crash)] or here or claimed:
            return self._in_pod(likely[0], crash, claim, "guess")
        if claim.pod and self._knows_none():
            pod = Pod(namespace=claim.namespace, name=claim.pod, uid=claim.uid, hostname="")
            return self._in_pod(pod, crash, claim, "core-environ")
        return self._unknown(hostname, is_sure=self._knows_none())

    def _knows_none(self) -> bool:
        return self._api.is_empty() and self._kubelet.is_empty()

    def _called(self, hostname: str, crash: Crash) -> list[Pod]:
        """Give the pods that see this host name, which may have a domain behind it."""
        if not hostname:
            return []
        first = hostname.partition(".")[0]
        return self._there(crash, lambda pods: pods.by_hostname(hostname)) or self._there(
            crash, lambda pods: pods.by_hostname(first)
        )

    def _may_see(self, pod: Pod, hostname: str, here: list[Pod]) -> bool:
        """Say whether a process of the *pod* may see the host name, which *here* are known for.

        A pod on the node's network has the node's, and who knows the kubelet's directories alone
        does not know what a pod asked for.
        """
        if pod in here or not hostname:
            return True
        return not here and (not pod.hostname or self._api.by_uid(pod.uid) is None)

    def _claimed(self, crash: Crash, claim: Claim) -> list[Pod]:
        """Give the pods that the process may claim to be of."""
        if claim.uid and (pod := self._pod(claim.uid)):
            return [pod] if claim.pod in {"", pod.name} else []
        if not claim.pod:
            return []
        named = self._there(crash, lambda pods: pods.by_name(claim.pod))
        return [pod for pod in named if claim.namespace in {"", pod.namespace}]

    def _there(self, crash: Crash, ask: Callable[[Pods], list[Pod]]) -> list[Pod]:
        """Give the pods that were there at the crash, the newest first; the API's word counts."""
        found = {pod.uid: pod for pod in ask(self._api)}
        for pod in ask(self._kubelet):
            if self._api.by_uid(pod.uid) is None:  # else it is known to be called otherwise
                found[pod.uid] = pod
        return sorted(
            (pod for pod in found.values() if _was_there(pod, crash.crashed_at)),
            key=lambda pod: (pod.until is None, pod.since),
            reverse=True,
        )

    @staticmethod
    def _in_pod(pod: Pod, crash: Crash, claim: Claim, by: IdentityBy) -> Whose:
        """Tell which container of the *pod* it was, as far as can be told."""
        name, container_by = _choose_container(pod, crash, claim)
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


def _names(pods: Iterable[Pod]) -> set[tuple[str, str]]:
    return {(pod.namespace, pod.name) for pod in pods}


def _was_there(pod: Pod, moment: int) -> bool:
    """Say whether the *pod* may have been there at the *moment*; 0 is any."""
    if not moment:
        return True
    return pod.since <= moment + _SLACK and (pod.until is None or moment <= pod.until + _SLACK)


def _choose_container(pod: Pod, crash: Crash, claim: Claim) -> tuple[str, ContainerBy]:
    running = [each for each in pod.containers if not each.is_over]
    if not running:
        return stem(pod.name), "guess"
    if len(running) == 1:
        return running[0].name, "only-one"
    if claim.container and pod.container(claim.container):
        return claim.container, "core-environ"
    alike = [each for each in running if _is_alike(each, crash)]
    if len(alike) == 1:
        return alike[0].name, "process"
    regular = [each for each in running if each.kind == "container"]
    return (alike or regular or running)[0].name, "guess"


def _fits(pod: Pod, crash: Crash) -> bool:
    return any(_is_alike(each, crash) for each in pod.containers)


def _is_alike(container: Container, crash: Crash) -> bool:
    """Say whether the *container* is called as the program that crashed, or told to run it."""
    program = crash.exe.rpartition("/")[2]
    image = container.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    names = {container.name, image, container.command.rpartition("/")[2]} - {""}
    return any(name == program or name[:_COMM] == crash.comm for name in names)
