"""How soon it is known whose a crash is: python -m tests.benchmarks.identity.

A node with 500 pods of two containers. Beside ours stands the way of a collector that asks the API
at each crash, by the host name, with the same client and a real API server. Then 110 pods crash at
once, through the kernel's socket, and each core must be under its pod.
"""

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psutil

from common.identity import Identifier
from common.item import Crash
from common.kubelet import KubeletLogs
from services.coremond.cluster import connect
from services.coremond.pod_cache import ApiPod, PodCache
from tests import crashes, kernel, node
from tests.benchmarks.table import grid
from tests.bundle import Bundle, Home, wait_until
from tests.cluster import Cluster, find_assets, make_pod
from tests.node import Node, new_id

PODS, CRASHING = 500, 110
RUNS = 200
NODE = "node-1"


def main() -> int:
    """Print the tables."""
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {PODS} pods\n")
    with tempfile.TemporaryDirectory() as folder, Node(Path(folder)) as made:
        print(answers(made), flush=True)
    print()
    print(at_once())
    return 0


def answers(made: Node) -> str:
    """Measure single answers."""
    pods = {new_id(): f"web-{n}" for n in range(PODS)}
    told = []
    for container, name in pods.items():
        other = new_id()
        uid = made.run_pod("shop", name, {"app": container, "sidecar": other})
        told.append(api_pod(name, uid, {"app": container, "sidecar": other}))
    ids = list(pods)
    cache = PodCache()
    cache.replace_all(told)
    by_cache = Identifier(NODE, api=cache)
    kubelet = KubeletLogs(made.logs)
    by_kubelet = Identifier(NODE, kubelet=kubelet)
    by_both = Identifier(NODE, api=cache, kubelet=kubelet)
    whose = by_kubelet.whose

    def by_id(identifier: Identifier, n: int) -> bool:
        crash = Crash(cgroup=f"/kubepods/pod{told[n].metadata.uid}/{ids[n]}")
        return identifier.whose(crash).identity.by == "container-id"

    def by_name(identifier: Identifier, n: int) -> bool:
        return identifier.whose(Crash(hostname=f"web-{n}")).identity.by == "hostname"

    def by_uid(identifier: Identifier, n: int) -> bool:
        crash = Crash(cgroup=f"/kubepods/pod{told[n].metadata.uid}")
        return identifier.whose(crash).identity.by == "pod-uid"

    def cold(n: int) -> bool:
        return by_id(Identifier(NODE, kubelet=KubeletLogs(made.logs)), n)

    def unknown(n: int) -> bool:
        return whose(Crash(cgroup=f"/docker/{n:064x}", hostname="x")).found is None

    def look(_: int) -> bool:
        kubelet.refresh()
        return True

    ways: list[tuple[str, Callable[[int], bool]]] = [
        ("API's cache, container id (goal 1 ms)", lambda n: by_id(by_cache, n)),
        ("API's cache, host name", lambda n: by_name(by_cache, n)),
        ("both, container id (goal 1 ms)", lambda n: by_id(by_both, n)),
        ("both, pod's uid", lambda n: by_uid(by_both, n)),
        ("both, host name", lambda n: by_name(by_both, n)),
        ("kubelet's directories, container id (goal 5 ms)", lambda n: by_id(by_kubelet, n)),
        ("the same, first answer after a start", cold),
        ("kubelet's directories, pod's uid", lambda n: by_uid(by_kubelet, n)),
        ("kubelet's directories, host name", lambda n: by_name(by_kubelet, n)),
        ("kubelet's directories, nobody's id", unknown),
    ]
    rows = [(name, timed(way, RUNS)) for name, way in ways]
    rows.append(("kubelet's directories, a look at what came and went", timed(look, 20)))
    assets = find_assets()
    if assets:
        with Cluster(assets) as cluster:
            api = cluster.api()
            for n in range(PODS):
                make_pod(api, "shop", f"web-{n}", node=NODE, containers={"app": new_id()})
            asking = connect(cluster.kubeconfig())
            rows.append(("peer: list the node's pods at each crash", timed(ask(asking), 20)))
    else:
        print("peer left out: etcd and kube-apiserver are missing (KUBEBUILDER_ASSETS)\n")
    return grid("One answer, milliseconds", ("median", "99th of 100", "longest"), rows)


def ask(api: Any) -> Callable[[int], bool]:
    """Give the way of whoever asks the API at each crash."""

    def way(n: int) -> bool:
        found = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={NODE}")
        return any(pod.metadata.name == f"web-{n}" for pod in found.items)

    return way


def timed(way: Callable[[int], bool], runs: int) -> tuple[str, str, str]:
    """Ask *runs* times; give milliseconds."""
    took = []
    for n in range(runs):
        started = time.perf_counter()
        assert way(n)
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    figures = (statistics.median(took), took[int(len(took) * 0.99)], took[-1])
    return tuple(f"{each:.3f}" for each in figures)  # type: ignore[return-value]


def api_pod(name: str, uid: str, containers: dict[str, str]) -> ApiPod:
    """Give a pod as the API tells of it."""
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": uid},
            "spec": {"containers": [{"name": each, "image": "app:1"} for each in containers]},
            "status": {
                "containerStatuses": [
                    {"name": each, "containerID": f"containerd://{container_id}"}
                    for each, container_id in containers.items()
                ]
            },
        },
        ApiPod,
    )


def at_once() -> str:
    """Have many pods crash at once, without an API and with one; see where the cores are."""
    if lacking := kernel.missing() or node.missing():
        return f"110 crashes at once left out: missing {lacking}"
    rows = [("no API", crash_all(None))]
    if assets := find_assets():
        with Cluster(assets) as cluster:
            rows.append(("API", crash_all(cluster)))
    title = f"{CRASHING} pods that crash at once"
    return grid(title, ("right pod", "crashes s", "stored s", "coremond PSS MiB"), rows)


def crash_all(cluster: Cluster | None) -> tuple[str, str, str, str]:
    """Give how many cores are under their pod, and how long all took."""
    with ExitStack() as stack:
        home = stack.enter_context(Home())
        made = stack.enter_context(Node(home / "log"))
        (home / "program").mkdir()
        program = crashes.compile_program(home / "program")
        pods = {new_id(): ("shop" if n % 2 else "twin", f"web-{n // 2}") for n in range(CRASHING)}
        settings = {"COREMON_KUBERNETES": "off"}
        if cluster:
            settings["COREMON_KUBERNETES"] = str(cluster.kubeconfig())
        for container, (namespace, name) in pods.items():
            uid = ""
            if cluster:
                containers = {"app": container}
                uid = make_pod(cluster.api(), namespace, name, node=NODE, containers=containers)
            made.run_pod(namespace, name, {"app": container}, uid=uid)
        bundle = stack.enter_context(
            Bundle(
                home,
                {
                    "COREMON_KUBELET_LOGS": str(made.logs),
                    "COREMON_CORES_MAX_FILES": "0",
                    "NODE_NAME": NODE,
                    **settings,
                },
            )
        )
        wait_until(lambda: bundle.corectl("status").returncode == 0, "the programs to be RUNNING")
        time.sleep(2)
        stack.enter_context(kernel.core_pattern(f"@@{bundle.run_dir / 'kernel.sock'}"))
        started = time.perf_counter()
        with ThreadPoolExecutor(CRASHING) as threads:
            for container, (_, name) in pods.items():
                threads.submit(made.run, container, program, hostname=name)
        crashed = time.perf_counter() - started
        stored = bundle.wait_for_stored(CRASHING, patience=120)
        took = time.perf_counter() - started
        right = sum(
            (record["namespace"], record["pod"]) == pods[record["container_id"]]
            for record in stored
        )
        memory = psutil.Process(bundle.pid_of("coremond")).memory_full_info().pss / 2**20
    return f"{right}/{CRASHING}", f"{crashed:.1f}", f"{took:.1f}", f"{memory:.1f}"


if __name__ == "__main__":
    sys.exit(main())
