"""What is said about the settings is what they are."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from services.coremond.settings import CoremondSettings
from services.crashagent.settings import CrashagentSettings
from services.qkview_collect.settings import QkviewSettings
from tests.bundle import ROOT

LOADERS: dict[str, Callable[[Mapping[str, str]], Any]] = {
    "coremond": CoremondSettings.from_env,
    "crashagent": CrashagentSettings.from_env,
    "qkview-collect": QkviewSettings.from_env,
}
SOURCES = [
    ROOT / "common" / "places.py",
    ROOT / "common" / "disk.py",
    ROOT / "common" / "effort.py",
    *(ROOT / "services").glob("*/settings.py"),
]
_DOCUMENTED = re.compile(r'"""([A-Z][A-Z_]+): ')
_INTERNAL = {"CRASHAGENT_LISTEN_FD", "CRASHAGENT_KERNEL_FD", "CRASHAGENT_SYSTEMD_FD"}
"""Set by the bundle for its programs, and not by people."""
_EMPTY_BY_DEFAULT = {
    *("NODE_NAME", "POD_NAME", "CRASHAGENT_SPOOL"),
    *("COREMON_DENY", "COREMON_POD_LABELS", "COREMON_POD_ANNOTATIONS"),
}
"""Their defaults come from the host, or from another setting."""


def names_in_code() -> set[str]:
    return {name for path in SOURCES for name in _DOCUMENTED.findall(path.read_text())} - _INTERNAL


def env_file() -> dict[str, str]:
    """Read the lines of conf/coremond.env that set something, all of which are commented out."""
    found = {}
    for line in (ROOT / "conf" / "coremond.env").read_text().splitlines():
        match = re.fullmatch(r"#([A-Z_]+)=(.*)", line)
        if match:
            found[match[1]] = "".join(shlex.split(match[2]))
    return found


def test_the_env_file_has_every_setting_and_no_other() -> None:
    assert set(env_file()) == names_in_code()


@pytest.mark.parametrize("program", LOADERS)
def test_the_env_file_shows_the_defaults(program: str) -> None:
    shown = {name: value for name, value in env_file().items() if value}

    assert LOADERS[program](shown) == LOADERS[program]({})
    assert set(env_file()) - set(shown) == _EMPTY_BY_DEFAULT


def test_the_env_file_sets_nothing_by_itself() -> None:
    lines = (ROOT / "conf" / "coremond.env").read_text().splitlines()

    assert all(not line or line.startswith("#") for line in lines)


def test_the_readme_explains_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()

    assert {name for name in names_in_code() if f"`{name}`" not in readme} == set()


def test_the_readme_explains_every_log_line() -> None:
    said = re.compile(r'\b(?:log|self)\.(?:info|warning|error|critical|exception)\(\s*"([^"]+)"')
    said_once = re.compile(r'_say_once\(\w+, "([^"]+)"')
    readme = (ROOT / "README.md").read_text()

    texts = {
        text
        for folder in ("common", "services")
        for path in (ROOT / folder).rglob("*.py")
        for pattern in (said, said_once)
        for text in pattern.findall(path.read_text())
    }

    assert len(texts) > 15
    assert {text for text in texts if f"`{text}`" not in readme} == set()
