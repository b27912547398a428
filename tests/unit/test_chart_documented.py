"""What is said about the chart is what it is."""

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from common import __version__
from common.errors import ConfigError
from services.corectl.cneinstance import SETTINGS
from services.corectl.settings import CorectlSettings
from services.coremond.settings import CoremondSettings
from services.crashagent.settings import CrashagentSettings
from services.qkview_collect.settings import QkviewSettings
from tests.bundle import ROOT
from tests.manifests import settings

CHART = ROOT / "container" / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXTS = [
    *("0", "00", "1", "007", "15", "19", "20", "99", "100", "256", "257", "300", "1000000"),
    *("-1", "+1", "1.5", ".5", "5.", "1e3", "0x10", "1_000", " 1", "1 ", "1,5", "abc", "x y"),
    *("true", "TRUE", "True", "t", "T", "false", "fAlse", "f", "yes", "no", "on", "truely"),
    *("0s", "0.0s", "00h0m", "0.1ns", "90s", "5m", "1h30m", "2d", "1.5h", ".5h", "1.h", "1us"),
    *("1µs", "1μs", "1ms", "1M", "5 m", "1w", "m", "5m1", "-5m", "1h-1m", "0d", "10", "s5"),
    *("1K", "1k", "512M", "8G", "8GB", "8GiB", "8Gi", "8Gib", "1T", "1P", "1.5G", "G", "1B"),
    *("5%", "0%", "100%", "100.0%", "100.1%", "101%", "5.5%", ".5%", "5.%", "%", "-5%", "007%"),
    *("app", "app,tier", "app, tier", "a,,b", ",a", "a,", ",", " , ", "f5.*/x?", "a b,c"),
    *("gzip", "zstd", "lz4", "raw", "GZIP", "xz", "gzip,lz4", "idle", "none", "best-effort"),
    *("best-effort:0", "best-effort:7", "best-effort:8", "best-effort:", "realtime:1", "Idle"),
    *("auto", "off", "Off", "AUTO", "/etc/kube", "/", "kube/config", "/a:b", "@/run/x", "~/.kube"),
    *("/run/x.sock", f"/{'x' * 106}", f"/{'x' * 107}", "./x.sock", "run/x.sock", "offside"),
    *("core.%e.%p.%h.%t", "core", "core.%e", "%e", "%e%f", "%E%h", "%p", "%%", "%e.%f", "a%"),
    *("%z", "core.%x", ".core", "a.core", "|core", "a|core", "@core", "core@", "a/b", "%e/%p"),
    *("x" * 127, "x" * 128, "%d", "%I", "%C", "%c", "%pz", "%%e", "%e%%", "core %p"),
]
"""Values of every kind, and others that are nearly so."""
WRONG = {
    **dict.fromkeys(("boolean", "count", "size", "floor", "codec"), "perhaps"),
    **dict.fromkeys(("encoding", "priority", "cluster", "duration", "period"), "perhaps"),
    **dict.fromkeys(("niceness", "threads"), "257"),
    "positive": "0",
    "names": ",",
    "socket": "perhaps",
    "pattern": "a/b",
}
_ROW = re.compile(r"^\| `([\w.]+)` \| (?:`(.*?)`)? ?\| (.+) \|$", re.MULTILINE)


def leaves(schema: dict[str, Any], values: Any, path: str = "") -> dict[str, tuple[Any, str]]:
    """Give the default and the description of everything that has no properties of its own."""
    found: dict[str, tuple[Any, str]] = {}
    for name, part in schema["properties"].items():
        if "description" in part:
            found[path + name] = (values.get(name), part["description"])
        else:
            found |= leaves(part, values.get(name), f"{path}{name}.")
    return found


def documented() -> dict[str, tuple[Any, str]]:
    found = leaves(SCHEMA, VALUES)
    del found["global"]
    return found


def defined(name: str) -> str:
    """Give the text of a definition in the chart's templates."""
    text = (CHART / "templates" / "_settings.tpl").read_text()
    match = re.search(rf'define "{name}" -\}}\}}\n(.*?)\n\{{\{{', text, re.DOTALL)
    assert match
    return match[1]


FREE: dict[str, str] = yaml.safe_load(defined("coremond.settings.free"))
KINDS: dict[str, dict[str, str]] = yaml.safe_load(defined("coremond.settings.kinds"))


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [each for part in schema.get("properties", {}).values() for each in objects(part)]
    return [*inner, schema] if "properties" in schema else inner


def test_the_readme_explains_every_value_as_the_schema_does() -> None:
    rows = {name: words for name, _, words in _ROW.findall((CHART / "README.md").read_text())}

    assert rows == {name: words for name, (_, words) in documented().items()}


def test_the_readme_shows_the_defaults() -> None:
    rows = {name: shown for name, shown, _ in _ROW.findall((CHART / "README.md").read_text())}

    defaults = {
        name: default if isinstance(default, str) else json.dumps(default)
        for name, (default, _) in documented().items()
    }

    assert rows == defaults


def test_every_value_has_a_default_and_a_place_in_the_schema() -> None:
    def names(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
        found = set()
        for name, value in values.items():
            part = schema["properties"][name]
            found |= (
                names(value, part, f"{path}{name}.") if "description" not in part else {path + name}
            )
        return found

    assert names(VALUES, SCHEMA) == set(documented())


def test_no_value_of_another_name_is_taken() -> None:
    assert all(each["additionalProperties"] is False for each in objects(SCHEMA))


def test_a_chart_installs_the_programs_of_its_own_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == chart["version"] == __version__


def test_the_chart_knows_every_setting_and_no_other() -> None:
    free, own = set(FREE), set(defined("coremond.settings.own").split())

    assert free | own == settings()
    assert free & own == set()
    assert set(FREE.values()) == set(KINDS)


def test_a_cneinstance_may_have_the_settings_that_the_chart_takes() -> None:
    assert set(FREE) == SETTINGS


def chart_takes(kind: dict[str, str], text: str) -> bool:
    """Say what the template says: to Go, `$` is the end and nothing before it."""

    def is_like(pattern: str) -> bool:
        return re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None

    return is_like(kind["like"]) and not ("not" in kind and is_like(kind["not"]))


def programs_say(name: str, text: str) -> str:
    """Give what the programs have against a setting; nothing if they take it."""
    try:
        for load in (CoremondSettings, CrashagentSettings, QkviewSettings, CorectlSettings):
            load.from_env({name: text})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", FREE)
def test_the_chart_takes_the_values_that_the_programs_take(name: str) -> None:
    kind = KINDS[FREE[name]]

    taken = {text for text in TEXTS if not programs_say(name, text)}

    assert {text for text in TEXTS if chart_takes(kind, text)} == taken
    assert taken < set(TEXTS)


@settings_of(max_examples=500, deadline=None)
@given(text=st.text(st.sampled_from("0123459.-%KMGTiBnsumhdrf/, e"), min_size=1, max_size=8))
def test_what_is_made_up_of_such_values_is_taken_likewise(text: str) -> None:
    names = {kind: name for name, kind in FREE.items()}

    taken = {kind for kind, name in names.items() if not programs_say(name, text)}

    assert {kind for kind in names if chart_takes(KINDS[kind], text)} == taken


@pytest.mark.parametrize("name", FREE)
def test_a_wrong_value_is_told_as_the_programs_tell_it(name: str) -> None:
    kind = FREE[name]

    said = programs_say(name, WRONG[kind])

    # Of a period and of a socket, the programs tell the two things that are asked for one by one.
    assert f"expected {KINDS[kind]['expected']}" in said or (said and kind in {"period", "socket"})
    assert not chart_takes(KINDS[kind], WRONG[kind])


@pytest.mark.parametrize(
    "name", ["crash-directory.yaml", "kustomization.yaml", "kyverno.yaml", "policy.yaml"]
)
def test_every_way_to_mount_the_crash_directory_is_the_same(name: str) -> None:
    text = (ROOT / "container" / "workload" / name).read_text()

    assert "$(COREMOND_POD_NAMESPACE)_$(COREMOND_POD_NAME)_$(COREMOND_POD_UID)" in text
    assert VALUES["hostPaths"]["crash"] in text
    assert all(f"metadata.{name}" in text for name in ("namespace", "name", "uid"))
