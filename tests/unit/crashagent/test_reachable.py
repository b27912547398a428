import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.crashagent.listener import open_listener
from services.crashagent.settings import CrashagentSettings
from services.crashagent.wellbeing import faults_of
from tests.bundle import Home


@pytest.fixture
def settings() -> Iterator[CrashagentSettings]:
    with Home() as home:
        (home / "crash").mkdir()
        paths = [home / name for name in ("apport", "kernel", "systemd")]
        apport, kernel, systemd = paths
        listeners = [open_listener(path) for path in paths]
        yield CrashagentSettings(
            crash_dir=home / "crash",
            apport_socket=apport,
            kernel_socket=kernel,
            systemd_socket=systemd,
        )
        for listener in listeners:
            listener.close()


def test_all_is_well_where_every_socket_and_the_directory_are_there(
    settings: CrashagentSettings,
) -> None:
    assert list(faults_of(settings)) == []


@pytest.mark.parametrize("name", ["apport_socket", "kernel_socket", "systemd_socket"])
def test_a_socket_that_is_gone_or_none_is_told(settings: CrashagentSettings, name: str) -> None:
    path: Path = getattr(settings, name)

    path.unlink()
    assert list(faults_of(settings)) == [f"nobody can connect at {path}: No such file or directory"]
    path.touch()
    assert list(faults_of(settings)) == [f"nobody can connect at {path}: it is no socket"]


def test_a_directory_that_is_gone_or_cannot_be_written_is_told(
    settings: CrashagentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert list(faults_of(settings)) == [f"{settings.crash_dir}: it cannot be written"]

    settings.crash_dir.rmdir()

    assert list(faults_of(settings)) == [
        f"{settings.crash_dir}: it is no directory, or is not there"
    ]
