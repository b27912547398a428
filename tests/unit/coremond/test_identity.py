import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from common.item import Crash
from common.kubelet import KubeletLogs
from common.record import PodFacts
from common.settings import NANOSECONDS
from common.workload import stem
from services.coremond.identity import CrashIdentifier
from services.coremond.pod_cache import PodCache
from tests.store import crash
from tests.unit.common.test_kubelet import ID, Kubelet, settle
from tests.unit.coremond.test_pod_cache import HASH, OTHER_UID, UID, api_pod
from tests.unit.factories import CRASHED_AT, events_said, hostile_texts, without_deadline

PODS = {
    "cluster-cert-manager-57cc54f85-fst6r": "cluster-cert-manager",
    "cluster-cert-manager-cainjector-575b969df5-x6rjz": "cluster-cert-manager-cainjector",
    "cluster-cert-manager-webhook-854c759f74-vhk9c": "cluster-cert-manager-webhook",
    "f5-afm-648c784cb-c2zzv": "f5-afm",
    "f5-cne-controller-568c7cf87c-4tkns": "f5-cne-controller",
    "f5-ipam-operator-7bc8dccd9-ktz2f": "f5-ipam-operator",
    "f5-node-labeler-bdz8v": "f5-node-labeler",
    "f5-observer-0": "f5-observer",
    "f5-observer-operator-59d46f69b7-fm6gw": "f5-observer-operator",
    "f5-observer-receiver-0": "f5-observer-receiver",
    "f5-tmm-pn4tq": "f5-tmm",
    "flo-f5-lifecycle-operator-58958c4f77-lmbs7": "flo-f5-lifecycle-operator",
    "otel-collector-5f8c9fbd8-dqxpt": "otel-collector",
    "f5-coremond-bnhf7": "f5-coremond",
    "f5-crdconversion-576f7b7579-4d5n2": "f5-crdconversion",
    "f5-dssm-db-0": "f5-dssm-db",
    "f5-dssm-db-1": "f5-dssm-db",
    "f5-dssm-db-2": "f5-dssm-db",
    "f5-dssm-sentinel-0": "f5-dssm-sentinel",
    "f5-dssm-sentinel-1": "f5-dssm-sentinel",
    "f5-dssm-sentinel-2": "f5-dssm-sentinel",
    "f5-ipam-ctlr-595c467d8d-mfs58": "f5-ipam-ctlr",
    "f5-rabbit-6c7d56ddfb-87jnf": "f5-rabbit",
    "f5-spk-cwc-6f89988c86-5m56n": "f5-spk-cwc",
    "f5-toda-fluentd-bf845d465-sfm62": "f5-toda-fluentd",
    "coredns-ff8999cc5-4w2rc": "coredns",
    "csi-nfs-controller-69dc5b4c8c-c56g8": "csi-nfs-controller",
    "csi-nfs-node-rdvsn": "csi-nfs-node",
    "helm-install-multus-99k8d": "helm-install-multus",
    "local-path-provisioner-698b58967b-j22xd": "local-path-provisioner",
    "metrics-server-8584b5786c-b4qkq": "metrics-server",
    "multus-lkxdn": "multus",
}


@pytest.mark.parametrize(("pod", "workload"), PODS.items())
def test_the_pods_of_the_product_page_have_their_workloads(pod: str, workload: str) -> None:
    assert stem(pod) == workload


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("backup-28512480-x7k2p", "backup"),
        ("node-1", "node"),
        ("plain", "plain"),
        ("", ""),
        ("-0", "-0"),
        ("tmm-aeiou", "tmm-aeiou"),
        ("web-123456", "web-123456"),
    ],
)
def test_a_generated_suffix_is_taken_off_and_nothing_else(pod: str, workload: str) -> None:
    assert stem(pod) == workload


def test_a_pod_that_is_replaced_is_the_same_workload() -> None:
    assert stem("f5-afm-648c784cb-c2zzv") == stem("f5-afm-7bc8dccd9-ktz2f")


@without_deadline
@given(hostile_texts)
def test_any_host_name_has_a_workload(hostname: str) -> None:
    found = stem(hostname)

    assert hostname.startswith(found)
    assert bool(found) == bool(hostname)


def test_a_host_name_is_taken_for_the_pod() -> None:
    whose = CrashIdentifier("node-1").whose(Crash(hostname="f5-observer-0"))

    assert (whose.pod, whose.container, whose.workload) == (
        "f5-observer-0",
        "f5-observer",
        "f5-observer",
    )
    assert whose.identity.by == "hostname"


def test_without_a_host_name_the_node_is_a_guess() -> None:
    whose = CrashIdentifier("node-1").whose(Crash())

    assert (whose.pod, whose.identity.by) == ("node-1", "guess")


def test_it_is_said_once_that_there_is_no_cluster(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    identifier = CrashIdentifier("node-1")

    for _ in range(3):
        identifier.whose(Crash(hostname="a"))

    assert events_said(caplog) == ["failed to list pods"]


def test_a_pod_that_claims_the_uid_of_a_static_pod_gets_none_of_its_crashes(tmp_path: Path) -> None:
    annotations = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}
    forged = api_pod("evil", namespace="tenant", annotations=annotations)
    real = api_pod("etcd-node-1", OTHER_UID, ids=[ID], annotations=annotations)
    node, api = Kubelet(tmp_path), PodCache()
    node.run("etcd-node-1", HASH, container="app0", container_id=ID)
    identifier = CrashIdentifier("node-1", kubelet=KubeletLogs(tmp_path), api=api)
    crashes = [Crash(cgroup=f"/kubepods/pod{HASH}{rest}") for rest in (f"/{ID}", "")]

    def told() -> list[tuple[str, str, str]]:
        found = [identifier.whose(each) for each in crashes]
        return [(each.pod, each.container, each.identity.by) for each in found]

    expected = [("etcd-node-1", "app0", "container-id"), ("etcd-node-1", "app0", "pod-uid")]
    for tell, pod in ((api.put, forged), (api.put, real), (api.delete, forged)):
        tell(pod)
        assert told() == expected
    assert identifier.whose(Crash(hostname="evil")).pod == "evil"


def test_a_container_that_was_attached_after_the_crash_excludes_no_pod(tmp_path: Path) -> None:
    node = Kubelet(tmp_path)
    node.run("web-0")
    folder = tmp_path / "pods" / f"shop_web-0_{UID}"
    crashed_at = folder.stat().st_mtime_ns + NANOSECONDS
    (folder / "debugger").mkdir()
    os.utime(folder, ns=(crashed_at + 60 * NANOSECONDS,) * 2)
    identifier = CrashIdentifier("node-1", kubelet=KubeletLogs(tmp_path))

    found = identifier.whose(Crash(hostname="web-0", comm="app", crashed_at=crashed_at))

    assert (found.pod, found.container) == ("web-0", "app")
    assert (found.identity.by, found.identity.container_by) == ("hostname", "process")


def test_a_container_is_not_the_only_one_of_a_pod_that_goes(tmp_path: Path) -> None:
    node = Kubelet(tmp_path)
    node.run("web-0")
    folder = tmp_path / "pods" / f"shop_web-0_{UID}"
    (folder / "sidecar").mkdir()
    crash = Crash(hostname="web-0", crashed_at=time.time_ns())
    shutil.rmtree(folder / "app")

    found = CrashIdentifier("node-1", kubelet=KubeletLogs(tmp_path)).whose(crash)

    assert (found.identity.by, found.identity.container_by) == ("hostname", "guess")


def test_the_only_container_of_a_pod_is_told_by_the_kubelets_directories_alone(
    tmp_path: Path,
) -> None:
    node = Kubelet(tmp_path)
    node.run("web-0")
    settle(tmp_path / "pods" / f"shop_web-0_{UID}")
    identifier = CrashIdentifier("node-1", kubelet=KubeletLogs(tmp_path))
    crash = Crash(hostname="web-0", crashed_at=time.time_ns())
    before = identifier.whose(crash)
    node.end("web-0")

    after = identifier.whose(replace(crash, crashed_at=crash.crashed_at - NANOSECONDS))

    for found in (before, after):
        assert (found.pod, found.container) == ("web-0", "app")
        assert (found.identity.by, found.identity.container_by) == ("hostname", "only-one")


@pytest.mark.parametrize("container", ["app0", "one that it does not have"])
def test_what_the_api_tells_later_is_added_to_a_record_once(container: str) -> None:
    api = PodCache()
    identifier = CrashIdentifier("node-1", api=api)
    record = crash(namespace="shop", pod="web-0", container=container, kubernetes=PodFacts(uid=UID))
    assert identifier.complete(record, CRASHED_AT) is None
    api.put(api_pod(spec={"containers": [{"name": "app0", "image": "i:1"}]}, labels={}))
    api.put(api_pod(status={"qosClass": "Burstable"}))

    facts = identifier.complete(record, CRASHED_AT)

    assert facts
    assert facts.qos == "Burstable"
    assert identifier.complete(replace(record, kubernetes=facts), CRASHED_AT) is None


def test_what_the_api_tells_of_another_pod_that_claims_the_uid_is_not_added() -> None:
    api = PodCache()
    annotations = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}
    api.put(api_pod("evil", annotations=annotations))
    record = crash(namespace="kube-system", pod="etcd-node-1", kubernetes=PodFacts(uid=HASH))

    assert CrashIdentifier("node-1", api=api).complete(record, CRASHED_AT) is None


@pytest.mark.parametrize(
    ("facts", "later"), [(None, 0), (PodFacts(uid=""), 0), (PodFacts(uid=UID), 3601 * 10**9)]
)
def test_nothing_is_added_to_what_is_of_no_pod_or_too_old(
    facts: PodFacts | None, later: int
) -> None:
    api = PodCache()
    api.put(api_pod())

    found = CrashIdentifier("node-1", api=api).complete(crash(kubernetes=facts), CRASHED_AT + later)

    assert found is None
