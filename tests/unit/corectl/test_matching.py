import pytest

from common.record import CrashRecord
from services.corectl.matching import AmbiguousError, Selection, choose
from tests.store import crash

FIRST = crash(pid=1, host_pid=101, comm="tmm", process="tmm.0", exe="/usr/bin/tmm", crashed_at=10)
SECOND = crash(pid=2, host_pid=102, crashed_at=20)
THIRD = crash(pid=3, host_pid=103, comm="dead", process="dead", crashed_at=30)
ALL = [FIRST, SECOND, THIRD]


def chosen(*matches: str, records: list[CrashRecord] = ALL) -> list[CrashRecord]:
    return choose(records, Selection(matches=matches))


def test_nothing_said_means_all() -> None:
    assert choose(ALL, Selection()) == ALL


@pytest.mark.parametrize(
    "text",
    ["1", "101", "tmm", "tmm.0", "/usr/bin/tmm", "/usr/bin/../bin/tmm", FIRST.id, FIRST.id[:4]],
)
def test_a_crash_goes_by_pid_name_executable_and_id(text: str) -> None:
    assert chosen(text) == [FIRST]


@pytest.mark.parametrize("suffix", ["", ".gz", ".gz.crc", ".json"])
def test_a_crash_goes_by_each_of_its_files_wherever_they_are(suffix: str) -> None:
    assert chosen(FIRST.name + suffix) == [FIRST]
    assert chosen(f"/var/cores/n/{FIRST.name}{suffix}") == [FIRST]


def test_several_words_are_alternatives_in_the_order_of_the_records() -> None:
    assert chosen("3", "tmm") == [FIRST, THIRD]


def test_a_word_that_nothing_has_means_none() -> None:
    assert chosen("nothing") == []
    assert chosen("/usr/bin/nothing") == []
    assert chosen("core.nothing.gz") == []


def test_a_process_may_be_called_like_the_start_of_an_id() -> None:
    other = crash(pid=4, id="dead00000000")

    assert chosen("dead", records=[THIRD, other]) == [THIRD]


def test_the_start_of_two_ids_is_refused_with_words() -> None:
    twins = [crash(pid=5, id="beef00000000"), crash(pid=6, id="beef00000001")]

    with pytest.raises(AmbiguousError, match="beef is the start of 2 ids"):
        chosen("beef", records=twins)
    assert chosen("beef00000001", records=twins) == [twins[1]]


def test_three_digits_are_too_few_for_an_id() -> None:
    assert chosen("bee", records=[crash(id="beef00000000")]) == []


def test_a_number_keeps_the_newest() -> None:
    assert choose(ALL, Selection(number=2)) == [SECOND, THIRD]


def test_moments_are_bounds_that_belong_to_what_they_bound() -> None:
    assert choose(ALL, Selection(since=20)) == [SECOND, THIRD]
    assert choose(ALL, Selection(until=20)) == [FIRST, SECOND]


def test_a_record_of_many_crashes_counts_until_its_last() -> None:
    many = crash(crashed_at=10, last_crashed_at=50, count=9)

    assert choose([many], Selection(since=40)) == [many]


def test_a_crash_goes_by_its_pod_and_its_namespace() -> None:
    here = crash(namespace="shop", pod="web-0", process="here")
    there = crash(namespace="twin", pod="web-0", process="there")
    records = [here, there]

    assert chosen("web-0", records=records) == records
    assert chosen("shop/web-0", records=records) == [here]
    assert chosen("twin/", records=records) == [there]
