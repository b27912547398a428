"""What is known of a pod on this node, whoever tells it."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

_SECOND = 1_000_000_000

ContainerKind = Literal["container", "init", "ephemeral"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """A container of a pod's; what nobody told is empty or None. Moments are ns since the epoch."""

    name: str
    kind: ContainerKind | None = None
    ids: tuple[str, ...] = ()
    """The ids it has had, the newest first."""
    image: str = ""
    image_id: str = ""
    command: str = ""
    """The program that it is told to run."""
    restart_count: int | None = None
    limits: dict[str, str] = field(default_factory=dict)
    since: int = 0
    """When it was first started, at the latest; 0 is unknown."""
    until: int | None = None
    """When it had ended at the latest, if it is not started again; 0 is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """A pod on this node, now or a while ago; moments are ns since the epoch."""

    namespace: str
    name: str
    uid: str
    """As the kubelet knows it: of a static pod, the hash of its manifest."""
    hostname: str
    """What a process in it sees as its host name; empty where that is the node's."""
    containers: tuple[Container, ...] = ()
    since: int = 0
    """When it was made, at the earliest; 0 is unknown."""
    made_by: int = 0
    """When it was made, at the latest; 0 is unknown."""
    until: int | None = None
    """When it was seen to be gone."""
    owner_kind: str = ""
    owner_name: str = ""
    """The workload it belongs to: of a ReplicaSet's pod the Deployment."""
    qos: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    seen: tuple[tuple[int, int | None], ...] | None = None
    """From when to when it surely had no other *containers*; None where those are all, always."""

    @property
    def full_name(self) -> tuple[str, str]:
        """Give its namespace and its name."""
        return self.namespace, self.name

    def is_whole(self, moment: int) -> bool:
        """Say whether *containers* are surely all that it had at the *moment*; 0 is any."""
        if self.seen is None or not moment:
            return self.seen is None or bool(self.seen)
        # What is told in whole seconds may have been up to one later.
        latest = moment if moment % _SECOND else moment + _SECOND - 1
        return any(
            since <= latest and (until is None or moment <= until) for since, until in self.seen
        )

    def container(self, name: str) -> Container | None:
        """Give its container of this *name*."""
        return next((each for each in self.containers if each.name == name), None)


def default_hostname(pod: str) -> str:
    """Give the host name of a *pod* that asks for no other: its name, as far as it fits.

    Source: the kubelet's pkg/kubelet/util, TruncatePodHostnameIfNeeded.
    """
    return pod if len(pod) <= 63 else pod[:63].rstrip("-.")


class Placed(NamedTuple):
    """A container of a pod's."""

    pod: Pod
    container: str


class Pods(Protocol):
    """Knows the pods of this node, and for a while those that were; answers at once."""

    def by_container(self, container_id: str) -> Placed | None:
        """Find whose container has this id."""
        ...

    def by_uid(self, uid: str) -> Pod | None:
        """Find the pod with this uid."""
        ...

    def by_hostname(self, hostname: str) -> list[Pod]:
        """Find the pods whose processes see this host name."""
        ...

    def by_name(self, name: str) -> list[Pod]:
        """Find the pods of this name, in any namespace."""
        ...

    def there(self) -> list[Pod]:
        """Give the pods that are there now; their containers are not looked at."""
        ...

    def is_empty(self) -> bool:
        """Say whether no pod is known at all."""
        ...

    def is_awaited(self) -> bool:
        """Say whether word is still to come: there may be other pods, of any host name."""
        ...


class NoPods:
    """Knows no pods: there is no cluster."""

    def by_container(self, container_id: str) -> Placed | None:  # noqa: ARG002
        """Find none."""
        return None

    def by_uid(self, uid: str) -> Pod | None:  # noqa: ARG002
        """Find none."""
        return None

    def by_hostname(self, hostname: str) -> list[Pod]:  # noqa: ARG002
        """Find none."""
        return []

    def by_name(self, name: str) -> list[Pod]:  # noqa: ARG002
        """Find none."""
        return []

    def there(self) -> list[Pod]:
        """Give none."""
        return []

    def is_empty(self) -> bool:
        """Say so."""
        return True

    def is_awaited(self) -> bool:
        """Say that none will come."""
        return False
