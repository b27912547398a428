import os
from pathlib import Path

import pytest

from common.errors import MessageError
from common.naming import RECORD_SUFFIX
from common.qkview_pb2 import ListCoresRequest
from services.qkview_collect.cores import (
    choose_records,
    find_record,
    is_id,
    summary_of,
    why_not_kept,
)
from tests.store import Store, crash

OLD, MIDDLE, NEW = (crash(crashed_at=10**18 + n) for n in range(3))
ALL = [OLD, MIDDLE, NEW]


def test_everything_is_listed_unless_something_is_asked_for() -> None:
    assert choose_records(ALL, ListCoresRequest()) == ALL


def test_a_limit_keeps_the_newest_in_their_order() -> None:
    assert choose_records(ALL, ListCoresRequest(limit=2)) == [MIDDLE, NEW]


def test_moments_are_bounds_that_belong_to_what_they_bound() -> None:
    since, until = MIDDLE.crashed_at, MIDDLE.crashed_at

    assert choose_records(ALL, ListCoresRequest(since=since)) == [MIDDLE, NEW]
    assert choose_records(ALL, ListCoresRequest(until=until)) == [OLD, MIDDLE]


def test_a_record_of_many_crashes_counts_until_its_last() -> None:
    many = crash(crashed_at=10**18, last_crashed_at=2 * 10**18, count=5)

    assert choose_records([many], ListCoresRequest(since=15 * 10**17)) == [many]


def test_process_and_pod_are_both_to_fit() -> None:
    here, there = crash(process="tmm", pod="a"), crash(process="tmm", pod="b")

    request = ListCoresRequest(process="tmm", pod="b")

    assert choose_records([here, there, crash(pod="b")], request) == [there]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0123456789a",
        "0123456789abc",
        "0123456789AB",
        "0123456789a\n",
        "../../etc/pa",
        "\u0660" * 12,
    ],
)
def test_what_is_no_id_is_told(text: str) -> None:
    assert not is_id(text)


def test_an_id_is() -> None:
    assert is_id("0123456789ab")


def test_a_record_is_found_by_its_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    wanted, _ = store.add(pid=1), store.add(pid=2)

    assert find_record(tmp_path, wanted.id) == wanted
    assert find_record(tmp_path, "0" * 12) is None
    assert find_record(tmp_path / "none", wanted.id) is None


def test_names_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/core.\xff.json")
    (tmp_path / "other.json").write_text("{}")
    wanted = Store(tmp_path).add()

    assert find_record(tmp_path, wanted.id) == wanted


def test_a_broken_record_is_an_error_and_not_an_absence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    broken = store.add()
    store.path(broken, RECORD_SUFFIX).write_text("{")

    with pytest.raises(MessageError):
        find_record(tmp_path, broken.id)


def test_a_summary_leaves_out_the_numbers_nobody_knows() -> None:
    summary = summary_of(crash(pid=7, uid=0, gid=None, signal=None))

    assert (summary.pid, summary.uid) == (7, 0)
    assert summary.HasField("uid")
    assert not summary.HasField("gid")
    assert not summary.HasField("signal")


def test_every_field_of_a_summary_is_a_fact_of_the_record() -> None:
    record = crash(node="n", namespace="s", size=5, packed=4, crc32="c", sha256="d", reason="r")

    summary = summary_of(record)

    for field in summary.DESCRIPTOR.fields:
        assert getattr(summary, field.name) == getattr(record, field.name), field.name


def test_why_a_core_is_not_there_is_said_in_words() -> None:
    assert why_not_kept(crash()) == ""
    assert why_not_kept(crash(state="held", reason="limit")) == "the core was never stored: limit"
    assert why_not_kept(crash(state="removed", reason="age")) == "the core was removed: age"
    assert why_not_kept(crash(state="removed")) == "the core was removed"
