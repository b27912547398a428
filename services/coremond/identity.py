"""Whose crash it is: the pod, the container and the process, and how sure that is."""

import re
from dataclasses import dataclass

from common.log import Logger
from common.record import Identity

log = Logger()

# Kubernetes draws generated names from these letters (apimachinery, util/rand), so that no word
# comes out: the pod-template hash of a Deployment, the five of every generateName.
_DRAWN = "[bcdfghjklmnpqrstvwxz2456789]"
_GENERATED = (
    re.compile(rf"(.+)-{_DRAWN}{{6,10}}-{_DRAWN}{{5}}"),  # Deployment
    re.compile(rf"(.+)-\d{{8,10}}-{_DRAWN}{{5}}", re.ASCII),  # CronJob
    re.compile(rf"(.+)-{_DRAWN}{{5}}"),  # DaemonSet, Job
    re.compile(r"(.+)-\d{1,5}", re.ASCII),  # StatefulSet
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Where a crashed process belonged."""

    namespace: str
    pod: str
    container: str
    workload: str
    identity: Identity


def stem(pod: str) -> str:
    """Give the pod's name without its generated suffix: the name of its workload."""
    for pattern in _GENERATED:
        if match := pattern.fullmatch(pod):
            return match[1]
    return pod


class Identifier:
    """Finds out whose a crash is; says once that there is no cluster to ask."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._said = False

    def whose(self, hostname: str) -> Whose:
        """Go by the host name: in a pod it is the pod's name, and its stem the container's."""
        if not self._said:
            self._said = True
            log.error("failed to list pods", err="no cluster in sight")
        pod = hostname or self._node
        return Whose(
            namespace="",
            pod=pod,
            container=stem(pod),
            workload=stem(pod),
            identity=Identity(by="hostname" if hostname else "guess"),
        )
