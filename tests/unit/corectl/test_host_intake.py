"""What `corectl intake` makes of its words: whatever they are, the core goes on."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.corectl import intake
from services.corectl.intake_words import NUMBERS, Facts, read_words
from services.corectl.settings import CorectlSettings
from tests.unit.factories import without_deadline

LINE = ["-P4711", "-p9", "-i10", "-u1000", "-g100", "-s11", "-t1742738615"]
REST = ["-c18446744073709551615", "-d1", "-F3"]
FACTS: Facts = {
    "host_pid": 4711,
    "pid": 9,
    "tid": 10,
    "uid": 1000,
    "gid": 100,
    "signal": 11,
    "crashed_at": 1742738615 * 10**9,
    "rlimit": 2**64 - 1,
    "dumpable": 1,
    "pidfd": 3,
    "hostname": "f5-tmm-0",
    "exe": "/usr/bin/tmm",
}
NAMES = ["-hf5-tmm-0", "--", "!usr!bin!tmm"]

arguments = st.binary(max_size=20).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
pieces = st.sampled_from(
    [*NUMBERS, "-h", "--", "--env", "-", "", "1", "-P1", "99999999999999999999999"]
)


def test_the_line_of_prepare_is_read_whole() -> None:
    assert read_words([*LINE, *REST, *NAMES]) == (FACTS, "")


def test_values_may_be_words_of_their_own() -> None:
    split = [part for word in [*LINE, *REST, NAMES[0]] for part in (word[:2], word[2:])]

    assert read_words([*split, *NAMES[1:]]) == (FACTS, "")


@pytest.mark.parametrize("place", range(len(LINE + REST)))
def test_each_value_may_be_missing_empty_or_garbage(place: int) -> None:
    words = [*LINE, *REST]
    option = words[place][:2]
    expected = {name: value for name, value in FACTS.items() if name != NUMBERS[option][0]}

    for wrong in ([], [option], [option, ""], [option + "x"], [option + "-1"], [option + "9" * 21]):
        found, _ = read_words([*words[:place], *wrong, *words[place + 1 :], *NAMES])

        assert found == expected


@pytest.mark.parametrize("host", ["--", "-P1", "-", "--env", "a b", "../../x", "\n", '"', "\udcff"])
def test_a_host_may_be_called_anything(host: str) -> None:
    attached, _ = read_words([*LINE, *REST, f"-h{host}", "--", "!usr!bin!tmm"])
    alone, env_file = read_words([*LINE, *REST, "-h", host, "--", "!usr!bin!tmm"])

    assert attached == alone == FACTS | {"hostname": host}
    assert env_file == ""


@pytest.mark.parametrize("words", [["-h"], ["-h!"], ["-h", ""], []])
def test_a_host_without_a_name_has_none(words: list[str]) -> None:
    found, _ = read_words([*LINE, *words, "--", "!usr!bin!tmm"])

    assert "hostname" not in found
    assert found["exe"] == "/usr/bin/tmm"


def test_names_that_an_old_kernel_splits_at_their_spaces_change_no_number() -> None:
    found, env_file = read_words(
        [*LINE, *REST, "-hx", "-P1", "-u0", "--env", "/evil", "--", "!a", "-P1", "--", "-u0"]
    )

    assert found == FACTS | {"hostname": "x", "exe": "/a -P1 -- -u0"}
    assert env_file == ""


@pytest.mark.parametrize("said", ["", "!", "bash (path unknown)", "-P1"])
def test_an_executable_that_has_no_path_is_left_out(said: str) -> None:
    assert "exe" not in read_words([*LINE, "--", said])[0]


@without_deadline
@given(words=st.lists(arguments | pieces, max_size=14))
def test_no_words_are_too_strange(words: list[str]) -> None:
    found, _ = read_words(words)

    message = intake.message_of(found)
    shown = json.loads(message.removeprefix(intake.GREETING))

    assert len(message) <= intake.MESSAGE_LIMIT
    assert b"\n" not in message
    for name, least, most in NUMBERS.values():
        scale = 10**9 if name == "crashed_at" else 1
        assert least * scale <= shown.get(name, least * scale) <= most * scale


def test_the_message_says_what_is_known_and_shows_what_is_no_utf_8() -> None:
    message = intake.message_of({"pid": 9, "hostname": "\udcff\n", "exe": "/é"})

    assert message.startswith(b"coremond/1 {")
    assert json.loads(message.removeprefix(b"coremond/1 ")) == {
        "pid": 9,
        "hostname": "\\xff\n",
        "exe": "/é",
    }


def test_a_path_that_makes_the_message_too_long_is_left_out() -> None:
    message = intake.message_of({"pid": 9, "exe": "/" + "x" * intake.MESSAGE_LIMIT})

    assert message == b'coremond/1 {"pid": 9}'


def test_the_defaults_are_those_of_corectl() -> None:
    settings = CorectlSettings()

    assert {
        "CRASHAGENT_APPORT_SOCKET": str(settings.apport_socket),
        "COREMON_CRASH_DIR": str(settings.crash_dir),
    } == intake.DEFAULTS


@pytest.mark.parametrize(
    "content", [b"", b"#COREMON_CRASH_DIR=/x\n", b"COREMON_CRASH_DIR=/x\nnonsense\n", b"\xff=/x"]
)
def test_a_file_of_settings_that_says_nothing_leaves_the_defaults(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)

    assert intake.read_settings(str(file)) == intake.DEFAULTS
    assert intake.read_settings(str(tmp_path / "none")) == intake.DEFAULTS


def test_the_environment_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COREMON_CRASH_DIR", "/of/the/caller")
    file = tmp_path / "env"
    file.write_text("  # a comment\nCRASHAGENT_APPORT_SOCKET='/a b'\nCOREMON_CRASH_DIR=\n")

    found = intake.read_settings(str(file))

    assert found == intake.DEFAULTS | {"CRASHAGENT_APPORT_SOCKET": "/a b"}


def test_an_env_file_is_named_before_anything_else() -> None:
    assert read_words(["--env", "/e", *LINE, *REST, *NAMES]) == (FACTS, "/e")
    assert read_words([*LINE, "--env", "/e"])[1] == ""
    assert read_words(["--env"]) == ({}, "")
