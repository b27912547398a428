import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import levels
from common.levels import LEVELS, LevelsFile, parse
from tests.unit.factories import events_said, without_deadline


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_has_the_level_that_stands_at_its_name(level: str) -> None:
    text = f"default: info\ncoremond: {level}\n"

    assert parse(text, "coremond") == LEVELS[level]


@pytest.mark.parametrize("text", ["default: error", "default: error\ncrashagent: debug"])
def test_a_program_without_a_level_has_the_default(text: str) -> None:
    assert parse(text, "coremond") == logging.ERROR


@pytest.mark.parametrize("text", ["", "# nothing\n", "crashagent: debug\n", "---\n"])
def test_without_a_default_the_level_is_info(text: str) -> None:
    assert parse(text, "coremond") == logging.INFO


@pytest.mark.parametrize(
    "text",
    ["- info", "info", "default: loud", "default: 10", "coremond:", "a: [", "\0", "x: INFO"],
)
def test_a_broken_file_is_a_value_error_that_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text, "coremond")


@pytest.mark.parametrize("text", ["[" * 9999, "{a: " * 5000, "? " * 9999])
def test_a_file_that_is_nested_without_end_is_broken_too(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text, "coremond")


@without_deadline
@given(st.text() | st.text(":-[]{}&*!|>'\"%@` \n#?,default info", max_size=30))
def test_any_text_is_a_level_or_a_value_error(text: str) -> None:
    try:
        level = parse(text, "coremond")
    except ValueError:
        return

    assert level in LEVELS.values()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Give a function that waits until something is so; the test's time limit is its own."""
    tick = threading.Event()

    def wait(holds: Callable[[], bool]) -> None:
        while not holds():
            tick.wait(0.002)

    return wait


Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], LevelsFile]]:
    """Give a function that starts to watch, so often that a test need not wait."""
    monkeypatch.setattr(levels, "_PERIOD", 0.002)
    monkeypatch.setattr(levels, "_FIRST_LOOK", 0.001)
    root, before = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.INFO)
    started: list[LevelsFile] = []

    def start() -> LevelsFile:
        started.append(LevelsFile(tmp_path / "levels.yaml", "coremond"))
        started[-1].start()
        return started[-1]

    yield start
    for file in started:
        file.stop()
    root.setLevel(before)


def level_is(level: int) -> Callable[[], bool]:
    return lambda: logging.getLogger().level == level


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in events_said(caplog) if text.startswith("failed to read levels file")]


def test_the_level_is_that_of_the_file_at_once(
    tmp_path: Path, watching: Callable[[], LevelsFile]
) -> None:
    (tmp_path / "levels.yaml").write_text("default: warning")

    watching()

    assert logging.getLogger().level == logging.WARNING


def test_a_file_that_is_written_again_is_read_again(
    tmp_path: Path, watching: Callable[[], LevelsFile], until: Until
) -> None:
    path = tmp_path / "levels.yaml"
    path.write_text("default: warning")
    watching()

    path.write_text("default: debug")

    until(level_is(logging.DEBUG))


def test_a_file_that_is_renamed_over_it_is_read(
    tmp_path: Path, watching: Callable[[], LevelsFile], until: Until
) -> None:
    (tmp_path / "levels.yaml").write_text("default: debug")
    (tmp_path / "new").write_text("default: error")
    watching()

    (tmp_path / "new").rename(tmp_path / "levels.yaml")

    until(level_is(logging.ERROR))


def test_a_config_map_is_read_again_when_its_link_is_swapped(
    tmp_path: Path, watching: Callable[[], LevelsFile], until: Until
) -> None:
    for version, level in (("..1", "debug"), ("..2", "error")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "levels.yaml").write_text(f"default: {level}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "levels.yaml").symlink_to("..data/levels.yaml")
    watching()
    until(level_is(logging.DEBUG))

    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    until(level_is(logging.ERROR))


def test_a_file_that_appears_later_is_read(
    tmp_path: Path, watching: Callable[[], LevelsFile], until: Until
) -> None:
    watching()

    (tmp_path / "levels.yaml").write_text("default: error")

    until(level_is(logging.ERROR))


def test_a_broken_file_is_one_line_and_the_last_good_level_stays(
    tmp_path: Path,
    watching: Callable[[], LevelsFile],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "levels.yaml"
    path.write_text("default: warning")
    watching()

    (tmp_path / "broken").write_text("default: loud")
    (tmp_path / "broken").rename(path)
    until(lambda: len(complaints(caplog)) > 0)
    (tmp_path / "good").write_text("default: error")
    (tmp_path / "good").rename(path)
    until(level_is(logging.ERROR))

    [complaint] = complaints(caplog)
    assert "default: expected one of debug, info, warning, error, critical" in complaint


def test_a_broken_file_does_not_change_the_level(
    tmp_path: Path, watching: Callable[[], LevelsFile], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "levels.yaml").write_text("default: [")

    watching()

    assert len(complaints(caplog)) == 1
    assert logging.getLogger().level == logging.INFO


def test_a_file_that_goes_missing_is_one_line_and_the_last_good_level_stays(
    tmp_path: Path,
    watching: Callable[[], LevelsFile],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "levels.yaml"
    path.write_text("default: warning")
    watching()

    path.unlink()
    until(lambda: len(complaints(caplog)) > 0)

    assert logging.getLogger().level == logging.WARNING
    path.write_text("default: error")
    until(level_is(logging.ERROR))
    assert complaints(caplog) == [
        f"failed to read levels file {path}: open {path}: no such file or directory"
    ]


def test_a_missing_file_is_not_complained_of_where_it_is_not_to_be(
    tmp_path: Path, watching: Callable[[], LevelsFile], caplog: pytest.LogCaptureFixture
) -> None:
    quiet = LevelsFile(tmp_path / "levels.yaml", "crashagent", missing_is_said=False)

    quiet.start()
    quiet.stop()

    assert events_said(caplog) == []


def test_a_directory_in_the_files_place_is_one_line(
    tmp_path: Path, watching: Callable[[], LevelsFile], caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(tmp_path / "levels.yaml")

    watching()

    [complaint] = complaints(caplog)
    assert complaint.endswith("is a directory")


def test_stopping_ends_the_thread(watching: Callable[[], LevelsFile]) -> None:
    watching().stop()

    assert "levels" not in [thread.name for thread in threading.enumerate()]
