"""What `container/kustomize` has in it: the chart rendered, for those without Helm."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests import kubetools
from tests.bundle import ROOT

CHART = ROOT / "container" / "chart"
FOLDER = ROOT / "container" / "kustomize"
NAMESPACE = "f5-utils"
NAMED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
    },
}
"""What Helm makes by --create-namespace; the label is for directories of the node."""
_HOST = {"coremon.hostPath": "true"}
ASKED = {
    "coremon.env[0].name": "COREMOND_OVERRIDE_CORE_PATTERN",
    "coremon.env[0].value": "true",
}
"""What has core_pattern set."""
OVERLAYS: dict[str, dict[str, str]] = {
    "auto": _HOST,
    "generic": {**_HOST, "platformType": "generic"},
    "ocp": {**_HOST, "platformType": "ocp"},
    "robin": {**_HOST, "platformType": "robin"},
    "socket": {**_HOST, **ASKED, "platformType": "socket"},
    "override": {**_HOST, **ASKED, "platformType": "generic"},
    "volume": {},
}
"""The values of each; `override` is the product page's CNEInstance."""
_HELMS_OWN = ("helm.sh/chart", "app.kubernetes.io/managed-by", "helm.sh/resource-policy")
_HEAD = "# Made from the chart by `make manifests`.\n"
_BASE = """\
# What all overlays have. Take one of them: kubectl apply -k container/kustomize/overlays/auto
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - manifests.yaml
"""
_ALONE = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - namespace.yaml
"""
_OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../../base
  - manifests.yaml
"""


class Strict(yaml.SafeLoader):
    """Reads YAML as Kubernetes does, to whom `y` and `off` are no text; refuses a key twice."""

    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} twice", node.start_mark)
        return super().construct_mapping(node, deep)


Strict.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:y|Y|n|N)$"), list("yYnN"))


def render(
    values: Mapping[str, str],
    *words: str,
    release: str = "coremond",
    namespace: str = NAMESPACE,
) -> list[Any]:
    """Give what Helm makes of the chart with *values*, without a cluster."""
    command = [str(kubetools.helm()), "template", release, str(CHART), *words]
    command += ["--namespace", namespace]
    for name, value in values.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return [document for document in yaml.load_all(done.stdout, Strict) if document]


def without_helm(document: dict[str, Any]) -> dict[str, Any]:
    """Take out of *document* what only Helm needs."""
    for part in ("labels", "annotations"):
        marks = document["metadata"].get(part, {})
        for name in _HELMS_OWN:
            marks.pop(name, None)
        if not marks:
            document["metadata"].pop(part, None)
    return document


def make() -> dict[str, str]:
    """Give the text of every file, by its path in the folder."""
    rendered = {
        name: [without_helm(document) for document in render(values)]
        for name, values in OVERLAYS.items()
    }
    first, *others = rendered.values()
    shared = [document for document in first if all(document in other for other in others)]
    files = {"base/kustomization.yaml": _HEAD + _BASE, "base/manifests.yaml": _dumped(shared)}
    # By itself: who deletes the rest would delete all that others have in it.
    files["namespace/kustomization.yaml"] = _HEAD + _ALONE
    files["namespace/namespace.yaml"] = _dumped([NAMED])
    for name, documents in rendered.items():
        own = [document for document in documents if document not in shared]
        files[f"overlays/{name}/kustomization.yaml"] = _HEAD + _OVERLAY
        files[f"overlays/{name}/manifests.yaml"] = _dumped(own)
    return files


def _dumped(documents: list[Any]) -> str:
    return _HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=100)


def settings() -> set[str]:
    """Name the settings of conf/coremond.env."""
    text = (ROOT / "conf" / "coremond.env").read_text()
    return set(re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE))


def main() -> int:
    if what := kubetools.missing_binaries():
        print(f"missing: {what}", file=sys.stderr)
        return 1
    for name, text in make().items():
        path: Path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
