"""How much memory the idle bundle takes: python -m tests.benchmarks.idle_memory.

PSS is a process's own memory plus its share of what it has in common with others; the sum over the
five processes is what the bundle costs a node. Measured after one core was stored: without a
cluster, and beside a real API server that has told of the pods of a full node.
"""

import platform
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack

import psutil

from tests import crashes
from tests.benchmarks.table import MIB, grid
from tests.bundle import Bundle, Home, wait_until
from tests.cluster import Cluster, find_assets, make_pod
from tests.node import new_id

GOAL_MIB = 100.0
SETTLING = 3.0
PODS = 110
"""As many as a kubelet runs."""


def main() -> int:
    """Print the table."""
    print(f"Python {platform.python_version()}, Linux {platform.release()}, idle\n")
    columns, found = ["alone"], [measure({})]
    with ExitStack() as stack:
        if assets := find_assets():
            cluster = stack.enter_context(Cluster(assets))
            api = cluster.api()
            for number in range(PODS):
                make_pod(api, "shop", f"web-{number}", node="node-1", containers={"app": new_id()})
            columns.append(f"in a cluster, {PODS} pods")
            found.append(measure({"COREMON_KUBERNETES": str(cluster.kubeconfig())}))
        else:
            print("in a cluster: missing etcd and kube-apiserver in $KUBEBUILDER_ASSETS\n")
    rows = [(program, [f"{each[program] / MIB:.1f}" for each in found]) for program in found[0]]
    print(grid("PSS, MiB", columns, rows))
    print(f"(goal: {GOAL_MIB:g} or less together)")
    return 0


def measure(settings: Mapping[str, str]) -> dict[str, int]:
    """Give the bytes of each program, and of all together."""
    with Home() as home, Bundle(home, settings) as bundle:
        with crashes.Sender(bundle.apport_socket) as sender:
            sender.send_message(b"9 11 0 1")
            sender.write(bytes(2**20))
        bundle.wait_for_stored()
        wait_until(lambda: bundle.corectl("status").returncode == 0, "the programs to be RUNNING")
        time.sleep(SETTLING)
        programs = {process["name"]: process["pid"] for process in bundle.processes()}
        parent = psutil.Process(next(iter(programs.values()))).ppid()
        [keeper] = psutil.Process(programs["crashagent"]).children()
        pids = {"supervisord": parent, **programs, "crashagent keeper": keeper.pid}
        everybody = {process.pid for process in psutil.Process(parent).children(recursive=True)}
        assert everybody | {parent} == set(pids.values())
        found = {name: psutil.Process(pid).memory_full_info().pss for name, pid in pids.items()}
    return {**found, "together": sum(found.values())}


if __name__ == "__main__":
    sys.exit(main())
