"""Fields of a resource, read as what they should be."""

import re
from collections.abc import Iterator
from typing import Any

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Fields:
    """Reads fields, and adds to *problems* those of another kind than they should be."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def map_of(self, holder: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        """Give the map *key* of *holder*; an empty one where there is none."""
        value = holder.get(key)
        if value is not None and not isinstance(value, dict):
            self._problems.append(f"{where}{key}: expected a map, got {shown(value)}")
        return value if isinstance(value, dict) else {}

    def flag_of(self, holder: dict[str, Any], key: str, where: str) -> bool | None:
        """Give the flag *key* of *holder*; None where there is none."""
        value = holder.get(key)
        if value is not None and not isinstance(value, bool):
            self._problems.append(f"{where}{key}: expected true or false, got {shown(value)}")
        return value if isinstance(value, bool) else None

    def text_of(self, holder: dict[str, Any], key: str, where: str) -> str:
        """Give the text *key* of *holder*; empty where there is none."""
        value = holder.get(key)
        if value is not None and not isinstance(value, str):
            self._problems.append(f"{where}{key}: expected text, got {shown(value)}")
        return value if isinstance(value, str) else ""

    def env_of(self, holder: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
        """Give the entries of env that have a name of their own, and a text as value or none."""
        entries = holder.get("env")
        if entries is None:
            return
        if not isinstance(entries, list):
            self._problems.append(f"{where}env: expected a list, got {shown(entries)}")
            return
        seen = set()
        for number, entry in enumerate(entries):
            problem = _problem_of(entry)
            if not problem and entry["name"] in seen:
                problem = f": {entry['name']} stands there twice; leave one"
            if problem:
                self._problems.append(f"{where}env[{number}]{problem}")
                continue
            seen.add(entry["name"])
            yield entry


def _problem_of(entry: Any) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return f": expected a name and a value, got {shown(entry)}"
    if not _VARIABLE.fullmatch(entry["name"]):
        return f".name: expected a variable's name, got {shown(entry['name'])}"
    if isinstance(entry.get("value"), list | dict):
        return f".value: expected text, got {shown(entry['value'])}"
    if entry.get("value") is not None and "valueFrom" in entry:
        return f": {entry['name']} has a value and a valueFrom; leave one"
    return ""


def text(value: Any) -> str:
    """Write what YAML read as something else the way it stood there."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def shown(value: Any) -> str:
    """Say of what kind *value* is, or what it is."""
    match value:
        case dict():
            return "a map"
        case list():
            return "a list"
        case _:
            return repr(value)[:80]
