"""A real Kubernetes API server with its etcd, on loopback, without kubelets or controllers."""

import fcntl
import lzma
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.certificates import Authority

ASSETS = "KUBEBUILDER_ASSETS"
Api = Any
"""A `kubernetes.client.CoreV1Api`: it takes bodies as JSON, which its types do not say."""
_USUAL = Path("/usr/local/kubebuilder/bin")
_PATIENCE = 60.0
"""Seconds that a server has to become ready."""


def find_assets() -> Path | None:
    """Give the directory that etcd and kube-apiserver are in, unpacked; None without them.

    They are where envtest has them: in $KUBEBUILDER_ASSETS, or in its usual place; also as .xz.
    """
    given = Path(os.environ.get(ASSETS) or _USUAL).absolute()
    names = ("etcd", "kube-apiserver")
    if all(os.access(given / name, os.X_OK) for name in names):
        return given
    if not all((given / f"{name}.xz").exists() for name in names):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coremond-tests"
    unpacked = cache / "kube-assets"
    unpacked.mkdir(parents=True, exist_ok=True)
    with open(cache / "kube-assets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            _unpack(given / f"{name}.xz", unpacked / name)
    return unpacked


def _unpack(packed: Path, target: Path) -> None:
    if target.exists() and target.stat().st_mtime >= packed.stat().st_mtime:
        return
    half = target.with_suffix(".half")
    with lzma.open(packed) as source, open(half, "wb") as sink:
        shutil.copyfileobj(source, sink, 2**20)
    half.chmod(0o755)
    half.rename(target)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Cluster:
    """Owns the two servers, and gives access to them."""

    def __init__(self, assets: Path) -> None:
        self._assets = assets
        self._stack = ExitStack()
        self._home = Path(tempfile.mkdtemp(prefix="cm-cluster-"))
        self._port = _free_port()
        self._etcd_port = _free_port()
        self._apiserver: subprocess.Popen[bytes] | None = None
        self.etcd_url = f"http://127.0.0.1:{self._etcd_port}"
        self.url = f"https://127.0.0.1:{self._port}"
        self.ca = self._home / "admin" / "ca.crt"

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self._home, ignore_errors=True)
        try:
            authority = Authority(self._home / "authority")
            authority.issue(self._home / "server", "localhost")
            authority.issue(self._home / "admin", "admin", organisation="system:masters")
            command = ["openssl", "genrsa", "-out", "sa.key", "2048"]
            subprocess.run(command, cwd=self._home, check=True, capture_output=True)
            self._start_etcd()
            self.start_apiserver()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_apiserver()
        self._stack.close()

    def _start_etcd(self) -> None:
        own, peers = self.etcd_url, f"http://127.0.0.1:{_free_port()}"
        process = self._spawn(
            "etcd",
            *("--data-dir", str(self._home / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", own, "--advertise-client-urls", own),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}"),
        )
        self._stack.callback(_end, process)

    def start_apiserver(self) -> None:
        """Start the API server, again at the port it had before, and wait until it is ready."""
        server, key = self._home / "server", self._home / "sa.key"
        self._apiserver = self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            *("--bind-address=127.0.0.1", f"--secure-port={self._port}", "--insecure-port=0"),
            *(f"--tls-cert-file={server / 'tls.crt'}", f"--tls-private-key-file={server}/tls.key"),
            *(f"--client-ca-file={self.ca}", f"--cert-dir={self._home / 'certs'}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--api-audiences=https://kubernetes.default.svc",
            *("--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
            *("--endpoint-reconciler-type=none", "--allow-privileged=true", "--profiling=false"),
        )
        end = time.monotonic() + _PATIENCE
        while not self._is_ready():
            if self._apiserver.poll() is not None or time.monotonic() > end:
                log = (self._home / "kube-apiserver.log").read_text(errors="replace")
                raise RuntimeError(f"kube-apiserver did not become ready:\n{log[-4000:]}")
            time.sleep(0.1)

    def stop_apiserver(self) -> None:
        """Kill the API server; what it knew stays in etcd."""
        if self._apiserver:
            _end(self._apiserver)
        self._apiserver = None

    def _spawn(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self._home / f"{name}.log", "ab") as log:
            return subprocess.Popen([self._assets / name, *words], stdout=log, stderr=log)

    def _is_ready(self) -> bool:
        with suppress(Exception):
            # The default namespace is the last thing that a new server makes of itself.
            self.api().read_namespace("default")
            client.RbacAuthorizationV1Api(self.api().api_client).read_cluster_role("view")
            return True
        return False

    def api(self) -> Api:
        """Give a client with every right."""
        made: Any = config.new_client_from_config(str(self.kubeconfig()))  # type: ignore[no-untyped-call]
        return client.CoreV1Api(made)

    def kubeconfig(self) -> Path:
        """Give the kubeconfig of somebody with every right."""
        admin = self._home / "admin"
        return self._write_kubeconfig(
            "admin",
            {"client-certificate": str(admin / "tls.crt"), "client-key": str(admin / "tls.key")},
        )

    def kubeconfig_for(self, namespace: str, account: str) -> Path:
        """Give the kubeconfig of a ServiceAccount, which is made if it is not there."""
        api = self.api()
        ensure_namespace(api, namespace)
        with suppress(ApiException):
            body = {"metadata": {"name": account}}
            api.create_namespaced_service_account(namespace, body)
        token = api.create_namespaced_service_account_token(
            account, namespace, {"spec": {"expirationSeconds": 7200}}
        )
        return self._write_kubeconfig(f"{namespace}-{account}", {"token": token.status.token})

    def kube_env(self) -> dict[str, str]:
        """Give the environment in which kubectl and helm go to this server, with every right."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig())}

    def _write_kubeconfig(self, name: str, user: Mapping[str, str]) -> Path:
        path = self._home / f"{name}.kubeconfig"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority": str(self.ca)},
                }
            ],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(text))
        return path


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def ensure_namespace(api: Api, name: str) -> None:
    """Make a namespace, if it is not there."""
    with suppress(ApiException):
        api.create_namespace({"metadata": {"name": name}})


def make_pod(
    api: Api,
    namespace: str,
    name: str,
    *,
    node: str,
    containers: Mapping[str, str],
    metadata: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    init: Mapping[str, str] | None = None,
) -> str:
    """Make a pod on *node* as a kubelet would report it, and give its uid.

    *containers* and *init* map names to container ids.
    """
    ensure_namespace(api, namespace)
    with suppress(ApiException):
        api.create_namespaced_service_account(namespace, {"metadata": {"name": "default"}})
    images = {"image": "registry.example/app:1"}
    body: dict[str, Any] = {
        "metadata": {"name": name, **(metadata or {})},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": each, **images} for each in containers],
            **({"initContainers": [{"name": each, **images} for each in init]} if init else {}),
            **(spec or {}),
        },
    }
    pod = api.create_namespaced_pod(namespace, body)
    status = {
        "phase": "Running",
        "containerStatuses": [_container_status(*each) for each in containers.items()],
        "initContainerStatuses": [_container_status(*each) for each in (init or {}).items()],
    }
    api.patch_namespaced_pod_status(name, namespace, {"status": status})
    uid: str = pod.metadata.uid
    return uid


def _container_status(name: str, container_id: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example/app:1",
        "imageID": "registry.example/app@sha256:" + "0" * 64,
        "containerID": f"containerd://{container_id}",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }
