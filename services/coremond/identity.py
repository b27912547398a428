"""Whose crash it is: the pod, the container and the process, and how sure that is."""

from dataclasses import dataclass

from common.log import Logger
from common.record import Identity
from common.workload import stem

log = Logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Where a crashed process belonged."""

    namespace: str
    pod: str
    container: str
    workload: str
    identity: Identity


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
