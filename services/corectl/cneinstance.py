"""``corectl cneinstance``: the values of the chart that a CNEInstance comes to."""

import os
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from common import settings as values
from services.corectl.cneinstance_fields import Fields, shown, text
from services.corectl.cneinstance_file import KIND, choose, name_of, read_documents, read_input
from services.corectl.cneinstance_settings import OVERRIDE, READERS, problem_of
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe

SETTINGS = frozenset(READERS)
"""Those that the chart takes in coremon.env."""
PLATFORMS = ("generic", "other", "ocp", "robin", "socket", "auto")
"""What the chart takes for platformType."""
NOT_COLLECTED = 3
"""The exit status where the CNEInstance asks for no cores."""
_OURS = ("COREMON_", "COREMOND_", "CRASHAGENT_", "QKVIEW_")
_MOST_NAMED = 20
"""Fields that are named as passed over; more would be a page of them."""
_COREMON = "spec.advanced.coremon."


@dataclass(kw_only=True, slots=True)
class Converted:
    """The values, what is to be said beside them, and what is wrong with the input."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    disabled: str = ""
    """Why no cores are to be collected; empty where they are."""


def run(_: CorectlSettings, args: Namespace) -> int:
    """Print the values, or say what is wrong with the input."""
    found = choose(read_documents(read_input(args.file)), args.name)
    name = name_of(found) or "without a name"
    converted = convert(found)
    for problem in converted.problems:
        complain(safe(f"{KIND} {name}: {problem}"))
    if converted.problems:
        return 1
    if converted.disabled:
        complain(
            f"{KIND} {safe(name)}: {converted.disabled}, so it collects no cores: no values are "
            "written, and nothing is to be installed. Where cores are wanted, set it to true."
        )
        return NOT_COLLECTED
    print(f"# Values of the chart coremond, from the {KIND} {safe(name)}.")
    for note in converted.notes:
        print(f"# {safe(note)}")
    print(yaml.safe_dump(converted.values, sort_keys=False), end="")
    return os.EX_OK


def convert(document: dict[str, Any]) -> Converted:
    """Say what the chart is to be given for the CNEInstance *document*."""
    result = Converted()
    fields = Fields(result.problems)
    spec = fields.map_of(document, "spec")
    collection = fields.map_of(spec, "coreCollection", "spec.")
    advanced = fields.map_of(spec, "advanced", "spec.")
    coremon = fields.map_of(advanced, "coremon", "spec.advanced.")
    certificate = fields.map_of(spec, "certificate", "spec.")

    is_enabled = fields.flag_of(collection, "enabled", "spec.coreCollection.")
    if not is_enabled:
        said = "absent" if is_enabled is None else "false"
        result.disabled = f"spec.coreCollection.enabled is {said}"
    is_on_host = bool(fields.flag_of(coremon, "hostPath", _COREMON))
    kept, more = _env(result, fields, coremon)
    _platform(result, fields.text_of(spec, "platformType", "spec."), kept)
    result.values["coremon"] = {"hostPath": is_on_host, "env": kept}
    if more:
        result.values["extraEnv"] = more
    _storage(result, fields.text_of(spec, "storageClassName", "spec."), is_on_host=is_on_host)
    issuer = fields.text_of(certificate, "clusterIssuer", "spec.certificate.")
    if issuer:
        result.values["grpc"] = {
            "tls": {"certManager": {"enabled": True, "issuerRef": {"name": issuer}}}
        }
    _leftovers(result, spec)
    return result


def _env(
    result: Converted, fields: Fields, coremon: dict[str, Any]
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Give what becomes coremon.env, and what has its value from elsewhere."""
    kept: list[dict[str, str]] = []
    more: list[dict[str, Any]] = []
    for entry in fields.env_of(coremon, _COREMON):
        name, value = entry["name"], text(entry.get("value"))
        is_from_elsewhere = "valueFrom" in entry
        if name.startswith(_OURS) and name not in SETTINGS:
            given = "" if is_from_elsewhere else f"={value}"
            result.notes.append(
                f"{name}{given} has no counterpart: Coremond has no such setting, or the chart "
                "sets it by another value."
            )
        elif name == OVERRIDE and is_from_elsewhere:
            result.problems.append(f"{name}: expected a value, for the chart has to know it")
        elif is_from_elsewhere:
            more.append({"name": name, "valueFrom": entry["valueFrom"]})
        elif problem := problem_of(name, value):
            result.problems.append(problem)
        else:
            kept.append({"name": name, "value": value})
    return kept, more


def _platform(result: Converted, given: str, kept: list[dict[str, str]]) -> None:
    said = next((each["value"] for each in kept if each["name"] == OVERRIDE), "false")
    expected = ", ".join(PLATFORMS)
    if given.lower() in PLATFORMS:
        result.values["platformType"] = given.lower()
    elif given:
        result.problems.append(f"spec.platformType: expected one of {expected}, got {shown(given)}")
    elif values.boolean(said):
        # So that core_pattern is what the product sets, on every platform.
        result.values["platformType"] = "generic"
        result.notes.append(
            "The CNEInstance does not say on which platform this is: if it is OpenShift, set "
            "platformType to ocp."
        )
    else:
        result.notes.append(
            "The CNEInstance does not say on which platform this is: set platformType to one of "
            f"{expected}; auto is the default."
        )


def _storage(result: Converted, storage_class: str, *, is_on_host: bool) -> None:
    if is_on_host:
        if storage_class:
            result.notes.append(
                "spec.storageClassName is not needed: with coremon.hostPath there is no volume."
            )
        return
    if storage_class:
        result.values["persistence"] = {"storageClassName": storage_class}
    result.notes.append(
        "coremon.hostPath is false: the StorageClass must do ReadWriteMany, or no pod will start."
    )


def _leftovers(result: Converted, spec: dict[str, Any]) -> None:
    """Name what the document says besides: what is near to us, and all that is not."""
    for where in ("spec.coreCollection.", _COREMON):
        for name in _unread(spec, where):
            result.notes.append(f"{name} has no counterpart.")
    if "registry" in spec:
        result.notes.append(
            "spec.registry is that of other images: see image.repository and imagePullSecrets."
        )
    others = [
        name
        for where in ("spec.", "spec.advanced.", "spec.certificate.")
        for name in _unread(spec, where)
    ]
    if others:
        more = f", and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        result.notes.append(f"Passed over: {', '.join(others[:_MOST_NAMED])}{more}.")


_READ = {
    "spec.": {
        *("coreCollection", "advanced", "certificate"),
        *("platformType", "storageClassName", "registry"),
    },
    "spec.advanced.": {"coremon"},
    "spec.certificate.": {"clusterIssuer"},
    "spec.coreCollection.": {"enabled"},
    _COREMON: {"hostPath", "env"},
}
"""The fields that are read, by where they stand."""


def _unread(spec: dict[str, Any], where: str) -> Iterator[str]:
    holder: Any = spec
    for part in where.split(".")[1:-1]:
        holder = holder.get(part) if isinstance(holder, dict) else None
    for key in holder if isinstance(holder, dict) else ():
        if key not in _READ[where]:
            yield f"{where}{key}"
