"""Whose a crash is, as coremond can find out: by the pods of the node, and by the core itself."""

from common.elf import CoreNotes, Read, read_environ
from common.identity import Claim, Identifier, Whose, read_claim
from common.item import Crash
from common.kubelet import KubeletLogs
from common.log import Logger
from common.pod import Pod
from common.record import CrashRecord, PodFacts
from common.settings import NANOSECONDS
from services.coremond.pod_cache import PodCache

log = Logger()

_COMPLETED = 3600 * NANOSECONDS
"""For so long (ns) what the API tells of a pod is added to the record of a crash."""


class CrashIdentifier:
    """Knows the pods of *node*: *api* is None where there is no cluster, which is said once."""

    def __init__(
        self, node: str, *, kubelet: KubeletLogs | None = None, api: PodCache | None = None
    ) -> None:
        self._kubelet = kubelet
        self._api = api
        self._identifier = Identifier(node, kubelet=kubelet, api=api)
        self._is_said = api is not None

    def whose(
        self,
        crash: Crash,
        *,
        read: Read | None = None,
        notes: CoreNotes | None = None,
        directory: Pod | None = None,
    ) -> Whose:
        """Find whose *crash* it is, whose core *read* reads, and has these *notes*.

        *directory* is the pod whose directory the core was left in.
        """
        if not self._is_said:
            self._is_said = True
            log.info("failed to list pods", err="no cluster in sight")

        def claim() -> Claim:
            return read_claim(read_environ(read, notes)) if read and notes else Claim()

        return self._identifier.whose(crash, claim=claim, directory=directory)

    def refresh(self) -> None:
        """Look at what pods came and went, so that those that went are remembered."""
        if self._kubelet:
            self._kubelet.refresh()

    def complete(self, record: CrashRecord, now: int) -> PodFacts | None:
        """Give what the API tells of the pod of *record* at *now* (ns); None if it is nothing new.

        A crash does not wait for the API, which may not have known the pod yet, or not have been
        there.
        """
        facts = record.kubernetes
        if self._api is None or not facts or facts.image or now - record.crashed_at > _COMPLETED:
            return None
        pod = self._api.by_uid(facts.uid)
        is_its = pod is not None and pod.full_name == (record.namespace, record.pod)
        told = pod_facts(pod, record.container) if pod and is_its else facts
        return told if told != facts else None


def pod_facts(pod: Pod, name: str) -> PodFacts:
    """Give what a record says of the *pod*, and of its container of that *name*."""
    container = pod.container(name)
    return PodFacts(
        uid=pod.uid,
        owner_kind=pod.owner_kind,
        owner_name=pod.owner_name,
        qos=pod.qos,
        labels=pod.labels,
        annotations=pod.annotations,
        container_kind=container.kind if container else None,
        image=container.image if container else "",
        image_id=container.image_id if container else "",
        restart_count=container.restart_count if container else None,
        limits=container.limits if container else {},
    )
