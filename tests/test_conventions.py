"""The house rules, as far as tools can hold them: `pytest` is the whole gate."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.bundle import BIN, ROOT

TOP_LEVEL = {
    "services",
    "common",
    "conf",
    "tests",
    "container",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "requirements.txt",
    "requirements-dev.txt",
}


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", "mypy", "lint-imports"],
)
def test_the_tools_find_nothing(command: str) -> None:
    tool, *words = command.split()

    ended = subprocess.run(
        [BIN / tool, *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("missing: a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_the_top_level_is_as_agreed() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked_files()}

    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_every_package_says_in_one_sentence_what_it_is() -> None:
    for package in [ROOT / "common", *sorted((ROOT / "services").iterdir())]:
        if package.is_dir() and package.name != "__pycache__":
            assert (package / "__init__.py").read_text().startswith('"""')


def test_no_lock_file_names_where_packages_come_from() -> None:
    for path in ROOT.glob("requirements*.txt"):
        text = path.read_text()

        assert "://" not in text
        assert not re.search(r"^-", text, re.MULTILINE), "it has an option of pip's"
        assert "--hash=sha256:" in text
