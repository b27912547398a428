import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.settings import environment, read_env_file
from tests.unit.factories import with_files


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("env") / "coremond.env"


def test_without_a_file_the_environment_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREMON_ROTATE", "true")

    assert environment()[0]["COREMON_ROTATE"] == "true"


def test_what_the_file_sets_wins_over_the_environment(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COREMON_ROTATE", "true")
    monkeypatch.setenv("NODE_NAME", "node-1")
    env_file.write_text("COREMON_ROTATE=false\n")

    env, _ = environment(env_file)

    assert (env["COREMON_ROTATE"], env["NODE_NAME"]) == ("false", "node-1")


def test_lines_are_read_as_a_shell_reads_them(env_file: Path) -> None:
    env_file.write_text(
        "# a comment\n\nPLAIN=a  # and why\nexport EXPORTED=b\n"
        'QUOTED=\'c d\'\nDOUBLE="e \\"f\\""\nEMPTY=\nEQUALS=g=h\n'
    )

    env, _ = environment(env_file)

    assert {name: env[name] for name in ("PLAIN", "EXPORTED", "QUOTED", "DOUBLE")} == {
        "PLAIN": "a",
        "EXPORTED": "b",
        "QUOTED": "c d",
        "DOUBLE": 'e "f"',
    }
    assert (env["EMPTY"], env["EQUALS"]) == ("", "g=h")


def test_a_hash_inside_a_word_is_no_comment(env_file: Path) -> None:
    env_file.write_text("COREMON_CRASH_DIR=/var/crash#1\n")

    assert environment(env_file)[0]["COREMON_CRASH_DIR"] == "/var/crash#1"


@with_files
@given(value=st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])))
def test_a_quoted_value_is_read_as_it_was_written(env_file: Path, value: str) -> None:
    env_file.write_text(f"COREMON_TEST={shlex.quote(value)}\n")

    assert environment(env_file)[0]["COREMON_TEST"] == value


def test_every_line_that_is_wrong_is_told(env_file: Path) -> None:
    env_file.write_text("GOOD=1\nwhat is this\n1BAD=x\nOPEN='quote\n=x\n")

    with pytest.raises(ConfigError) as raised:
        read_env_file(env_file)

    told = "\n".join(raised.value.problems)
    assert [f"{env_file}:{line}:" in told for line in range(1, 6)] == [
        False,
        *[True] * 4,
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "coremond.env"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"coremond\.env"):
        read_env_file(path)


def test_a_line_that_is_none_hides_none_of_the_others(env_file: Path) -> None:
    env_file.write_text('COREMON_ROTATE=perhaps\nA B\nC="\nNODE_NAME=node-1\n')

    env, problems = environment(env_file)

    assert (env["COREMON_ROTATE"], env["NODE_NAME"]) == ("perhaps", "node-1")
    assert [problem.split(": ")[0] for problem in problems] == [
        f"{env_file}:{number}" for number in (2, 2, 3)
    ]
