"""The chart as Helm renders it, and as a real API server takes it."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from services.corectl import cneinstance
from services.corectl.settings import CorectlSettings
from services.coremond.settings import CoremondSettings
from services.crashagent.settings import CrashagentSettings
from services.qkview_collect.settings import QkviewSettings
from tests import kernel, kubetools, manifests
from tests.bundle import BIN, ROOT
from tests.cluster import Cluster, ensure_namespace
from tests.manifests import CHART, FOLDER, NAMESPACE, OVERLAYS

PLATFORMS = ("auto", "generic", "other", "ocp", "robin", "socket")
OVERRIDE = manifests.ASKED
WORKLOAD = ROOT / "container" / "workload"
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
VARIANTS = [
    {"platformType": platform, "coremon.hostPath": host_path, **override}
    for platform, host_path, override in product(PLATFORMS, ("true", "false"), ({}, OVERRIDE))
]
PAGE_INIT = {"privileged": True}
PAGE_MAIN = {
    "privileged": True,
    "allowPrivilegeEscalation": True,
    "readOnlyRootFilesystem": True,
}
"""The product page's words, for COREMOND_OVERRIDE_CORE_PATTERN."""
EVERYTHING = {
    "coremon.hostPath": "true",
    "grpc.tls.certManager.enabled": "true",
    "grpc.tls.certManager.issuerRef.name": "authority",
    "metrics.podMonitor.enabled": "true",
    "metrics.rules.enabled": "true",
    "metrics.dashboard.enabled": "true",
    "priorityClass.create": "true",
    "priorityClass.name": "coremond",
    "openshift.scc": "true",
    "identity.podLabels[0]": "app",
    "networkPolicy.from[0].podSelector.matchLabels.app": "prometheus",
    "imagePullSecrets[0].name": "pull",
}
HOST = {"coremon.hostPath": "true"}
WORDS = ("y", "on", "no", "true", "null", "123", "1e3", "0x1f", "0o17", "1.5", "2001-01-01")
"""Legal names that are something else than text, where YAML has them without quotes."""
FOREIGN_GROUPS = ("security.openshift.io/", "monitoring.coreos.com/", "cert-manager.io/")
"""Kinds that Kubernetes has no schema of."""

_VALIDATE = """
import json, sys
import kubernetes_validate
found = []
for document in json.load(sys.stdin):
    for version in sys.argv[1:]:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            found.append(f"{version}: {document['kind']}: {path}: {error.message}")
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module", autouse=True)
def _binaries() -> None:
    if what := kubetools.missing_binaries():
        pytest.skip(f"missing: {what}")


@pytest.fixture(scope="module")
def validate(_binaries: None) -> Callable[..., list[str]]:
    """Give a function that says what Kubernetes' own schemas refuse."""
    if what := kubetools.missing_schemas():
        pytest.skip(f"missing: {what}")

    def run(documents: list[Any], versions: list[str] = VERSIONS) -> list[str]:
        known = [each for each in documents if not each["apiVersion"].startswith(FOREIGN_GROUPS)]
        done = subprocess.run(
            [sys.executable, "-c", _VALIDATE, *versions],
            input=json.dumps(known),
            env={**os.environ, "PYTHONPATH": str(kubetools.schemas())},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found

    return run


@cache
def _rendered(values: tuple[tuple[str, str], ...], words: tuple[str, ...]) -> str:
    return json.dumps(manifests.render(dict(values), *words))


def render(values: Mapping[str, str], *words: str) -> list[Any]:
    documents: list[Any] = json.loads(_rendered(tuple(values.items()), words))
    return documents


def refusal(values: Mapping[str, str]) -> str:
    with pytest.raises(ValueError, match="coremond") as caught:
        manifests.render(values)
    return str(caught.value)


def shape(part: Any) -> Any:
    """Give the type of everything that there is in *part*."""
    match part:
        case dict():
            assert all(isinstance(key, str) for key in part), part
            return {key: shape(value) for key, value in part.items()}
        case list():
            return [shape(each) for each in part]
        case _:
            return type(part).__name__


def of_kind(documents: list[Any], kind: str) -> list[Any]:
    return [document for document in documents if document["kind"] == kind]


def pod(values: Mapping[str, str], *words: str) -> dict[str, Any]:
    [daemonset] = of_kind(render(values, *words), "DaemonSet")
    spec: dict[str, Any] = daemonset["spec"]["template"]["spec"]
    return spec


def main(spec: dict[str, Any]) -> dict[str, Any]:
    [container] = spec["containers"]
    assert isinstance(container, dict)
    return container


def env(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "node-1") for each in container["env"]}


def host_paths(spec: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Give where each directory of the node is mounted, and whether it can be written."""
    mounts = {each["name"]: each for each in main(spec)["volumeMounts"]}
    return {
        volume["hostPath"]["path"]: (
            mounts[volume["name"]]["mountPath"],
            not mounts[volume["name"]].get("readOnly", False),
        )
        for volume in spec["volumes"]
        if "hostPath" in volume
    }


def helm(*words: str | Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [kubetools.helm(), *words], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return done.stdout


def test_the_linter_finds_nothing() -> None:
    for values in (*OVERLAYS.values(), EVERYTHING):
        words = [word for each in values.items() for word in ("--set", "=".join(each))]

        assert "0 chart(s) failed" in helm("lint", "--strict", CHART, *words)


def test_every_kubernetes_takes_what_is_rendered(validate: Callable[..., list[str]]) -> None:
    variants = [render(values) for values in (*VARIANTS, EVERYTHING)]
    different = {json.dumps(document): document for each in variants for document in each}

    assert validate(list(different.values())) == []
    assert len(different) > len(VARIANTS)


def test_a_field_that_kubernetes_does_not_know_would_be_found(
    validate: Callable[..., list[str]],
) -> None:
    [daemonset] = of_kind(render({}), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostPid"] = True

    assert len(validate([daemonset])) == len(VERSIONS)


def test_app_armor_is_said_as_each_kubernetes_understands_it(
    validate: Callable[..., list[str]],
) -> None:
    values = {"appArmorProfile": "Unconfined"}
    old, new = (render(values, "--kube-version", version) for version in ("1.29.0", "1.30.0"))

    [before], [since] = of_kind(old, "DaemonSet"), of_kind(new, "DaemonSet")

    key = "container.apparmor.security.beta.kubernetes.io/coremond"
    assert before["spec"]["template"]["metadata"]["annotations"][key] == "unconfined"
    assert "appArmorProfile" not in main(pod(values, "--kube-version", "1.29.0"))["securityContext"]
    assert key not in since["spec"]["template"]["metadata"]["annotations"]
    assert validate(old, ["1.29"]) == validate(new, ["1.30"]) == []


def named(word: str) -> tuple[str, ...]:
    """Give the words for Helm that call everything *word* that users may name."""
    values = {
        **dict.fromkeys(("image.repository", "image.tag", "imagePullSecrets[0].name"), word),
        **dict.fromkeys(("persistence.claimName", "persistence.storageClassName"), word),
        **dict.fromkeys(("persistence.annotations.on", "serviceAccount.annotations.on"), word),
        **dict.fromkeys(("podLabels.on", "podAnnotations.on", "nodeSelector.on"), word),
        **dict.fromkeys(("serviceAccount.name", "priorityClass.name", "seLinuxType"), word),
        **dict.fromkeys(("extraEnv[0].name", "extraEnv[0].value", "extraCapabilities[0]"), word),
        **dict.fromkeys(("coremon.env[0].value", "identity.podLabels[0]"), word),
        **dict.fromkeys(("metrics.podMonitor.labels.on", "metrics.rules.labels.on"), word),
        **dict.fromkeys(("metrics.dashboard.labels.on", "metrics.dashboard.annotations.on"), word),
        **dict.fromkeys(("grpc.tls.certManager.issuerRef.name",), word),
        **dict.fromkeys(("grpc.tls.certManager.issuerRef.kind",), word),
        **dict.fromkeys(("grpc.tls.certManager.issuerRef.group",), word),
        "coremon.env[0].name": "Y",
        "hostPaths.crash": f"/{word}",
        "persistence.size": "20",
        "name": word if re.fullmatch("[a-z]+", word) else "off",
    }
    return tuple(
        part for name, value in values.items() for part in ("--set-string", f"{name}={value}")
    )


@pytest.mark.parametrize("word", WORDS)
def test_whatever_things_are_called_it_is_text(word: str) -> None:
    values = {**EVERYTHING, "coremon.hostPath": "false"}
    place = word.replace(".", "-")

    tame = render(values, *named("plain"))
    hostile = manifests.render(values, *named(word), release=place, namespace=place)

    assert [shape(each) for each in hostile] == [shape(each) for each in tame]
    [daemonset] = of_kind(hostile, "DaemonSet")
    spec = daemonset["spec"]["template"]["spec"]
    assert daemonset["metadata"]["namespace"] == place
    assert daemonset["metadata"]["labels"]["app.kubernetes.io/instance"] == place
    assert main(spec)["image"] == f"{word}:{word}"
    assert env(main(spec))["Y"] == env(main(spec))[word] == word
    assert f"/{word}" in host_paths(spec)


def test_a_key_that_is_there_twice_would_be_found() -> None:
    with pytest.raises(yaml.YAMLError, match=r"\{'a'\} twice"):
        yaml.load("b: {a: 1, c: 2, a: 1}", manifests.Strict)

    assert yaml.load("[y, on, 1]", manifests.Strict) == [True, True, 1]


def test_nothing_of_a_path_is_a_comment() -> None:
    spec = pod({"coremon.hostPath": "true", "hostPaths.cores": "/x # y"})

    assert host_paths(spec)["/x # y"] == ("/var/cores", True)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize(
    ("pods", "service"), [*product(("auto", "true", "false"), ("auto", "true", "false"))]
)
def test_metrics_are_scraped_once(pods: str, service: str, known: bool) -> None:
    values = {"metrics.podMonitor.enabled": pods, "metrics.serviceMonitor.enabled": service}
    if (pods, service) == ("true", "true"):
        assert "counted twice" in refusal(values)
        return
    words = ("--api-versions", "monitoring.coreos.com/v1") if known else ()

    kinds = {each["kind"] for each in render(values, *words)} & {"PodMonitor", "ServiceMonitor"}

    asked = {
        kind for kind, said in (("PodMonitor", pods), ("ServiceMonitor", service)) if said == "true"
    }
    found = "PodMonitor" if pods == "auto" else "ServiceMonitor"
    anyway = {found} if known and "auto" in (pods, service) else set()
    assert kinds == (asked or anyway)


def test_what_users_add_is_there_once_and_wins() -> None:
    over = {
        "podLabels": {"app": "f5-coremond", "app.kubernetes.io/name": "mine", "more": "x"},
        "podAnnotations": {"kubectl.kubernetes.io/default-container": "sidecar"},
        "metrics": {"podMonitor": {"labels": {"app": "prometheus"}}},
        "coremon": {"env": [{"name": "COREMON_LOG_LINES", "value": 7}]},
        "extraEnv": [{"name": "COREMON_EVENTS", "value": "false"}],
    }
    values = {**EVERYTHING, "identity.logLines": "3"}

    documents = render(
        values, *(f"--set-json={key}={json.dumps(each)}" for key, each in over.items())
    )

    [daemonset] = of_kind(documents, "DaemonSet")
    [monitor] = of_kind(documents, "PodMonitor")
    template = daemonset["spec"]["template"]
    [container] = template["spec"]["containers"]
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "mine"
    assert set(daemonset["spec"]["selector"]["matchLabels"].items()) <= set(
        template["metadata"]["labels"].items()
    )
    assert set(template["metadata"]["annotations"].values()) == {"sidecar"}
    assert monitor["metadata"]["labels"]["app"] == "prometheus"
    assert monitor["spec"]["selector"] == daemonset["spec"]["selector"]
    assert len(env(container)) == len(container["env"])
    assert env(container)["COREMON_EVENTS"] == "false"
    assert env(container)["COREMON_LOG_LINES"] == "7"


def test_a_value_that_is_taken_away_is_refused_or_has_a_meaning() -> None:
    def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, part in schema["properties"].items():
            if "description" in part:
                yield path + name
            else:
                yield from leaves(part, f"{path}{name}.")

    names = {*leaves(json.loads((CHART / "values.schema.json").read_text())), "minlevel.default"}
    refused = set()
    for name in names - {"global"}:
        try:
            documents = manifests.render({"coremon.hostPath": "true", name: "null"})
        except ValueError as error:
            refused.add(name)
            if f"missing property '{name.rpartition('.')[2]}'" not in str(error):
                raise
        else:
            [levels] = of_kind(documents, "ConfigMap")
            assert "NoneType" not in str([shape(document) for document in documents]), name
            assert yaml.safe_load(levels["data"][".minlevel.yaml"]) == {"default": "info"}

    assert {"terminationGracePeriodSeconds", "hostPaths.crash", "rbac.create"} <= refused
    assert not {"image.tag", "minlevel", "tolerations", "resources"} & refused


def test_no_probe_gives_up_sooner_than_another() -> None:
    container = main(pod({}))

    probes = [container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    assert [each["timeoutSeconds"] for each in probes] == [5, 5, 5]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "system-node-critical"),
        ({"priorityClass.create": "true"}, f"{NAMESPACE}-f5-coremond"),
        ({"priorityClass.create": "true", "priorityClass.name": "mine"}, "mine"),
    ],
    ids=["none", "made", "named"],
)
def test_the_priority_class_is_one_that_can_be_there(values: dict[str, str], name: str) -> None:
    made = [each["metadata"]["name"] for each in of_kind(render(values), "PriorityClass")]

    assert pod(values)["priorityClassName"] == name
    assert made == ([name] if values else [])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_with_the_override_the_security_contexts_are_the_product_s(platform: str) -> None:
    spec = pod({"platformType": platform, **OVERRIDE})

    contexts = {each["name"]: each["securityContext"] for each in spec["initContainers"]}
    assert contexts["host-prepare"] == PAGE_INIT
    assert main(spec)["securityContext"] == PAGE_MAIN
    assert "securityContext" not in spec


@pytest.mark.parametrize("platform", PLATFORMS)
def test_without_it_there_is_no_privilege_but_what_is_needed(platform: str) -> None:
    spec = pod({"platformType": platform})

    sees = platform not in {"ocp", "robin"}  # there, the processes are gone when a core is found
    needed = {"DAC_READ_SEARCH", "LEASE"} | ({"SYS_PTRACE"} if sees else set())
    for container in (main(spec), *spec["initContainers"]):
        context = container["securityContext"]
        assert context["privileged"] is False
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert set(main(spec)["securityContext"]["capabilities"]["add"]) == needed
    assert [each["name"] for each in spec["initContainers"]] == ["directories"]
    assert spec.get("hostPID", False) is sees
    assert not {"hostNetwork", "hostIPC"} & set(spec)


@pytest.mark.parametrize(
    ("platform", "mode"),
    [
        ("auto", "auto"),
        ("generic", "file"),
        ("ocp", "file"),
        ("robin", "file"),
        ("socket", "socket"),
    ],
)
def test_the_override_prepares_the_node_and_every_end_restores_it(platform: str, mode: str) -> None:
    spec = pod({"platformType": platform, **OVERRIDE})

    prepare = spec["initContainers"][-1]
    command = ["corectl", "host", "prepare", "--if-asked", "--mode", mode]
    assert prepare["command"] == command
    assert env(prepare) == env(main(spec))
    assert main(spec)["lifecycle"]["preStop"]["exec"]["command"] == ["corectl", "host", "restore"]
    for container in (prepare, main(spec)):
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert mounts["run"] == "/run/coremond"
        assert mounts["crash"] == "/var/crash"


def test_two_pods_are_never_on_a_node_at_once() -> None:
    [daemonset] = of_kind(render(OVERRIDE), "DaemonSet")

    assert "maxSurge" not in daemonset["spec"]["updateStrategy"]["rollingUpdate"]
    assert "maxSurge" in refusal({"updateStrategy.maxSurge": "1"})


@pytest.mark.parametrize("value", ["false", "F", "0"])
def test_an_override_that_is_off_changes_nothing(value: str) -> None:
    off = pod({**OVERRIDE, "coremon.env[0].value": value})

    assert main(off)["securityContext"] == main(pod({}))["securityContext"]
    assert "restore" not in main(off)["lifecycle"]["preStop"]["exec"]["command"]


def test_the_restored_pattern_is_what_was_there_over_an_upgrade_and_an_uninstall(
    real_kernel: None, home: Path
) -> None:
    spec = pod({"platformType": "robin", **OVERRIDE})
    settings = {
        **os.environ,
        **env(main(spec)),
        "COREMON_RUN_DIR": str(home / "run"),
        "COREMON_CRASH_DIR": str(home / "crash"),
    }

    def run(command: list[str]) -> str:
        words = [str(BIN / command[0]), *command[1:]]
        subprocess.run(words, env=settings, check=True, capture_output=True)
        return kernel.SETTINGS["core_pattern"].read_text().strip()

    prepare = spec["initContainers"][-1]["command"]
    restore = main(spec)["lifecycle"]["preStop"]["exec"]["command"]
    with kernel.core_pattern("|/bin/false %p"):
        seen = [run(command) for command in (prepare, restore, prepare, restore, restore)]

    ours, theirs = f"{home}/crash/core.%e.%p.%h.%t", "|/bin/false %p"
    assert seen == [ours, theirs, ours, theirs, theirs]


@pytest.mark.parametrize("values", VARIANTS, ids=lambda values: "-".join(values.values()))
def test_the_programs_understand_every_setting(values: dict[str, str]) -> None:
    settings = env(main(pod(values)))

    for load in (
        CoremondSettings.from_env,
        CrashagentSettings.from_env,
        QkviewSettings.from_env,
        CorectlSettings.from_env,
    ):
        load(settings)
    assert set(settings) <= manifests.settings()


def test_each_platform_takes_its_own_directories_of_the_node() -> None:
    everywhere = {
        "/run/coremond": ("/run/coremond", True),
        "/home/crash/f5": ("/var/crash", True),
        "/var/cores": ("/var/cores", True),
        "/var/log/pods": ("/var/log/pods", False),
        "/var/log/containers": ("/var/log/containers", False),
    }
    systemd = {"/var/lib/systemd/coredump": ("/var/lib/systemd/coredump", False)}
    apport = {"/run/coremond-apport": ("/run/coremond-apport", True)}
    reports = {"/var/crash": ("/host/apport/reports", False)}
    own = {
        "auto": {**apport, **systemd},
        "generic": {**apport, **reports},
        "other": {**apport, **reports},
        "ocp": systemd,
        "robin": {},
        "socket": {},
    }

    found = {
        platform: host_paths(pod({"coremon.hostPath": "true", "platformType": platform}))
        for platform in PLATFORMS
    }

    assert found == {platform: {**everywhere, **own[platform]} for platform in PLATFORMS}


def test_directories_of_others_are_written_only_where_that_is_asked_for() -> None:
    asked = {"coremon.env[0].name": "COREMON_DELETE_FOREIGN_SRC", "coremon.env[0].value": "true"}

    spec = pod({"platformType": "ocp", **asked})

    assert host_paths(spec)["/var/lib/systemd/coredump"] == ("/var/lib/systemd/coredump", True)


def test_reports_in_the_crash_directory_are_taken_from_there() -> None:
    spec = pod({"platformType": "generic", "hostPaths.crash": "/var/crash"})

    assert env(main(spec))["COREMON_APPORT_REPORTS"] == "/var/crash"
    assert host_paths(spec)["/var/crash"] == ("/var/crash", True)


def test_without_a_host_path_cores_are_on_a_volume_for_all_nodes() -> None:
    documents = render({})

    [claim] = of_kind(documents, "PersistentVolumeClaim")
    volumes = {each["name"]: each for each in pod({})["volumes"]}
    assert claim["metadata"]["name"] == "coremond-pvc"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volumes["cores"]["persistentVolumeClaim"] == {"claimName": "coremond-pvc"}
    assert of_kind(render({"coremon.hostPath": "true"}), "PersistentVolumeClaim") == []


def test_a_setting_of_coremon_env_wins_over_the_chart_s_own() -> None:
    asked = {"coremon.env[0].name": "COREMON_LOG_LINES", "coremon.env[0].value": "7"}

    container = main(pod(asked))

    assert env(container)["COREMON_LOG_LINES"] == "7"
    assert len(env(container)) == len(container["env"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"platformTyp": "ocp"}, "platformTyp"),
        ({"platformType": "windows"}, "platformType"),
        ({"coremon.hostPath": "perhaps"}, "coremon/hostPath"),
        ({"coremon.env[0].name": "A"}, "coremon/env/0"),
        ({"coremon.env[0].name": "A=B", "coremon.env[0].value": "c"}, "coremon/env/0/name"),
        (
            {"coremon.env[0].name": "COREMON_RETENTON", "coremon.env[0].value": "c"},
            "there is no setting COREMON_RETENTON",
        ),
        (
            {"coremon.env[0].name": "COREMON_RUN_DIR", "coremon.env[0].value": "/x"},
            "COREMON_RUN_DIR is set by the chart itself",
        ),
        ({**OVERRIDE, "coremon.env[0].value": "yes"}, "expected true or false"),
        ({"hostPaths.crash": "crash"}, "hostPaths/crash"),
        ({"minlevel.default": "loud"}, "minlevel/default"),
        ({**OVERRIDE, "platformType": "socket", "hostPID": "false"}, "hostPID is false"),
        ({"grpc.tls.certManager.enabled": "true"}, "issuerRef.name is empty"),
        (
            {**EVERYTHING, "grpc.tls.secretName": "tls"},
            "grpc.tls.secretName and grpc.tls.certManager are both set",
        ),
        ({**EVERYTHING, "metrics.serviceMonitor.enabled": "true"}, "counted twice"),
        (
            {"coremon.env[0].name": "COREMON_CORES_MAX_FILES", "coremon.env[0].value": "abc"},
            'COREMON_CORES_MAX_FILES is "abc": expected a whole number such as 0 or 3',
        ),
        (
            {"coremon.env[0].name": "CRASHAGENT_TIMEOUT", "coremon.env[0].value": "0s"},
            "expected a duration of more than 0",
        ),
        (
            {"extraEnv[0].name": "COREMON_KEEP_FREE", "extraEnv[0].value": "101%"},
            'extraEnv: COREMON_KEEP_FREE is "101%": expected a size',
        ),
        ({"extraEnv[0].name": "COREMON_RETENTON"}, "there is no setting COREMON_RETENTON"),
        ({"extraEnv[0].name": "NODE_NAME"}, "extraEnv: NODE_NAME is set by the chart itself"),
        (
            {**OVERRIDE, "extraEnv[0].name": "COREMOND_OVERRIDE_CORE_PATTERN"},
            "COREMOND_OVERRIDE_CORE_PATTERN is in coremon.env already",
        ),
        (
            {"extraEnv[0].name": "COREMOND_OVERRIDE_CORE_PATTERN", "extraEnv[0].value": "t"},
            "COREMOND_OVERRIDE_CORE_PATTERN belongs into coremon.env",
        ),
        ({"extraEnv[0].name": "A", "extraEnv[1].name": "A"}, "A is in extraEnv already"),
        ({"extraEnv[0].value": "A"}, "missing property 'name'"),
        ({"podLabels.app": "mine"}, "podLabels: app is f5-coremond for good"),
        (
            {r"podLabels.app\.kubernetes\.io/instance": "mine"},
            "podLabels: app.kubernetes.io/instance is coremond for good",
        ),
        (
            {r"persistence.annotations.helm\.sh/resource-policy": "keep"},
            "helm.sh/resource-policy is what persistence.keep says",
        ),
        *(({"listenHost": host}, "/listenHost") for host in ("127.0.0.1", "999.999", "[::1]")),
        *(
            ({"updateStrategy.maxUnavailable": most}, "maxUnavailable")
            for most in ("0", "-1", "0%")
        ),
        ({"name": "1coremond"}, "at '/name'"),
        ({"resources.limit.cpu": "1"}, "additional properties 'limit' not allowed"),
        ({"resources.limits.cpu": "much"}, "resources/limits/cpu"),
        ({"seLinuxType": "bad type: x"}, "seLinuxType"),
        (
            {"priorityClass.create": "true", "priorityClass.name": "system-node-critical"},
            "names that begin with system- are those of Kubernetes itself",
        ),
    ],
)
def test_values_that_are_wrong_are_refused_with_their_reason(
    values: dict[str, str], reason: str
) -> None:
    assert reason in refusal(values)


@pytest.mark.parametrize(
    "path",
    [
        *("/etc", "/var", "/usr/share/crash", "/dev/shm", "/proc/1", "/home", "/tmp", "/var/lib"),
        *("/var/lib/kubelet/pods", "/var/log/pods", "/run/coremond", "/var/run/containerd/x"),
        *("/", "//", "/a/", "/a//b", "/a/../b", "/a/./b", "/..", "/a:b", "a/b", ""),
    ],
)
def test_directories_of_the_system_are_refused(path: str) -> None:
    said = refusal({"coremon.hostPath": "true", "hostPaths.crash": path})

    assert f"hostPaths.crash is {path}, which is a directory of the system" in said or (
        "at '/hostPaths/crash'" in said
    )


@pytest.mark.parametrize("value", ["cores", "apportSocket", "apportReports", "apportCores"])
def test_not_one_directory_may_be_of_the_system(value: str) -> None:
    asked = {"coremon.hostPath": "true", "platformType": "generic", "apport.cores": "true"}

    said = refusal({**asked, f"hostPaths.{value}": "/var"})

    assert f"hostPaths.{value} is /var, which is a directory of the system" in said


@pytest.mark.parametrize(
    "values",
    [
        {"hostPaths.crash": "/var/cores"},
        {"hostPaths.crash": "/var/cores/crash"},
        {"hostPaths.cores": "/home/crash/f5/cores"},
        {"hostPaths.apportSocket": "/home/crash/f5"},
        {"hostPaths.systemd": "/home/crash/f5"},
        {"platformType": "generic", "hostPaths.apportReports": "/var/cores"},
    ],
    ids=lambda values: " ".join(values.values()),
)
def test_directories_that_lie_in_one_another_are_refused(values: dict[str, str]) -> None:
    said = refusal({"coremon.hostPath": "true", **values})

    assert "expected directories that do not lie in one another" in said


@pytest.mark.parametrize(
    "values",
    [
        {"platformType": "generic", "hostPaths.crash": "/var/crash"},
        {"platformType": "generic", "hostPaths.crash": "/var/crash/f5"},
        {"hostPaths.crash": "/home/crash/f5...", "hostPaths.cores": "/home/crash/f5.cores"},
        {"hostPaths.crash": "/..a/.b", "hostPaths.cores": "/varying/etc"},
        {"coremon.hostPath": "false", "hostPaths.crash": "/var/cores"},
    ],
    ids=lambda values: " ".join(values.values()),
)
def test_directories_that_are_there_for_this_alone_are_taken(values: dict[str, str]) -> None:
    crash = values["hostPaths.crash"]

    assert host_paths(pod({"coremon.hostPath": "true", **values}))[crash] == ("/var/crash", True)


def test_kinds_of_others_are_made_where_the_cluster_knows_them() -> None:
    apis = (
        "--api-versions",
        "monitoring.coreos.com/v1",
        "--api-versions",
        "security.openshift.io/v1",
    )

    without = {document["kind"] for document in render({})}
    having = {document["kind"] for document in render({}, *apis)}

    rules = {"PrometheusRule"} if (CHART / "files" / "alerts.yaml").exists() else set()
    assert having - without == {"PodMonitor", "SecurityContextConstraints"} | rules


def test_on_openshift_the_constraints_allow_what_the_pods_have() -> None:
    for override in ({}, OVERRIDE):
        values = {"platformType": "ocp", **override}
        [scc] = of_kind(render(values), "SecurityContextConstraints")
        spec = pod(values)

        added = [
            capability
            for each in (main(spec), *spec["initContainers"])
            for capability in each["securityContext"].get("capabilities", {}).get("add", [])
        ]
        assert scc["users"] == [f"system:serviceaccount:{NAMESPACE}:f5-coremond"]
        assert scc["allowPrivilegedContainer"] is bool(override)
        assert scc["allowHostPID"] is spec.get("hostPID", False)
        assert set(added) <= set(scc["allowedCapabilities"])


def test_certificates_are_where_grpc_looks_for_them() -> None:
    spec = pod({"grpc.tls.secretName": "grpc"})
    [certificate] = of_kind(render(EVERYTHING), "Certificate")

    mounts = {each["name"]: each for each in main(spec)["volumeMounts"]}
    volumes = {each["name"]: each for each in spec["volumes"]}
    assert mounts["tls"]["mountPath"] == str(QkviewSettings().tls_dir)
    assert volumes["tls"]["secret"]["secretName"] == "grpc"
    made = {each["name"]: each for each in pod(EVERYTHING)["volumes"]}["tls"]["secret"]
    assert made["secretName"] == certificate["spec"]["secretName"]
    assert f"f5-coremond.{NAMESPACE}.svc" in certificate["spec"]["dnsNames"]


def test_only_the_two_ports_are_reached() -> None:
    [policy] = of_kind(render({}), "NetworkPolicy")
    [service] = of_kind(render({}), "Service")

    ports = {each["containerPort"] for each in main(pod({}))["ports"]}
    [rule] = policy["spec"]["ingress"]
    assert {each["port"] for each in rule["ports"]} == ports == {19891, 19892}
    assert {each["port"] for each in service["spec"]["ports"]} == ports
    assert service["spec"]["clusterIP"] == "None"


def test_the_levels_are_where_the_programs_look() -> None:
    values = {"minlevel.coremond": "debug"}
    [config] = of_kind(render(values), "ConfigMap")
    levels = CorectlSettings().levels_file

    mounts = {each["name"]: each["mountPath"] for each in main(pod(values))["volumeMounts"]}
    assert mounts["levels"] == str(levels.parent)
    assert yaml.safe_load(config["data"][levels.name]) == {"default": "info", "coremond": "debug"}


def test_a_cneinstance_installs_what_it_describes(tmp_path: Path) -> None:
    instance = {
        "apiVersion": "k8s.f5.com/v1",
        "kind": "CNEInstance",
        "spec": {
            "coreCollection": {"enabled": True},
            "certificate": {"clusterIssuer": "authority"},
            "advanced": {
                "coremon": {
                    "hostPath": True,
                    "env": [
                        {"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"},
                        {"name": "COREMON_CORES_MAX_FILES", "value": "5"},
                        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
                    ],
                }
            },
        },
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(cneinstance.convert(instance).values))

    spec = pod({}, "--values", str(file))

    assert main(spec)["securityContext"] == PAGE_MAIN
    assert env(main(spec))["COREMON_CORES_MAX_FILES"] == "5"
    assert main(spec)["env"][-1]["valueFrom"] == {"secretKeyRef": {"name": "a", "key": "b"}}
    assert host_paths(spec)["/var/cores"] == ("/var/cores", True)
    assert spec["initContainers"][-1]["command"][-2:] == ["--mode", "file"]


def test_what_stands_in_kustomize_is_what_the_chart_renders() -> None:
    there = {
        str(path.relative_to(FOLDER)): path.read_text()
        for path in FOLDER.rglob("*")
        if path.is_file()
    }

    assert there == manifests.make(), "make manifests"


def kustomize(folder: Path) -> list[Any]:
    done = subprocess.run(
        [kubetools.kubectl(), "kustomize", folder], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_comes_to_what_the_chart_comes_to(name: str) -> None:
    def ordered(documents: list[Any]) -> list[str]:
        return sorted(json.dumps(document, sort_keys=True) for document in documents)

    wanted = [manifests.without_helm(document) for document in render(OVERLAYS[name])]

    assert ordered(kustomize(FOLDER / "overlays" / name)) == ordered(wanted)


def deployment(**labels: str) -> dict[str, Any]:
    selector = {"app": "app"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {
                    "containers": [
                        {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "b"}]},
                        {"name": "sidecar", "image": "sidecar:1"},
                    ]
                },
            },
        },
    }


def test_a_workload_has_a_crash_directory_of_its_own(
    tmp_path: Path, validate: Callable[..., list[str]]
) -> None:
    (tmp_path / "app.yaml").write_text(
        yaml.safe_dump(deployment(**{"coremond/crash-directory": "true"}))
    )
    (tmp_path / "workload").symlink_to(WORKLOAD)
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {"resources": ["app.yaml"], "components": [os.path.relpath(WORKLOAD, tmp_path)]}
        )
    )

    [patched] = kustomize(tmp_path)

    app, sidecar = patched["spec"]["template"]["spec"]["containers"]
    fields = [each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") for each in app["env"]]
    assert {"metadata.namespace", "metadata.name", "metadata.uid", None} == set(fields)
    [mount] = app["volumeMounts"]
    assert mount["mountPath"] == str(CorectlSettings().crash_dir)
    named = {each["name"]: each for each in app["env"]}
    assert set(re.findall(r"\$\((\w+)\)", mount["subPathExpr"])) <= set(named)
    assert "volumeMounts" not in sidecar
    assert validate([patched]) == []


def test_the_policy_is_one_that_kubernetes_knows(validate: Callable[..., list[str]]) -> None:
    documents = list(yaml.safe_load_all((WORKLOAD / "policy.yaml").read_text()))

    assert validate(documents, ["1.36", "1.37"]) == []


def test_apport_reaches_the_socket_through_the_link(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: root, for a process with a root directory of its own")
    patch = yaml.safe_load((WORKLOAD / "apport-socket.yaml").read_text())
    spec = patch["spec"]["template"]["spec"]
    program, flags, target, link = spec["initContainers"][0]["command"]
    root = home / "root"
    mount = spec["containers"][0]["volumeMounts"][-1]["mountPath"]
    [volume] = [each for each in spec["volumes"] if "hostPath" in each]
    (root / mount.lstrip("/")).mkdir(parents=True)
    subprocess.run([program, flags, target, root / link.lstrip("/")], check=True)
    name = Path(env(main(pod({"platformType": "generic"})))["CRASHAGENT_APPORT_SOCKET"]).name
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / mount.lstrip("/") / name))
        listener.listen()

        child = os.fork()
        if child == 0:
            os.chroot(root)
            os.kill(os.getpid(), 19)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        try:
            # As Apport's forward_crash_to_container does it: data/apport.
            process = os.open(f"/proc/{child}", os.O_RDONLY | os.O_PATH | os.O_DIRECTORY)
            found = os.open("root/run/apport.socket", os.O_RDONLY | os.O_PATH, dir_fd=process)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"/proc/self/fd/{found}")
            os.close(found)
            os.close(process)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    assert link == "/run/apport.socket"
    assert volume["hostPath"]["path"] == mount == "/run/coremond-apport"


# What follows needs the API server.


class Release:
    """A namespace of the API server's, and a release in it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.namespace = namespace
        self._cluster = cluster
        self._env = cluster.kube_env()
        ensure_namespace(cluster.api(), namespace)

    def _helm(self, *words: str | Path, config: Path | None = None) -> str:
        return helm(*words, "--namespace", self.namespace, environment=self._as(config))

    def _as(self, config: Path | None) -> Mapping[str, str]:
        return self._env if config is None else {**self._env, "KUBECONFIG": str(config)}

    def install(
        self, values: Mapping[str, str], *, name: str = "coremond", config: Path | None = None
    ) -> str:
        """Install or upgrade, and give the notes."""
        words = [word for each in values.items() for word in ("--set", "=".join(each))]
        return self._helm("upgrade", "--install", name, CHART, *words, config=config)

    def uninstall(self) -> None:
        self._helm("uninstall", "coremond")

    def deployer(self) -> Path:
        """Give the kubeconfig of somebody with every right, but in this namespace only."""
        config = self._cluster.kubeconfig_for(self.namespace, "deployer")
        rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": rules}
        named = {**role, "metadata": {"name": "deployer"}}
        self.kubectl("apply", "--filename", "-", given=json.dumps(named))
        who = ("--role=deployer", f"--serviceaccount={self.namespace}:deployer")
        self.kubectl("create", "rolebinding", "deployer", *who)
        return config

    def remove(self) -> None:
        # Without controllers, what is in a namespace stays; no other test is to find a DaemonSet.
        self.kubectl("delete", "daemonsets", "--all", "--wait=false", check=False)
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)
        for kind in ("clusterrole", "clusterrolebinding", "priorityclass"):
            names = self.kubectl("get", kind, "--output=name", check=False).split()
            own = [name for name in names if name.partition("/")[2].startswith(self.namespace)]
            if own:
                self.kubectl("delete", *own, check=False)

    def kubectl(
        self,
        *words: str,
        config: Path | None = None,
        check: bool = True,
        given: str | None = None,
    ) -> str:
        done = subprocess.run(
            [kubetools.kubectl(), "--namespace", self.namespace, *words],
            env=self._as(config),
            input=given,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def left(self) -> set[str]:
        """Name all that there is of the release, of every kind that can be listed."""
        found = set()
        for scope in ("--namespaced=true", "--namespaced=false"):
            kinds = self.kubectl("api-resources", "--verbs=list,delete", "--output=name", scope)
            names = self.kubectl(
                *("get", ",".join(kinds.split()), "--output=name", "--ignore-not-found"),
                *("--selector", "app.kubernetes.io/instance=coremond"),
            )
            own = scope == "--namespaced=true"
            found |= {name for name in names.split() if own or self.namespace in name}
        return found

    def spec(self) -> dict[str, Any]:
        daemonset = json.loads(self.kubectl("get", "daemonset", "f5-coremond", "--output=json"))
        spec: dict[str, Any] = daemonset["spec"]["template"]["spec"]
        return spec

    def rights(self) -> dict[str, set[str]]:
        """Give the verbs that the ServiceAccount may use in other namespaces, by resource."""
        config = self._cluster.kubeconfig_for(self.namespace, "f5-coremond")
        listed = self.kubectl("auth", "can-i", "--list", "--namespace=default", config=config)
        found: dict[str, set[str]] = {}
        for line in listed.splitlines()[1:]:
            match = re.match(r"(\S+)\s+\[.*?\]\s+\[.*?\]\s+\[(.*?)\]", line)
            if match and not match[1].startswith("["):
                found.setdefault(match[1], set()).update(match[2].split())
        return found


ANYBODY = {
    "selfsubjectaccessreviews.authorization.k8s.io": {"create"},
    "selfsubjectrulesreviews.authorization.k8s.io": {"create"},
}
"""What every authenticated user may do."""
READS, TELLS = {"pods": {"get", "list", "watch"}}, {"events": {"create", "patch"}}


@pytest.fixture
def release(cluster: Cluster) -> Iterator[Release]:
    made = Release(cluster, f"cm-{os.urandom(4).hex()}")
    yield made
    made.remove()


@pytest.fixture
def second(cluster: Cluster) -> Iterator[Release]:
    made = Release(cluster, f"cm-{os.urandom(4).hex()}")
    yield made
    made.remove()


needs_cluster = pytest.mark.xdist_group("cluster")


@needs_cluster
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_real_api_server_takes_every_overlay(name: str, release: Release) -> None:
    values = {**OVERLAYS[name], "openshift.scc": "false"}

    release.install(values)

    wanted = main(pod(values))
    accepted = main(release.spec())
    assert accepted["securityContext"] == wanted["securityContext"]
    assert accepted["volumeMounts"] == wanted["volumeMounts"]
    assert env(accepted) == env(wanted)


@needs_cluster
def test_an_uninstall_leaves_nothing(release: Release) -> None:
    release.install({**OVERRIDE, "persistence.keep": "false"})
    there = release.left()

    release.uninstall()

    assert {name.partition("/")[0].partition(".")[0] for name in there} >= {
        "clusterrole",
        "clusterrolebinding",
        "configmap",
        "daemonset",
        "networkpolicy",
        "persistentvolumeclaim",
        "service",
        "serviceaccount",
    }
    assert {name for name in release.left() if "pvc" not in name} == set()
    # The API server's own protection: a controller takes it away once no pod uses the claim.
    claims = json.loads(release.kubectl("get", "persistentvolumeclaims", "--output=json"))["items"]
    assert all("deletionTimestamp" in each["metadata"] for each in claims)


@needs_cluster
def test_cores_on_a_volume_stay_over_an_uninstall_and_are_had_again(release: Release) -> None:
    release.install({})
    release.uninstall()

    assert release.left() == {"persistentvolumeclaim/coremond-pvc"}
    release.install({})


@needs_cluster
def test_an_override_that_is_taken_back_leaves_no_privilege(release: Release) -> None:
    release.install({"coremon.hostPath": "true", **OVERRIDE})
    before = release.spec()

    release.install({"coremon.hostPath": "true"})

    after = release.spec()
    assert main(before)["securityContext"] == PAGE_MAIN
    assert main(before)["lifecycle"]["preStop"]["exec"]["command"][-1] == "restore"
    assert main(after)["securityContext"] == main(pod({}))["securityContext"]
    assert [each["name"] for each in after["initContainers"]] == ["directories"]
    assert main(after)["lifecycle"]["preStop"]["exec"]["command"] == ["true"]


@needs_cluster
def test_every_way_leads_to_every_other(release: Release) -> None:
    changes: list[dict[str, str]] = [
        *OVERLAYS.values(),
        {"crashDirectoryMode": ""},
        {"grpc.tls.secretName": "tls", "identity.kubeletLogs": "false"},
        {"updateStrategy.type": "OnDelete", "networkPolicy.from[0].podSelector.matchLabels.a": "b"},
    ]
    last = changes[-1]
    for first in changes:
        for values in (first, last):
            release.install({**values, "openshift.scc": "false"})

            wanted, accepted = pod(values), release.spec()
            assert main(accepted)["securityContext"] == main(wanted)["securityContext"]
            assert len(accepted["initContainers"]) == len(wanted["initContainers"])
            assert host_paths(accepted) == host_paths(wanted)
        last = first


@needs_cluster
@pytest.mark.parametrize(
    ("values", "rights"),
    [
        ({}, READS | TELLS),
        ({"events.enabled": "false"}, READS),
        ({"identity.api": "false"}, TELLS),
        ({"identity.api": "false", "events.enabled": "false"}, {}),
        ({"rbac.create": "false"}, {}),
    ],
    ids=["both", "no events", "no look-up", "neither", "no roles"],
)
def test_the_service_account_may_do_what_is_on_and_no_more(
    values: dict[str, str], rights: dict[str, set[str]], release: Release
) -> None:
    release.install({"coremon.hostPath": "true", **values})

    assert release.rights() == ANYBODY | rights


@needs_cluster
def test_it_lists_the_pods_of_its_node_and_no_secret(release: Release, cluster: Cluster) -> None:
    release.install({"coremon.hostPath": "true"})
    config = cluster.kubeconfig_for(release.namespace, "f5-coremond")

    pods = release.kubectl(
        *("get", "pods", "--all-namespaces", "--field-selector=spec.nodeName=node-1"), config=config
    )
    secrets = subprocess.run(
        [kubetools.kubectl(), "get", "secrets", "--namespace", release.namespace],
        env={**os.environ, "KUBECONFIG": str(config)},
        capture_output=True,
        text=True,
    )

    assert isinstance(pods, str)
    assert "forbidden" in secrets.stderr


@pytest.fixture
def storage_class(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Give a function that makes the default StorageClass of a provisioner."""
    api = client.StorageV1Api(cluster.api().api_client)
    made: list[str] = []

    def make(provisioner: str) -> str:
        name = f"class-{len(made)}"
        key = "storageclass.kubernetes.io/is-default-class"
        metadata = {"name": name, "annotations": {key: "true"}}
        body: Any = {"metadata": metadata, "provisioner": provisioner}
        api.create_storage_class(body)
        made.append(name)
        return name

    yield make
    for name in made:
        api.delete_storage_class(name)


@needs_cluster
def test_a_volume_for_one_node_only_is_said_loudly(
    release: Release, storage_class: Callable[[str], str]
) -> None:
    storage_class("rancher.io/local-path")

    notes = release.install({})

    assert "WARNING: the volumes of the StorageClass class-0 (rancher.io/local-path)" in notes
    assert "coremon.hostPath=true" in notes


@needs_cluster
def test_a_volume_for_all_nodes_is_not_warned_of(
    release: Release, storage_class: Callable[[str], str]
) -> None:
    storage_class("nfs.csi.k8s.io")

    assert "WARNING" not in release.install({})


@needs_cluster
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "the cluster has no default StorageClass"),
        ({"persistence.storageClassName": "fast"}, "there is no StorageClass fast"),
        ({"persistence.create": "false"}, "there is no PersistentVolumeClaim coremond-pvc"),
    ],
    ids=["no default", "no such class", "no claim"],
)
def test_what_would_wait_for_ever_is_refused_where_that_is_asked_for(
    values: dict[str, str], reason: str, release: Release
) -> None:
    with pytest.raises(ValueError, match=f"preflight: {reason}"):
        release.install({"preflight": "fail", **values})

    assert release.left() == set()
    assert reason in release.install(values)
    assert "WARNING" not in release.install({"preflight": "off", **values})


@needs_cluster
def test_a_namespace_that_refuses_the_pods_is_said(release: Release) -> None:
    release.kubectl(
        "label", "namespace", release.namespace, "pod-security.kubernetes.io/enforce=restricted"
    )

    notes = release.install({"coremon.hostPath": "true"})

    assert f"WARNING: the namespace {release.namespace} refuses pods" in notes


@needs_cluster
def test_nodes_with_a_kernel_without_the_socket_are_named(
    release: Release, cluster: Cluster
) -> None:
    api = cluster.api()
    kernels = {"old-node": "6.8.0-45-generic", "new-node": "6.17.1"}
    for name, version in kernels.items():
        api.create_node({"metadata": {"name": name}})
        info = {
            **dict.fromkeys(("architecture", "bootID", "containerRuntimeVersion"), "x"),
            **dict.fromkeys(("kubeProxyVersion", "kubeletVersion", "machineID"), "x"),
            **dict.fromkeys(("operatingSystem", "osImage", "systemUUID"), "x"),
            "kernelVersion": version,
        }
        api.patch_node_status(name, {"status": {"nodeInfo": info}})

    notes = release.install({"coremon.hostPath": "true", "platformType": "socket"})
    for name in kernels:
        api.delete_node(name)

    assert "takes Linux 6.16, but old-node has 6.8.0-45-generic: choose" in notes


@needs_cluster
@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "ocp"])
def test_a_fresh_cluster_takes_what_kustomize_makes(name: str, release: Release) -> None:
    fresh = f"{release.namespace}-{name}"
    namespace, text = (
        yaml.safe_dump_all(kustomize(FOLDER / folder)).replace(NAMESPACE, fresh)
        for folder in ("namespace", f"overlays/{name}")
    )
    words = ("--namespace", fresh, "--filename", "-")

    release.kubectl("apply", "--server-side", *words, given=namespace)
    applied = release.kubectl("apply", "--server-side", *words, given=text)
    # The namespace stays, for others may be in it.
    deleted = release.kubectl("delete", "--wait=false", *words, given=text)

    assert "daemonset.apps/f5-coremond serverside-applied" in applied
    assert deleted.count(" deleted") == applied.count(" serverside-applied")
    kept = json.loads(release.kubectl("get", "namespace", fresh, "--output=json"))
    assert kept["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


@needs_cluster
def test_a_real_api_server_takes_names_that_look_like_numbers(cluster: Cluster) -> None:
    release = Release(cluster, str(int.from_bytes(os.urandom(4))))
    names = {
        **dict.fromkeys(("persistence.claimName", "grpc.tls.secretName"), "42"),
        **dict.fromkeys(("podLabels.on", "nodeSelector.y", "imagePullSecrets[0].name"), "1e3"),
        "serviceAccount.name": "77",
        "priorityClass.name": "88",
        "name": "on",
    }
    words = [word for each in names.items() for word in ("--set-string", "=".join(each))]

    release._helm("install", "0x1f", CHART, "--set=preflight=off", *words)

    found = json.loads(release.kubectl("get", "daemonset", "on", "--output=json"))
    release.remove()
    assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "0x1f"
    assert found["spec"]["template"]["spec"]["priorityClassName"] == "88"


@needs_cluster
@pytest.mark.parametrize("preflight", ["warn", "fail"])
def test_a_second_release_on_the_same_nodes_is_refused(
    preflight: str, release: Release, second: Release
) -> None:
    release.install(HOST)

    with pytest.raises(ValueError, match="preflight: there is the DaemonSet f5-coremond") as caught:
        second.install({**HOST, "preflight": preflight}, name="other")

    assert f"in the namespace {release.namespace}, which is a coremond, too" in str(caught.value)
    assert "/home/crash/f5, /run/coremond, /run/coremond-apport, /var/cores" in str(caught.value)
    assert second.left() == set()
    second.install({**HOST, "preflight": "off"}, name="other")


@needs_cluster
def test_a_release_does_not_refuse_itself(release: Release) -> None:
    for values in ({}, {"name": "renamed"}, {"nodeSelector.a": "b"}):
        assert "WARNING" not in release.install({**HOST, **values})


@needs_cluster
def test_a_second_release_on_other_nodes_is_taken(release: Release, second: Release) -> None:
    release.install({**HOST, "nodeSelector.pool": "a"})

    there = second.install({**HOST, "nodeSelector.pool": "b"}, name="other")
    perhaps = second.install({**HOST, "nodeSelector.arch": "arm64"}, name="other")

    assert "WARNING" not in there
    assert "WARNING: there is the DaemonSet f5-coremond" in perhaps
    assert "where both run, the two take each other's crashes" in " ".join(perhaps.split())
    with pytest.raises(ValueError, match="preflight: there is the DaemonSet f5-coremond"):
        second.install({**HOST, "nodeSelector.arch": "arm", "preflight": "fail"}, name="other")


@needs_cluster
def test_who_may_not_look_may_still_install(release: Release, second: Release) -> None:
    looked = release.install(HOST)
    config = second.deployer()
    values = {**HOST, "rbac.create": "false"}

    notes = second.install(values, config=config)

    assert "was not looked up" in notes
    assert "was not looked up" not in looked
    with pytest.raises(ValueError, match="forbidden"):
        second.install({**values, "preflight": "fail"}, config=config)


@needs_cluster
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"platformType": "ocp"}, "platformType is ocp, but this cluster knows no SecurityContext"),
        ({"openshift.scc": "true"}, "openshift.scc is true, but this cluster knows no Security"),
        ({"metrics.podMonitor.enabled": "true"}, "metrics.podMonitor.enabled is true, but this"),
        ({"metrics.serviceMonitor.enabled": "true"}, "metrics.serviceMonitor.enabled is true, but"),
        ({"metrics.rules.enabled": "true"}, "metrics.rules.enabled is true, but this cluster"),
        (
            {
                "grpc.tls.certManager.enabled": "true",
                "grpc.tls.certManager.issuerRef.name": "authority",
            },
            "grpc.tls.certManager.enabled is true, but this cluster knows no Certificate",
        ),
    ],
    ids=["ocp", "scc", "podMonitor", "serviceMonitor", "rules", "certManager"],
)
def test_kinds_that_the_cluster_does_not_know_are_refused(
    values: dict[str, str], reason: str, release: Release
) -> None:
    with pytest.raises(ValueError, match=f"preflight: {reason}"):
        release.install({**HOST, **values})

    assert release.left() == set()


@needs_cluster
def test_a_priority_class_that_is_not_there_is_said(release: Release) -> None:
    values = {**HOST, "priorityClass.name": "nosuch"}

    with pytest.raises(ValueError, match="preflight: there is no PriorityClass nosuch"):
        release.install({**values, "preflight": "fail"})
    assert "WARNING: there is no PriorityClass nosuch" in release.install(values)
    assert "WARNING" not in release.install({**HOST, "priorityClass.create": "true"})
    assert "WARNING" not in release.install(HOST)


@needs_cluster
@pytest.mark.parametrize("name", ["crash-directory.yaml", "apport-socket.yaml"])
def test_a_real_api_server_takes_a_patched_workload(
    name: str, release: Release, tmp_path: Path
) -> None:
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(deployment()))
    release.kubectl("apply", "--filename", str(tmp_path / "app.yaml"))

    release.kubectl("patch", "deployment", "app", "--patch-file", str(WORKLOAD / name))

    patched = json.loads(release.kubectl("get", "deployment", "app", "--output=json"))
    app, sidecar = patched["spec"]["template"]["spec"]["containers"]
    assert {"name": "A", "value": "b"} in app["env"]
    assert app["volumeMounts"]
    assert "volumeMounts" not in sidecar


def test_the_notes_say_what_is_left_to_do() -> None:
    def notes(**values: str) -> str:
        words = [word for each in values.items() for word in ("--set", "=".join(each))]
        done = helm("install", "coremond", CHART, "--dry-run=client", *words)
        return done.partition("NOTES:")[2]

    quiet = notes(platformType="robin", **{"coremon.hostPath": "true"})

    assert "The core_pattern of each node must be /var/crash/core.%e.%p.%h.%t" in quiet
    assert "corectl host restore" in notes(**OVERRIDE)
    assert "127.0.0.1" in quiet
    assert "127.0.0.1" not in notes(**{"grpc.tls.secretName": "tls"})
    assert shlex.quote("@@/run/coremond/kernel.sock") in notes(platformType="socket")


@pytest.mark.parametrize("override", [True, False], ids=["override", "as it is"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_notes_tell_of_file_patterns_where_there_is_one(platform: str, override: bool) -> None:
    values = {"platformType": platform, **(OVERRIDE if override else {})}
    words = [word for each in values.items() for word in ("--set", "=".join(each))]

    notes = helm("install", "coremond", CHART, "--dry-run=client", *words)

    has = platform != "socket" if override else platform in {"auto", "robin"}
    assert ("With a file pattern" in notes) is has
