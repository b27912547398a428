from typing import Any

import pytest

from services.corectl.status import _state
from services.corectl.supervised import Program


def info(**facts: Any) -> dict[str, Any]:
    """Give what supervisord says of a program that has just been started for the first time."""
    first = {"name": "a", "statename": "STARTING", "pid": 7, "now": 9, "start": 8, "stop": 0}
    return {**first, "spawnerr": "", **facts}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, ""),
        ({"statename": "RUNNING", "stop": 3}, ""),
        ({"stop": 3}, "STARTING"),
        ({"statename": "BACKOFF", "pid": 0, "stop": 3}, "BACKOFF"),
        ({"name": "b"}, "not there"),
    ],
)
def test_a_program_that_ended_before_may_not_be_the_one_that_answers(
    facts: dict[str, Any], state: str
) -> None:
    assert _state([Program.of(info(**facts))], "a") == state


def test_without_supervisord_nothing_is_said_of_whose_an_answer_is() -> None:
    assert _state(None, "a") == ""
