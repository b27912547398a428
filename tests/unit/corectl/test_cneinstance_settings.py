"""What is taken in a CNEInstance is what the programs take, and nothing else."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from services.corectl.cneinstance_settings import OVERRIDE, READERS, problem_of
from services.corectl.settings import CorectlSettings
from services.coremond.settings import CoremondSettings
from services.crashagent.settings import CrashagentSettings

LOADERS: tuple[Callable[[Mapping[str, str]], object], ...] = (
    CoremondSettings.from_env,
    CrashagentSettings.from_env,
    CorectlSettings.from_env,
)
VALUES = [
    *("", "0", "1", "7", "19", "20", "256", "257", "-1", "1.5", " 1", "1e3", "100%", "101%", "5%"),
    *("0s", "10s", "5m", "1h30m", "2d", "10 minutes", "400y", "1G", "1GiB", "1X", "32 G"),
    *("true", "TRUE", "t", "false", "yes", "off", "auto", "idle", "none", "best-effort:7"),
    *("best-effort:8", "gzip", "zstd", "lz4", "raw", "bzip2", "a,b", "a,,b", ","),
    *("/a", "a", "./a", "/" + "a" * 107, "/a\udcff", "a\0b", "/a\0"),
    *("core.%e", "%e", "%e%h", "%p", "%p-%e.core", "%", "%x", "%%", "%%e", "%e%%", "|x", "@x"),
    *("x" * 127, "x" * 128),
]


def problems(name: str, value: str) -> list[str]:
    """Give what the programs say of the setting."""
    found = []
    for load in LOADERS:
        try:
            load({name: value})
        except ConfigError as error:
            found += [one for one in error.problems if one not in found]
    return found


@pytest.mark.parametrize("name", sorted(READERS))
def test_each_value_is_judged_as_the_programs_judge_it(name: str) -> None:
    told = {value: problem_of(name, value) for value in VALUES if value or name != OVERRIDE}

    assert {value: bool(problem) for value, problem in told.items()} == {
        value: bool(problems(name, value)) for value in told
    }


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_mistake_is_told_in_the_programs_own_words(name: str) -> None:
    for value in VALUES:
        problem, theirs = problem_of(name, value), problems(name, value)
        if problem and theirs and "expected more than 0" not in problem:
            assert problem in theirs


@given(st.text("%efEhpPtx./|@a\0é", max_size=6) | st.text(max_size=140))
def test_a_pattern_of_files_is_judged_as_coremond_judges_it(value: str) -> None:
    name = "COREMON_SOURCE_PATTERN"

    assert bool(problem_of(name, value)) == bool(problems(name, value))
