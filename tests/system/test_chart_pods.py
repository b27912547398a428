"""The chart's pods, as they are rendered, run by podman: what they may do is enough."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kernel, kubetools, manifests, podman
from tests.bundle import wait_until
from tests.podman import IN_CONTAINER, Podman

IMAGE = "localhost/coremond:chart"
SOMEBODY = 4242
NODE = "node-1"

pytestmark = pytest.mark.timeout(900)  # the first one builds


@pytest.fixture(scope="module")
def containers() -> Iterator[Podman]:
    # Not for the session: who has the storage keeps all others waiting.
    if what := podman.missing() or kubetools.missing_binaries():
        pytest.skip(f"missing: {what}")
    with Podman() as opened:
        opened.make_base()
        opened.build("--file=container/Dockerfile", f"--tag={IMAGE}")
        yield opened


class Node:
    """A directory with what a node has, and the chart's pod on it."""

    def __init__(self, containers: Podman, home: Path, values: dict[str, str]) -> None:
        self._podman = containers
        self.root = home / "node"
        [daemonset] = [each for each in manifests.render(values) if each["kind"] == "DaemonSet"]
        self._spec = daemonset["spec"]["template"]["spec"]
        # The kernel looks its socket up where crashagent has it, so both have the node's path.
        self.run_dir = self.root / "run" / "coremond"
        self._name = home.name
        (self.root / "levels").mkdir(parents=True)
        (self.root / "levels" / ".minlevel.yaml").write_text("default: debug\n")

    def path(self, path: str) -> Path:
        """Give where the directory *path* of the node is."""
        return self.root / path.lstrip("/")

    @property
    def cores(self) -> list[Path]:
        return sorted(self.path(f"/var/cores/{NODE}").glob("core.*.gz"))

    def start(self) -> None:
        for volume in self._spec["volumes"]:
            if "hostPath" in volume:  # as the kubelet makes them
                self.path(volume["hostPath"]["path"]).mkdir(mode=0o755, parents=True, exist_ok=True)
        pid = ["--pid=host"] if self._spec.get("hostPID") else []
        for container in self._spec["initContainers"]:
            entry = f"--entrypoint={json.dumps(container['command'])}"
            self._podman.run("run", "--rm", *pid, *self._options(container), entry, IMAGE)
        [container] = self._spec["containers"]
        words = [*pid, *self._options(container), IMAGE]
        self._podman.run("run", "--detach", f"--name={self._name}", *words)
        wait_until(lambda: self.corectl("status").returncode == 0, "the programs")

    def stop(self) -> None:
        """End the pod as the kubelet would, hook first."""
        [container] = self._spec["containers"]
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        self._podman.run("exec", self._name, *hook)
        self._podman.run("stop", "--time=30", self._name)
        self._podman.run("rm", "--force", self._name)

    def corectl(self, *words: str) -> Any:
        return self._podman.run("exec", self._name, "corectl", *words, check=False)

    def _options(self, container: dict[str, Any]) -> list[str]:
        context = container["securityContext"]
        capabilities = context.get("capabilities", {})
        volumes = {each["name"]: each for each in self._spec["volumes"]}
        words = [
            *IN_CONTAINER,
            *(["--privileged"] if context["privileged"] else []),
            *(
                ["--read-only", "--read-only-tmpfs=false"]
                if "readOnlyRootFilesystem" in context
                else []
            ),
            *(
                ["--security-opt=no-new-privileges"]
                if context.get("allowPrivilegeEscalation") is False
                else []
            ),
            *(f"--cap-drop={name}" for name in capabilities.get("drop", [])),
            *(f"--cap-add={name}" for name in capabilities.get("add", [])),
            f"--env=COREMON_RUN_DIR={self.run_dir}",
            f"--volume={self.run_dir}:{self.run_dir}",
        ]
        words += [
            f"--env={each['name']}={each.get('value', NODE)}" for each in container.get("env", [])
        ]
        for mount in container["volumeMounts"]:
            volume, there = volumes[mount["name"]], mount["mountPath"]
            mode = ":ro" if mount.get("readOnly") else ""
            if "emptyDir" in volume:
                words.append(f"--tmpfs={there}")
            elif "configMap" in volume:
                words.append(f"--volume={self.root / 'levels'}:{there}{mode}")
            else:
                words.append(f"--volume={self.path(volume['hostPath']['path'])}:{there}{mode}")
        return words


@pytest.fixture
def node(containers: Podman, home: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(containers, home, {"coremon.hostPath": "true", **request.param})
    yield made
    containers.run("rm", "--all", "--force", "--time=5")


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def crash(containers: Podman, node: Node, directory: str = "") -> None:
    folder = f"--volume={node.path('/home/crash/f5') / directory}:/var/crash"
    podman.crash(containers, IMAGE, folder, user=SOMEBODY, host="f5-observer-0")


PLAIN = [{"platformType": "robin"}, {"platformType": "auto"}]


@pytest.mark.parametrize("node", PLAIN, indirect=True, ids=["robin", "auto"])
def test_a_file_of_anybody_s_becomes_a_core(
    real_kernel: None, containers: Podman, node: Node
) -> None:
    node.start()

    with kernel.core_pattern(kernel.file_pattern(Path("/var/crash"))):
        crash(containers, node)
        wait_until(lambda: node.cores, "a core")

    wait_until(lambda: not list(node.path("/home/crash/f5").glob("core.*")), "the source to go")
    assert mode(node.path("/home/crash/f5")) == 0o1777
    assert mode(node.run_dir) == 0o700
    assert node.corectl("verify").returncode == 0
    node.stop()


@pytest.mark.parametrize("node", [{"platformType": "socket"}], indirect=True, ids=["socket"])
def test_the_kernel_s_socket_has_the_memory_and_the_container(
    coredump_socket: None, containers: Podman, node: Node
) -> None:
    node.start()

    with kernel.core_pattern(f"@@{node.run_dir}/kernel.sock"):
        crash(containers, node)
        wait_until(lambda: node.cores, "a core")

    [record] = json.loads(node.corectl("list", "--json").stdout)
    assert record["capture"] == "resident"
    assert record["container_id"]
    node.stop()


@pytest.mark.parametrize("mode", ["file", "socket"])
def test_the_override_sets_the_pattern_takes_cores_and_gives_it_back(
    coredump_socket: None, containers: Podman, home: Path, mode: str
) -> None:
    if mode == "socket" and not may_enter(Path("/proc/1/ns/mnt")):
        pytest.skip("missing: the right to enter the mount namespace of process 1")
    platform = {"file": "robin", "socket": "socket"}[mode]
    asked = {"coremon.hostPath": "true", "platformType": platform, **manifests.ASKED}
    node = Node(containers, home, asked)
    wanted = {
        "file": "/var/crash/core.%e.%p.%h.%t",
        "socket": f"@@{node.run_dir}/kernel.sock",
    }

    with kernel.core_pattern("|/bin/false %p"):
        node.start()
        during = core_pattern()
        crash(containers, node)
        wait_until(lambda: node.cores, "a core")
        node.stop()
        after = core_pattern()

    assert during == wanted[mode]
    assert after == "|/bin/false %p"


def core_pattern() -> str:
    return kernel.SETTINGS["core_pattern"].read_text().strip()


def may_enter(namespace: Path) -> bool:
    try:
        os.close(os.open(namespace, os.O_RDONLY))
    except PermissionError:
        return False
    return True
