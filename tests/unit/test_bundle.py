"""What the bundle refuses before it has made anything."""

import os
from pathlib import Path

import pytest

from services import bundle


@pytest.fixture(autouse=True)
def _nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREMON_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(bundle, "hold_sockets", lambda _env: pytest.fail("it went on"))


def refused(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr("sys.argv", ["coremond-bundle", "-c", str(configuration)])

    assert bundle.main() == os.EX_CONFIG
    return capsys.readouterr().err


def test_a_configuration_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(tmp_path / "none", monkeypatch, capsys)

    assert said == f"coremond-bundle: -c {tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"default: info\n", "no section headers"),
        (b"[unix_http_server]\n", "no [supervisord]"),
        (b"[supervisord]\n[\n", "parsing errors"),
        (b"\xff", "not UTF-8"),
        (b"", "no [supervisord]"),
    ],
)
def test_a_configuration_that_is_none_of_supervisords_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    words: str,
) -> None:
    (tmp_path / "conf").write_bytes(content)

    said = refused(tmp_path / "conf", monkeypatch, capsys)

    assert said.startswith(f"coremond-bundle: -c {tmp_path}/conf: ")
    assert words in said
    assert len(said.splitlines()) == 1


def test_nobody_writes_to_a_fifo_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert "no [supervisord]" in refused(tmp_path / "fifo", monkeypatch, capsys)


def test_a_wrong_configuration_hides_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COREMON_ROTATE", "perhaps")

    said = refused(tmp_path / "none", monkeypatch, capsys)

    assert "COREMON_ROTATE='perhaps'" in said
    assert f"-c {tmp_path}/none" in said


def test_the_bundle_says_which_build_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["coremond-bundle", "--version"])

    with pytest.raises(SystemExit) as ended:
        bundle.main()

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("coremond-bundle 0")


def test_a_line_of_the_env_file_that_is_none_hides_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "env").write_text("A B\nCOREMON_ROTATE=perhaps\n")
    monkeypatch.setattr("sys.argv", ["coremond-bundle", "--env", str(tmp_path / "env")])

    status = bundle.main()

    said = capsys.readouterr().err
    assert status == os.EX_CONFIG
    assert "env:1: expected NAME=value, got 'A'" in said
    assert "COREMON_ROTATE='perhaps'" in said
