"""Whose a crash is by a real API server, and what is told there, with the rights it needs."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from kubernetes import client, config

from tests.bundle import Bundle, wait_until
from tests.cluster import Api, Cluster, make_pod
from tests.integration.test_identity import by_socket, how, who
from tests.kubetools import kubectl, missing_binaries
from tests.node import Node, new_id

StartBundle = Callable[..., Bundle]

NODE = "node-1"
PODS_ROLE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
EVENTS_ROLE = {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}

pytestmark = pytest.mark.usefixtures("coredump_socket", "tools")


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    """Give a client with every right, and a cluster without pods after it."""
    api = cluster.api()
    yield api
    for pod in api.list_pod_for_all_namespaces().items:
        api.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)


def account_with(cluster: Cluster, name: str, *rules: dict[str, Any]) -> str:
    """Give the kubeconfig of a ServiceAccount that may do what the *rules* say, and no more."""
    path = cluster.kubeconfig_for("coremond", name)
    made: Any = config.new_client_from_config(str(cluster.kubeconfig()))  # type: ignore[no-untyped-call]
    rbac: Any = client.RbacAuthorizationV1Api(made)
    rbac.create_cluster_role({"metadata": {"name": name}, "rules": list(rules)})
    rbac.create_cluster_role_binding(
        {
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "coremond"}],
        }
    )
    return str(path)


@pytest.fixture(scope="module")
def full(cluster: Cluster) -> str:
    """Give the kubeconfig of an account with the rights of both features."""
    return account_with(cluster, "full", PODS_ROLE, EVENTS_ROLE)


@pytest.fixture
def start(start_bundle: StartBundle, faithful: Node) -> StartBundle:
    """Give a function that starts a bundle on the made-up node, which asks the API."""

    def start(kubeconfig: str, **settings: str) -> Bundle:
        return start_bundle(
            COREMON_KUBELET_LOGS=str(faithful.logs),
            COREMON_KUBERNETES=kubeconfig,
            COREMON_SCAN_INTERVAL="1s",
            NODE_NAME=NODE,
            **settings,
        )

    return start


def crash_in(bundle: Bundle, faithful: Node, program: Path, container: str, host: str) -> Any:
    """Have a program crash in a *container*; give its record."""
    known = {record["id"] for record in bundle.stored()}
    with by_socket(bundle):
        faithful.run(container, program, hostname=host)
        stored = bundle.wait_for_stored(len(known) + 1)
    [record] = [each for each in stored if each["id"] not in known]
    return record


@pytest.fixture(scope="session")
def tools() -> None:
    if lacking := missing_binaries():
        pytest.skip(f"missing: {lacking}")


def completed(bundle: Bundle, record: dict[str, Any]) -> Any:
    """Give the record once it has what the API tells, which it does not wait for."""

    def has_it() -> Any:
        [now] = [each for each in bundle.records() if each["id"] == record["id"]]
        return now if now["kubernetes"]["image"] else None

    # Somebody whose API server was away asks again after half a minute at most.
    return wait_until(has_it, "what the API tells of the pod", 90)


def events_of(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    words = ["get", "events", "-n", namespace, "-o", "json"]
    result = subprocess.run(
        [kubectl(), *words], env=cluster.kube_env(), capture_output=True, check=True
    )
    items: list[dict[str, Any]] = json.loads(result.stdout)["items"]
    return items


def make_known(api: Api, faithful: Node, namespace: str, name: str, **more: Any) -> tuple[str, str]:
    """Make a pod that both the API and the kubelet's directories know; give container and uid."""
    container = new_id()
    uid = make_pod(api, namespace, name, node=NODE, containers={"app": container}, **more)
    faithful.run_pod(namespace, name, {"app": container}, uid=uid)
    return container, uid


def test_the_record_has_what_the_api_knows_of_the_pod(
    api: Api, full: str, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c7b6f4"}
    metadata = {
        "labels": {"pod-template-hash": "5d9c7b6f4", "team": "shop", "other": "no"},
        "annotations": {"example.org/owner": "ann", "secret": "no"},
        "ownerReferences": [{**owner, "uid": "1", "controller": True}],
    }
    limits = {"memory": "64Mi", "cpu": "500m"}
    container = new_id()
    image = "registry.example/app:1"
    spec = {
        "containers": [
            {"name": "app", "image": image, "resources": {"limits": limits, "requests": limits}}
        ]
    }
    uid = make_pod(
        api,
        "shop",
        "web-5d9c7b6f4-x2x2x",
        node=NODE,
        containers={"app": container},
        metadata=metadata,
        spec=spec,
    )
    faithful.run_pod("shop", "web-5d9c7b6f4-x2x2x", {"app": container}, uid=uid)
    bundle = start(full, COREMON_POD_LABELS="team", COREMON_POD_ANNOTATIONS="example.org/*")
    record = crash_in(bundle, faithful, crash_program, container, "web-5d9c7b6f4-x2x2x")

    assert (who(record), how(record)) == (
        ("shop", "web-5d9c7b6f4-x2x2x", "app"),
        ("container-id", "container-id"),
    )
    assert (record["workload"], record["node"]) == ("web", NODE)
    record = completed(bundle, record)
    assert record["kubernetes"] == {
        "uid": uid,
        "owner_kind": "Deployment",
        "owner_name": "web",
        "qos": "Guaranteed",
        "labels": {"team": "shop"},
        "annotations": {"example.org/owner": "ann"},
        "container_kind": "container",
        "image": image,
        "image_id": "registry.example/app@sha256:" + "0" * 64,
        "restart_count": 0,
        "limits": limits,
    }


def test_a_crash_becomes_an_event_and_those_alike_one_count(
    cluster: Cluster,
    api: Api,
    full: str,
    start: StartBundle,
    faithful: Node,
    crash_program: Path,
) -> None:
    container, uid = make_known(api, faithful, "loud", "web-0")
    bundle = start(full, COREMON_CORES_MAX_FILES="1")
    record = crash_in(bundle, faithful, crash_program, container, "web-0")
    [event] = wait_until(lambda: events_of(cluster, "loud"), "an Event")

    assert (event["reason"], event["type"], event["count"]) == ("CoreDumped", "Warning", 1)
    assert event["involvedObject"]["uid"] == uid
    assert event["involvedObject"]["fieldPath"] == "spec.containers{app}"
    for part in ("crash (pid", "SIGSEGV", str(bundle.core(record)), NODE, record["id"]):
        assert part in event["message"]
    described = subprocess.run(
        [kubectl(), "describe", "pod", "-n", "loud", "web-0"],
        env=cluster.kube_env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CoreDumped" in described.stdout

    with by_socket(bundle):
        for _ in range(5):
            faithful.run(container, crash_program, hostname="web-0")
    wait_until(
        lambda: [each["count"] for each in events_of(cluster, "loud")] == [6], "six to be counted"
    )


def test_without_a_right_the_rest_works_and_the_log_says_once_which(
    cluster: Cluster, api: Api, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    kubeconfig = account_with(cluster, "powerless")
    container, uid = make_known(api, faithful, "quiet", "web-0")
    bundle = start(kubeconfig)
    denied = bundle.wait_for("failed to list pods")
    record = crash_in(bundle, faithful, crash_program, container, "web-0")
    refused = bundle.wait_for("failed to create events")

    assert denied["err"] == (
        'pods is forbidden: User "system:serviceaccount:coremond:powerless" cannot list resource '
        '"pods" in API group "" at the cluster scope'
    )
    assert "cannot create resource" in refused["err"]
    assert (who(record), how(record)[0]) == (("quiet", "web-0", "app"), "container-id")
    assert record["kubernetes"]["uid"] == uid
    crash_in(bundle, faithful, crash_program, container, "web-0")
    said = [event["m"] for event in bundle.events()]
    assert said.count("failed to list pods") == 1
    assert said.count("failed to create events") == 1
    assert events_of(cluster, "quiet") == []


def test_the_rights_to_list_pods_alone_make_no_events(
    cluster: Cluster, api: Api, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    kubeconfig = account_with(cluster, "lister", PODS_ROLE)
    container, _ = make_known(api, faithful, "listed", "web-0")
    bundle = start(kubeconfig, COREMON_EVENTS="false")
    record = crash_in(bundle, faithful, crash_program, container, "web-0")

    assert completed(bundle, record)["kubernetes"]["image"] == "registry.example/app:1"
    assert bundle.find("failed to create events") is None
    assert bundle.find("failed to list pods") is None
    assert events_of(cluster, "listed") == []


def test_the_rights_to_make_events_alone_need_no_list(
    cluster: Cluster, api: Api, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    kubeconfig = account_with(cluster, "teller", EVENTS_ROLE)
    container, uid = make_known(api, faithful, "told", "web-0")
    bundle = start(kubeconfig, COREMON_LIST_PODS="false")
    crash_in(bundle, faithful, crash_program, container, "web-0")
    [event] = wait_until(lambda: events_of(cluster, "told"), "an Event")

    assert event["involvedObject"]["uid"] == uid
    assert bundle.find("failed to list pods") is None


def leave_core(bundle: Bundle, program: Path, host: str) -> Any:
    """Leave a file in the crash directory, as the kernel names it; give its record."""
    known = {record["id"] for record in bundle.stored()}
    name = f"core.app.4711.{host}.{time.time_ns()}"
    (bundle.crash_dir / f".{name}").write_bytes(program.read_bytes())
    (bundle.crash_dir / f".{name}").rename(bundle.crash_dir / name)
    stored = bundle.wait_for_stored(len(known) + 1)
    [record] = [each for each in stored if each["id"] not in known]
    return record


def test_a_host_name_that_a_pod_asked_for_is_that_pods_and_no_others(
    api: Api, full: str, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    container, uid = make_known(api, faithful, "named", "first", spec={"hostname": "second"})
    make_known(api, faithful, "named", "second", spec={"hostname": "third"})
    make_known(api, faithful, "named", "shared", spec={"hostNetwork": True})
    bundle = start(full)
    completed(bundle, crash_in(bundle, faithful, crash_program, container, ""))  # they are listed
    record = leave_core(bundle, crash_program, "second")
    unknown = leave_core(bundle, crash_program, NODE)

    assert (who(record), how(record)) == (("named", "first", "app"), ("hostname", "only-one"))
    assert record["kubernetes"]["uid"] == uid
    assert (unknown["pod"], how(unknown)[0]) == (NODE, "guess")


def test_pods_that_share_a_host_name_are_told_apart_by_what_the_kernel_says(
    api: Api, full: str, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    make_known(api, faithful, "one", "first", spec={"hostname": "same"})
    other, uid = make_known(api, faithful, "two", "second", spec={"hostname": "same"})
    on_host, _ = make_known(api, faithful, "two", "net", spec={"hostNetwork": True})
    bundle = start(full)
    completed(bundle, crash_in(bundle, faithful, crash_program, on_host, NODE))  # they are listed
    by_cgroup = crash_in(bundle, faithful, crash_program, other, "same")
    by_name = leave_core(bundle, crash_program, "same")
    networked = crash_in(bundle, faithful, crash_program, on_host, NODE)

    assert (who(by_cgroup), how(by_cgroup)[0]) == (("two", "second", "app"), "container-id")
    assert by_cgroup["kubernetes"]["uid"] == uid
    assert how(by_name)[0] == "guess"
    assert (who(networked), how(networked)[0]) == (("two", "net", "app"), "container-id")


def test_a_pod_that_is_deleted_or_replaced_is_still_known_for_its_crash(
    api: Api, full: str, start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    container, uid = make_known(api, faithful, "gone", "web-0")
    bundle = start(full)
    completed(bundle, crash_in(bundle, faithful, crash_program, container, ""))  # it is listed
    api.delete_namespaced_pod("web-0", "gone", grace_period_seconds=0)
    faithful.end_pod("gone", "web-0", uid)
    newer = make_pod(api, "gone", "web-0", node=NODE, containers={"app": new_id()})
    record = crash_in(bundle, faithful, crash_program, container, "web-0")

    assert (who(record), how(record)[0]) == (("gone", "web-0", "app"), "container-id")
    assert record["kubernetes"]["uid"] == uid != newer


def test_the_watch_goes_on_over_restarts_of_the_api_server_and_from_compacted_histories(
    cluster: Cluster,
    api: Api,
    full: str,
    start: StartBundle,
    faithful: Node,
    crash_program: Path,
) -> None:
    container, _ = make_known(api, faithful, "before", "web-0")
    bundle = start(full)
    completed(bundle, crash_in(bundle, faithful, crash_program, container, ""))  # it is listed
    position = int(api.list_pod_for_all_namespaces().metadata.resource_version)
    cluster.stop_apiserver()
    request = Request(f"{cluster.etcd_url}/v3/kv/compaction", method="POST")
    urlopen(request, json.dumps({"revision": position, "physical": True}).encode()).close()
    cluster.start_apiserver()
    container, _ = make_known(api, faithful, "after", "web-0")
    record = crash_in(bundle, faithful, crash_program, container, "web-0")

    assert completed(bundle, record)["kubernetes"]["image"] == "registry.example/app:1"


def test_without_the_api_server_nothing_waits_and_names_come_from_the_kubelet(
    cluster: Cluster,
    api: Api,
    full: str,
    start: StartBundle,
    faithful: Node,
    crash_program: Path,
) -> None:
    container, uid = make_known(api, faithful, "alone", "web-0")
    cluster.stop_apiserver()
    try:
        bundle = start(full)
        record = crash_in(bundle, faithful, crash_program, container, "web-0")
        bundle.wait_for("failed to list pods")
    finally:
        cluster.start_apiserver()

    assert (who(record), how(record)[0]) == (("alone", "web-0", "app"), "container-id")
    assert (record["kubernetes"]["uid"], record["kubernetes"]["image"]) == (uid, "")
    wait_until(lambda: bundle.find("pods listed again"), "the pods to be listed again", 90)
    assert completed(bundle, record)["kubernetes"]["image"] == "registry.example/app:1"
