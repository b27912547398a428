"""What is said about the chart is what it is."""

import json
import re
from typing import Any

import pytest
import yaml

from common import __version__
from services.corectl.cneinstance import SETTINGS
from tests.bundle import ROOT
from tests.manifests import settings

CHART = ROOT / "container" / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
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


def listed(name: str) -> set[str]:
    """Give the settings of a list in the chart's templates."""
    text = (CHART / "templates" / "_settings.tpl").read_text()
    match = re.search(rf'define "{name}" -\}}\}}\n(.*?)\n\{{\{{', text, re.DOTALL)
    assert match
    return set(match[1].split())


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
    free, own = listed("coremond.settings.free"), listed("coremond.settings.own")

    assert free | own == settings()
    assert free & own == set()


def test_a_cneinstance_may_have_the_settings_that_the_chart_takes() -> None:
    assert listed("coremond.settings.free") == SETTINGS


@pytest.mark.parametrize(
    "name", ["crash-directory.yaml", "kustomization.yaml", "kyverno.yaml", "policy.yaml"]
)
def test_every_way_to_mount_the_crash_directory_is_the_same(name: str) -> None:
    text = (ROOT / "container" / "workload" / name).read_text()

    assert "$(COREMOND_POD_NAMESPACE)_$(COREMOND_POD_NAME)_$(COREMOND_POD_UID)" in text
    assert VALUES["hostPaths"]["crash"] in text
    assert all(f"metadata.{name}" in text for name in ("namespace", "name", "uid"))
