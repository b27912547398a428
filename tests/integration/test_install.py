"""What pip installs from a clone, and from a tree that is none."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundle import ROOT, Bundle

PARTS = ("common", "services", "pyproject.toml", "README.md", "LICENSE")
CACHES = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
NAMES = ("COREMOND_COMMIT_HASH", "COREMOND_BUILD_DATE", "SOURCE_DATE_EPOCH")
BARE = {name: value for name, value in os.environ.items() if name not in NAMES}
"""The environment of who does not build by make."""


def run(*words: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        words, cwd=cwd, env={**BARE, **env}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy(target: Path, *more: str) -> None:
    target.mkdir()
    for name in (*PARTS, *more):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, target / name)


def install(tree: Path, target: Path, **env: str) -> None:
    """Build a wheel of *tree* as it stands, and install that alone."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=tree, **env)
    [wheel] = (tree / "dist").glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tree)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a clone with one commit, which it is built from."""
    tree = tmp_path_factory.mktemp("clone") / "coremond"
    copy(tree, "conf", ".gitignore")
    own = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        run(*own, *words, cwd=tree)
    return tree


@pytest.fixture(scope="module")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    install(clone, target)
    return target


@pytest.fixture
def away(installed: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    """Give a bundle of what is installed, without any configuration of its own."""
    for name in NAMES:  # make sets them
        monkeypatch.delenv(name, raising=False)
    bundle = Bundle(home, {"PYTHONPATH": str(installed)})
    bundle.command = [sys.executable, str(installed / "bin" / "coremond-bundle")]
    yield bundle
    bundle.stop()


def test_what_is_installed_has_supervisords_configuration_and_starts(
    clone: Path, away: Bundle
) -> None:
    away.start()
    started = away.wait_for("coremond started")
    states = {process["name"]: process["statename"] for process in away.processes()}

    commit = run("git", "rev-parse", "--short", "HEAD", cwd=clone).strip()
    assert states.keys() == {"coremond", "crashagent", "qkview-collect"}
    assert started["commitHash"] == commit
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", started["buildDate"])


@pytest.mark.parametrize("program", ["coremond-bundle", "corectl"])
def test_what_is_installed_says_which_build_it_is(
    clone: Path, installed: Path, program: str
) -> None:
    commit = run("git", "rev-parse", "--short", "HEAD", cwd=clone).strip()

    said = run(
        sys.executable,
        installed / "bin" / program,
        "--version",
        cwd=installed,
        PYTHONPATH=str(installed),
    )

    assert re.fullmatch(rf"{program} [\d.]+, commit {commit}, built 2\S+Z\n", said)


def test_a_wrong_configuration_is_refused_before_anything_is_made(away: Bundle) -> None:
    before = sorted(away.home.iterdir())

    done = subprocess.run(
        [*away.command, "-c", away.home / "none"],
        env=away.env,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == os.EX_CONFIG
    assert f"coremond-bundle: -c {away.home}/none: No such file or directory" in done.stderr
    assert sorted(away.home.iterdir()) == before


def test_a_tree_without_a_clone_and_without_conf_is_built_too(tmp_path: Path) -> None:
    copy(tmp_path / "tree")

    install(tmp_path / "tree", tmp_path / "to", SOURCE_DATE_EPOCH="1742738615")

    stamp = (tmp_path / "to" / "common" / "build").read_text()
    assert stamp == "unknown 2025-03-23T14:03:35Z\n"
    assert not (tmp_path / "to" / "services" / "supervisord.conf").exists()


def test_what_a_builder_knows_better_is_what_is_stamped(tmp_path: Path) -> None:
    copy(tmp_path / "tree", "conf")
    told = {"COREMOND_COMMIT_HASH": "359bc2a", "COREMOND_BUILD_DATE": "2025-03-13T19:53:15Z"}

    install(tmp_path / "tree", tmp_path / "to", **told)

    assert (tmp_path / "to" / "common" / "build").read_text() == " ".join(told.values()) + "\n"
    assert (tmp_path / "to" / "services" / "supervisord.conf").read_bytes() == (
        ROOT / "conf" / "supervisord.conf"
    ).read_bytes()


def test_a_tree_that_is_only_linked_to_gets_no_stamp(tmp_path: Path) -> None:
    copy(tmp_path / "tree", "conf")
    build = "from setuptools.build_meta import build_editable; build_editable('dist')"

    run("mkdir", "dist", cwd=tmp_path / "tree")
    run(sys.executable, "-c", build, cwd=tmp_path / "tree", COREMOND_COMMIT_HASH="359bc2a")

    assert list((tmp_path / "tree" / "dist").glob("*.whl"))
    assert not (tmp_path / "tree" / "common" / "build").exists()
