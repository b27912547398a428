"""``corectl info``: everything known of a crash."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from common.item import to_json
from common.record import CrashRecord, PodFacts
from services.corectl.list_cores import json_array
from services.corectl.moments import show_moment
from services.corectl.presence import files_in, presence
from services.corectl.settings import CorectlSettings
from services.corectl.show import safe, show_signal, show_size
from services.corectl.stored import find_records, selection_of

_FIRST = (
    *("id", "process", "comm", "exe", "cmdline", "pid", "host_pid", "tid", "uid", "gid", "signal"),
    *("crashed_at", "started_at", "hostname", "node", "namespace", "pod", "container", "workload"),
    *("identity", "kubernetes", "container_id", "cgroup", "arrived", "state", "reason", "name"),
)
"""The facts an operator looks for first; the others follow in the record's own order."""

_LABELS = {
    "id": "ID",
    "pid": "PID",
    "host_pid": "Host PID",
    "tid": "TID",
    "uid": "UID",
    "gid": "GID",
    "crc32": "CRC-32 of core file",
    "sha256": "SHA-256 of core file",
    "elf": "ELF",
    "container_id": "Container ID",
    "exe": "Executable",
    "cmdline": "Command line",
    "rlimit": "Core limit",
    "log": "Log file",
}


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Tell all of each record that the arguments mean; of the newest, if they name none."""
    selection = selection_of(args)
    if not (selection.matches or selection.since or selection.until or selection.number):
        selection = replace(selection, number=1)
    records = find_records(settings, selection)
    if args.reverse:
        records.reverse()
    if args.json:
        print(json_array(records))
    else:
        files = files_in(settings.store_dir)
        texts = ["\n".join(lines_of(record, presence(record, files))) for record in records]
        if texts:
            print("\n\n".join(texts))
    return os.EX_OK if records else 1


def lines_of(record: CrashRecord, present: str) -> list[str]:
    """Write every known fact of *record* as a line of its own, aligned at the colons."""
    names = [field.name for field in fields(record)]
    ordered = sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    facts: list[tuple[str, str]] = []
    for name in ordered:
        if name == "kubernetes":
            facts += _pod_lines(record.kubernetes) if record.kubernetes else []
        else:
            facts.append((_label(name), _text(name, getattr(record, name))))
    facts.append(("Core file", f"{safe(record.core)} ({present})"))
    known = [(label, text) for label, text in facts if text]
    width = max(len(label) for label, _ in known)
    return [f"{label:>{width}}: {text}" for label, text in known]


def _pod_lines(facts: PodFacts) -> list[tuple[str, str]]:
    owner = f"{facts.owner_kind}/{facts.owner_name}" if facts.owner_kind else ""
    restarts = "" if facts.restart_count is None else str(facts.restart_count)
    return [
        ("Pod UID", safe(facts.uid)),
        ("Owner", safe(owner)),
        ("QoS class", safe(facts.qos)),
        ("Container kind", facts.container_kind or ""),
        ("Image", safe(facts.image)),
        ("Image ID", safe(facts.image_id)),
        ("Restarts", restarts),
        ("Limits", _pairs(facts.limits)),
        ("Labels", _pairs(facts.labels)),
        ("Annotations", _pairs(facts.annotations)),
    ]


def _pairs(values: dict[str, str]) -> str:
    return safe(", ".join(f"{name}={value}" for name, value in values.items()))


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " ").capitalize())


def _text(name: str, value: Any) -> str:
    """Show one fact; one that nobody knows is empty."""
    if value is None or value in ("", ()):
        return ""
    if name.endswith("_at"):
        return show_moment(value) if value else ""
    shown = _SHOWN.get(name)
    if shown is not None:
        return safe(shown(value))
    return safe(value if isinstance(value, str | int | float) else to_json(value).decode())


def _bytes(size: int) -> str:
    return f"{size} ({show_size(size)})" if size >= 1024 else str(size)


_SHOWN: dict[str, Callable[[Any], str]] = {
    "signal": lambda number: f"{number} ({show_signal(number)})",
    "size": _bytes,
    "data": _bytes,
    "packed": _bytes,
    "log_size": lambda size: _bytes(size) if size else "",
    "rlimit": _bytes,
    "identity": lambda identity: f"pod by {identity.by}, container by {identity.container_by}",
    "sources": lambda sources: ", ".join(source.name for source in sources),
}
