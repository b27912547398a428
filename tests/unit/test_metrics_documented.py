"""What alerts, the dashboard and the README say of metrics is what the programs export."""

import json
import re
from pathlib import Path

import pytest
import yaml

from common.metrics import PREFIX, Family
from services.coremond.measures import Measures as CoremondMeasures
from services.crashagent.measures import Measures as CrashagentMeasures
from services.qkview_collect.measures import Measures as QkviewMeasures
from services.qkview_collect.overview import Overview
from tests.bundle import ROOT

FILES = ROOT / "container" / "chart" / "files"
ALERTS, DASHBOARD = FILES / "alerts.yaml", FILES / "dashboard.json"
_NAME = re.compile(rf"\b{PREFIX}\w+")
_ROW = re.compile(rf"^\| `({PREFIX}\w+)(?:\{{([\w, ]+)\}})?` \| (\w+) \|", re.MULTILINE)
_SELECTED = re.compile(rf"({PREFIX}\w+)\{{([^}}]*)\}}")
_LABEL = re.compile(r"(\w+)\s*=~?")
_OF_THE_TARGET = {"instance"}
_OF_SERIES = {"le"}


def exported() -> dict[str, Family]:
    """Give all families of all programs, with a series in each that has labels."""
    coremond = CoremondMeasures(1)
    coremond.watch_loop(lambda: (0, 0), lambda: 0.0, lambda: 0)
    registries = [coremond.registry, CrashagentMeasures().registry]
    view = Overview(Path("/none"), QkviewMeasures().registry, ask_all=lambda *_: {}).look()
    families = [*view.families, *(f for registry in registries for f in registry.families())]
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def series_of(family: Family) -> set[str]:
    if family.kind == "histogram":
        return {family.name + suffix for suffix in ("_bucket", "_sum", "_count")}
    return {family.name}


def expressions() -> list[str]:
    rules = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    dashboard = json.loads(DASHBOARD.read_text())
    return [
        *(rule["expr"] for rule in rules),
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        *(v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"),
    ]


def test_every_metric_that_is_asked_for_is_exported() -> None:
    series = {name for family in exported().values() for name in series_of(family)}

    asked = {name for expression in expressions() for name in _NAME.findall(expression)}

    assert len(asked) > 20
    assert asked - series == set()


def test_every_label_that_is_asked_for_is_there() -> None:
    labels = {
        name: {label for sample in family.samples for label in sample.labels} | _OF_SERIES
        for family in exported().values()
        for name in series_of(family)
    }
    labels[f"{PREFIX}workload_crashes_total"] = {"namespace", "workload", "container"}

    wrong = {
        (name, label)
        for expression in expressions()
        for name, selector in _SELECTED.findall(expression)
        for label in _LABEL.findall(selector)
        if label not in labels[name] | _OF_THE_TARGET
    }

    assert wrong == set()


def test_the_readme_has_every_metric_with_its_kind_and_no_other() -> None:
    rows = {name: kind for name, _, kind in _ROW.findall((ROOT / "README.md").read_text())}

    assert rows == {family.name: family.kind for family in exported().values()}


def test_the_readme_has_the_labels_of_every_metric() -> None:
    rows = {
        name: {label.strip() for label in labels.split(",")} - {""}
        for name, labels, _ in _ROW.findall((ROOT / "README.md").read_text())
    }

    for name, family in exported().items():
        if family.samples:
            assert rows[name] == set(family.samples[0].labels) - _OF_SERIES


def test_names_and_kinds_go_together() -> None:
    for family in exported().values():
        assert re.fullmatch(rf"{PREFIX}[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.help.endswith(".") or family.help.startswith("1 where")


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    rules = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]

    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description", "runbook"} <= set(rule["annotations"])
    assert len({rule["alert"] for rule in rules}) == len(rules)


@pytest.mark.parametrize("member", ["id", "title"])
def test_the_panels_of_the_dashboard_are_told_apart(member: str) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]

    assert len({panel[member] for panel in panels}) == len(panels) > 10


def test_the_dashboard_names_no_data_source_of_its_own() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    named = [
        *(panel["datasource"]["uid"] for panel in dashboard["panels"]),
        *(target["datasource"]["uid"] for p in dashboard["panels"] for target in p["targets"]),
    ]

    assert set(named) == {"${datasource}"}
