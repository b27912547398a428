"""Which pod and which container a cgroup path stands for, whoever made it.

The kubelet makes ``…/kubepods/burstable/pod<uid>/<container>`` (cgroupfs driver) or
``…/kubepods-burstable-pod<uid>.slice/<runtime>-<container>.scope`` (systemd driver, with ``_`` for
the ``-`` of the uid); containerd with both writes ``…pod<uid>.slice:cri-containerd:<container>``.
A static pod's uid is 32 hex digits. Source: the kubelet's pkg/kubelet/cm/cgroup_manager_linux.go.
"""

import re
from typing import NamedTuple

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:^|[-:])pod({_UID})(?:$|\.slice(?:$|:))", re.ASCII)
_CONTAINER = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:$|\.scope$)", re.ASCII)
_NO_CONTAINER = "conmon-"
"""CRI-O's monitor of a container has a cgroup of its own, named after it."""
_USERS = "user.slice"
"""What is below it, users name as they like."""


class Placement(NamedTuple):
    """Where a process ran; empty is: in none."""

    pod_uid: str = ""
    container_id: str = ""


def read_placement(path: str) -> Placement:
    """Tell the pod and the container of a process in the cgroup *path*.

    The outermost counts: a container can make cgroups inside its own, and call them anything.
    """
    segments = path.partition(f"/{_USERS}/")[0].split("/")
    for place, segment in enumerate(segments):
        if match := _POD.search(segment):
            uid = match[1].replace("_", "-")
            return Placement(uid, _container(segments[place : place + 2]))
    return Placement("", _container(segments))


def _container(segments: list[str]) -> str:
    for segment in segments:
        match = _CONTAINER.search(segment)
        if match and _NO_CONTAINER not in segment:
            return match[1]
    return ""


def choose_path(text: bytes) -> str:
    r"""Choose from /proc/<pid>/cgroup the path that tells most; not UTF-8 stands as ``\xHH``.

    It is one that tells the pod, or else the container; of those that tell as much it is that of
    version 2, unless that is the root, as on hosts that have both; else the longest.
    """
    lines = [line.split(b":", 2) for line in text.split(b"\n") if line.count(b":") >= 2]

    def rank(number: bytes, path: bytes) -> tuple[bool, bool, bool, int]:
        pod_uid, container_id = read_placement(_text(path))
        is_unified = number == b"0" and path != b"/"
        return bool(pod_uid), bool(container_id), is_unified, len(path)

    best = max(lines, key=lambda line: rank(line[0], line[2]), default=None)
    return _text(best[2]) if best else ""


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")[:4096]
