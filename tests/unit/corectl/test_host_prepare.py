from dataclasses import replace
from pathlib import Path

import pytest

from common.corepattern import read_pattern
from common.errors import CollectorError
from services.corectl import host_prepare
from services.corectl.host_facts import Directory, HostFacts, Socket
from services.corectl.settings import CorectlSettings

FACTS = HostFacts(
    pattern=read_pattern("core"),
    release="6.18.1",
    crash_dir=Directory(path="/var/crash"),
    apport_socket=Socket(path="/run/apport.socket"),
    kernel_socket=Socket(path="/run/coremond/kernel.sock"),
    items_socket=Socket(path="/run/coremond/items.sock"),
)


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ("6.18.1", {"core_pattern": "@@/run/coremond/kernel.sock"}),
        ("6.16.3", {"core_pattern": "@/run/coremond/kernel.sock", "core_pipe_limit": "16"}),
    ],
)
def test_the_socket_is_written_as_the_kernel_knows_it(release: str, wanted: dict[str, str]) -> None:
    facts = replace(FACTS, release=release)

    assert host_prepare._WANTED["socket"](CorectlSettings(), facts, None) == wanted


def test_a_kernel_that_would_take_the_socket_for_a_file_is_told_so() -> None:
    with pytest.raises(CollectorError, match=r"Linux 6\.1\.0 has no coredump socket"):
        host_prepare._WANTED["socket"](CorectlSettings(), replace(FACTS, release="6.1.0"), None)


def test_a_socket_that_is_off_is_not_set() -> None:
    with pytest.raises(CollectorError, match="CRASHAGENT_KERNEL_SOCKET is off"):
        host_prepare._WANTED["socket"](CorectlSettings(kernel_socket=None), FACTS, None)


def test_a_pipe_with_spaces_in_its_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/a b/corectl"])

    with pytest.raises(CollectorError, match="split this at its spaces"):
        host_prepare._WANTED["pipe"](CorectlSettings(), FACTS, None)


def _chcon(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "chcon").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "chcon").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_crash_directory_gets_the_label_that_containers_may_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _chcon(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/said')

    assert host_prepare.label(Path("/var/crash"))
    assert (tmp_path / "said").read_text() == "-Rt container_file_t -- /var/crash\n"
    assert "has the SELinux type container_file_t" in capsys.readouterr().out


def test_a_label_that_is_not_to_be_had_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _chcon(tmp_path, monkeypatch, "echo denied >&2; exit 1")
    refused = host_prepare.label(Path("/var/crash"))
    (tmp_path / "chcon").unlink()
    missing = host_prepare.label(Path("/var/crash"))

    said = capsys.readouterr().err
    assert (refused, missing) == (False, False)
    assert "container_file_t /var/crash: denied" in said
    assert "chcon is not there" in said
