"""``corectl cneinstance``: the values of the chart that a CNEInstance comes to."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import yaml

from common import settings as values
from common.errors import CollectorError
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe, say

SIZE_LIMIT = 2**20
"""Bytes of the input: etcd takes no object of more than 1.5 MiB, and this is one."""
KIND = "CNEInstance"
GROUPS = ("k8s.f5.com", "k8s.f5net.com")
OVERRIDE = "COREMOND_OVERRIDE_CORE_PATTERN"
SETTINGS = frozenset(
    {
        OVERRIDE,
        "COREMON_CODEC",
        "COREMON_CORES_INTERVAL",
        "COREMON_CORES_MAX_FILES",
        "COREMON_DELETE_FOREIGN_SRC",
        "COREMON_DELETE_SRC",
        "COREMON_DENY",
        "COREMON_EVENTS",
        "COREMON_IO_PRIORITY",
        "COREMON_KEEP_FREE",
        "COREMON_KUBERNETES",
        "COREMON_LIST_PODS",
        "COREMON_LOG_LINES",
        "COREMON_LOG_SIZE",
        "COREMON_MAX_CORE",
        "COREMON_MAX_USE",
        "COREMON_METRICS_WORKLOADS",
        "COREMON_NICE",
        "COREMON_POD_ANNOTATIONS",
        "COREMON_POD_LABELS",
        "COREMON_RECORD_RETENTION",
        "COREMON_RETENTION",
        "COREMON_RETENTION_INTERVAL",
        "COREMON_ROTATE",
        "COREMON_SCAN_INTERVAL",
        "COREMON_SOURCE_PATTERN",
        "COREMON_WORKERS",
        "CRASHAGENT_IDLE_TIMEOUT",
        "CRASHAGENT_KERNEL_SOCKET",
        "CRASHAGENT_MAX_INTAKES",
        "CRASHAGENT_RESIDENT",
        "CRASHAGENT_SPOOL",
        "CRASHAGENT_SYSTEMD_SOCKET",
        "CRASHAGENT_TIMEOUT",
    }
)
"""Those that the chart takes in coremon.env."""
_OURS = ("COREMON_", "COREMOND_", "CRASHAGENT_", "QKVIEW_")


@dataclass(kw_only=True, slots=True)
class Converted:
    """The values, what is to be said beside them, and what is wrong with the input."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_enabled: bool = True


def run(_: CorectlSettings, args: Namespace) -> int:
    """Print the values, or say what is wrong with the input."""
    found = choose(read_documents(_read(args.file)), args.name)
    name = _at(found, "metadata").get("name") or "without a name"
    converted = convert(found)
    if converted.problems:
        for problem in converted.problems:
            complain(safe(f"{KIND} {name}: {problem}"))
        return 1
    if not converted.is_enabled:
        say(f"corectl: the {KIND} {safe(name)} does not collect cores: there is nothing to install")
    print(f"# Values of the chart coremond, from the {KIND} {safe(name)}.")
    for note in converted.notes:
        print(f"# {safe(note)}")
    print(yaml.safe_dump(converted.values, sort_keys=False), end="")
    return os.EX_OK


def _read(name: str) -> bytes:
    if name == "-":
        return _read_limited(sys.stdin.buffer, "standard input")
    # Without O_NONBLOCK, a FIFO that nobody writes to would be waited for.
    with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return _read_limited(file, name)


def _read_limited(file: BinaryIO, name: str) -> bytes:
    data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise CollectorError(f"{name}: more than {SIZE_LIMIT} bytes; that is no {KIND}")
    return data


def read_documents(data: bytes) -> list[Any]:
    """Read the YAML or JSON documents of *data*; a List is what is in it."""
    try:
        documents = list(yaml.safe_load_all(data.decode()))
    except UnicodeDecodeError as error:
        raise CollectorError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise CollectorError(_told(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise CollectorError(f"not YAML: {error}") from error
    except RecursionError as error:
        raise CollectorError("not a resource: it is nested too deeply") from error
    found = []
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        found += items if isinstance(items, list) else [document]
    return found


def _told(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or error.context or ""
    if "\\t" in problem:
        problem = "a tab; indent with spaces"
    return f"not YAML: {where}{problem}"


def choose(documents: list[Any], name: str | None = None) -> dict[str, Any]:
    """Give the one CNEInstance among *documents*, or the one called *name*."""
    found = [
        document
        for document in documents
        if isinstance(document, dict)
        and document.get("kind") == KIND
        and (name is None or _at(document, "metadata").get("name") == name)
    ]
    called = f" called {name}" if name is not None else ""
    if not found:
        kinds = sorted({str(d.get("kind")) for d in documents if isinstance(d, dict)})
        others = f", but {', '.join(kinds)}" if kinds else ""
        raise CollectorError(f"there is no {KIND}{called}{others}")
    if len(found) > 1:
        names = ", ".join(str(_at(document, "metadata").get("name")) for document in found)
        raise CollectorError(f"there are {len(found)} of kind {KIND}: choose by --name: {names}")
    [document] = found
    version = str(document.get("apiVersion"))
    if version.partition("/")[0] not in GROUPS or version.count("/") != 1:
        expected = " or ".join(f"{group}/v1" for group in GROUPS)
        raise CollectorError(f"apiVersion is {version}, and not {expected}")
    return document


def convert(document: dict[str, Any]) -> Converted:
    """Say what the chart is to be given for the CNEInstance *document*."""
    result = Converted()
    reader = _Reader(result.problems)
    spec = reader.map_of(document, "spec")
    collection = reader.map_of(spec, "coreCollection", "spec.")
    coremon = reader.map_of(reader.map_of(spec, "advanced", "spec."), "coremon", "spec.advanced.")
    _enabled(result, reader, collection)
    is_on_host = reader.flag_of(coremon, "hostPath", "spec.advanced.coremon.")
    _env(result, reader, coremon, is_on_host=bool(is_on_host))
    _storage(result, reader, spec, is_on_host=bool(is_on_host))
    issuer = reader.text_of(reader.map_of(spec, "certificate", "spec."), "clusterIssuer")
    if issuer:
        result.values["grpc"] = {
            "tls": {"certManager": {"enabled": True, "issuerRef": {"name": issuer}}}
        }
    _leftovers(result, spec, collection, coremon)
    return result


class _Reader:
    """Reads parts of a resource, and notes those of another kind than they should be."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def map_of(self, holder: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        value = holder.get(key)
        if value is not None and not isinstance(value, dict):
            self._problems.append(f"{where}{key}: expected a map, got {_shown(value)}")
        return value if isinstance(value, dict) else {}

    def flag_of(self, holder: dict[str, Any], key: str, where: str) -> bool | None:
        value = holder.get(key)
        if value is not None and not isinstance(value, bool):
            self._problems.append(f"{where}{key}: expected true or false, got {_shown(value)}")
        return value if isinstance(value, bool) else None

    def text_of(self, holder: dict[str, Any], key: str) -> str:
        value = holder.get(key)
        if value is not None and not isinstance(value, str):
            self._problems.append(f"{key}: expected text, got {_shown(value)}")
        return value if isinstance(value, str) else ""

    def env_of(self, coremon: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give the entries of env that have a name, and a text as value or none."""
        entries = coremon.get("env")
        if entries is None:
            return
        if not isinstance(entries, list):
            self._problems.append(
                f"spec.advanced.coremon.env: expected a list, got {_shown(entries)}"
            )
            return
        for number, entry in enumerate(entries):
            where = f"spec.advanced.coremon.env[{number}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                self._problems.append(f"{where}: expected a name and a value, got {_shown(entry)}")
            elif isinstance(entry.get("value"), list | dict):
                self._problems.append(f"{where}.value: expected text, got {_shown(entry['value'])}")
            else:
                yield entry

    def boolean(self, name: str, text: str) -> bool:
        try:
            return values.boolean(text)
        except ValueError as error:
            self._problems.append(f"{name}={text}: {error}")
            return False


def _enabled(result: Converted, reader: _Reader, collection: dict[str, Any]) -> None:
    is_enabled = reader.flag_of(collection, "enabled", "spec.coreCollection.")
    result.is_enabled = bool(is_enabled)
    if not is_enabled:
        said = "absent" if is_enabled is None else "false"
        result.notes.append(
            f"spec.coreCollection.enabled is {said}: no cores are collected. Install this chart "
            "only where they should be."
        )


def _env(result: Converted, reader: _Reader, coremon: dict[str, Any], *, is_on_host: bool) -> None:
    kept: list[dict[str, str]] = []
    more: list[dict[str, Any]] = []
    is_overriding = False
    for entry in reader.env_of(coremon):
        name = entry["name"]
        if "valueFrom" in entry:
            more.append({"name": name, "valueFrom": entry["valueFrom"]})
            continue
        text = _text(entry.get("value"))
        if name == OVERRIDE:
            is_overriding = reader.boolean(name, text)
        if name.startswith(_OURS) and name not in SETTINGS:
            result.notes.append(
                f"{name}={text} has no counterpart: Coremond has no such setting, or the chart "
                "sets it by another value."
            )
        else:
            kept.append({"name": name, "value": text})
    if is_overriding:
        # So that core_pattern is what the product sets, on every platform.
        result.values["platformType"] = "generic"
        result.notes.append("platformType is ocp on OpenShift.")
    else:
        result.notes.append(
            "platformType is the cluster's, and not in the CNEInstance: generic, ocp, robin, "
            "socket, or auto, the default."
        )
    result.values["coremon"] = {"hostPath": is_on_host, "env": kept}
    if more:
        result.values["extraEnv"] = more


def _storage(result: Converted, reader: _Reader, spec: dict[str, Any], *, is_on_host: bool) -> None:
    storage_class = reader.text_of(spec, "storageClassName")
    if is_on_host:
        return
    if storage_class:
        result.values["persistence"] = {"storageClassName": storage_class}
    result.notes.append(
        "coremon.hostPath is false: the StorageClass must do ReadWriteMany, or no pod will start."
    )


def _leftovers(
    result: Converted, spec: dict[str, Any], collection: dict[str, Any], coremon: dict[str, Any]
) -> None:
    for where, holder, known in (
        ("spec.coreCollection", collection, {"enabled"}),
        ("spec.advanced.coremon", coremon, {"hostPath", "env"}),
    ):
        for key in holder:
            if key not in known:
                result.notes.append(f"{where}.{key} has no counterpart.")
    if "registry" in spec:
        result.notes.append(
            "spec.registry is that of other images: see image.repository and imagePullSecrets."
        )


def _at(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Write what YAML read as something else the way it stood there."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a map"
        case list():
            return "a list"
        case _:
            return repr(value)[:80]
