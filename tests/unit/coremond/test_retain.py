from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.record import CrashRecord, Identity
from services.coremond import retain
from services.coremond.retain import Hold, Keep
from services.coremond.settings import Retention
from tests.store import crash
from tests.unit.factories import without_deadline

SECOND = 10**9
NOON = 1_742_731_200 * SECOND
INTERVAL = 300


def limits(max_files: int = 3, *, rotate: bool = False, interval: float = INTERVAL) -> Retention:
    return Retention(cores_max_files=max_files, retention_interval=interval, rotate=rotate)


class History:
    """The records of one process, as coremond would leave them."""

    def __init__(self, rules: Retention) -> None:
        self.rules = rules
        self.records: list[CrashRecord] = []

    def crash(self, seconds: float, pid: int = 9) -> Keep | Hold:
        """Let the process crash *seconds* after noon, and do what is decided."""
        at = NOON + int(seconds * SECOND)
        now = NOON + 10**6 * SECOND + len(self.records)
        decision = retain.decide(self.records, at, self.rules)
        if isinstance(decision, Hold):
            self.records.append(crash(crashed_at=at, pid=pid, state="held", detected_at=now))
            return decision
        for old in retain.choose_replaced(self.records, self.rules):
            self.remove(old)
        self.records.append(
            crash(crashed_at=at, pid=pid, window=decision.window, detected_at=now, stored_at=now)
        )
        return decision

    def remove(self, old: CrashRecord) -> None:
        place = self.records.index(old)
        self.records[place] = replace(old, state="removed")

    def kept(self) -> list[int]:
        """Give the seconds after noon of the cores that are there."""
        return [(r.crashed_at - NOON) // SECOND for r in self.records if r.state == "stored"]


def test_without_a_limit_every_core_is_kept() -> None:
    history = History(limits(0))

    for second in range(20):
        assert history.crash(second) == Keep()


@pytest.mark.parametrize("max_files", [1, 3])
@pytest.mark.parametrize("rotate", [True, False])
def test_so_many_cores_are_kept_before_the_limit_is_reached(max_files: int, rotate: bool) -> None:
    history = History(limits(max_files, rotate=rotate))

    for second in range(10):
        history.crash(second)

    assert history.kept() == list(range(max_files))


def test_once_the_limit_is_reached_it_holds_for_the_interval_from_the_core_that_reached_it() -> (
    None
):
    history = History(limits(3))
    for second in (0, 100, 200):
        history.crash(second)

    held = history.crash(200 + INTERVAL - 0.001)
    kept = history.crash(200 + INTERVAL)

    assert isinstance(held, Hold)
    assert held.until == NOON + (200 + INTERVAL) * SECOND
    assert isinstance(kept, Keep)


def test_held_crashes_do_not_prolong_the_hold() -> None:
    history = History(limits(1))
    history.crash(0)

    decisions = [history.crash(second) for second in range(1, INTERVAL + 1)]

    assert [isinstance(decision, Hold) for decision in decisions] == [True] * (INTERVAL - 1) + [
        False
    ]


def test_with_rotation_each_new_core_replaces_the_oldest() -> None:
    history = History(limits(3, rotate=True))
    for second in (0, 1, 2):
        history.crash(second)

    kept = []
    for second in (1000, 1001, 1002):
        assert isinstance(history.crash(second), Keep)
        kept.append(history.kept())

    assert kept == [[1, 2, 1000], [2, 1000, 1001], [1000, 1001, 1002]]


def test_without_rotation_a_new_window_is_added() -> None:
    history = History(limits(3))

    for second in (0, 1, 2, 3, 1000, 1001, 1002, 1003, 2000):
        history.crash(second)

    assert history.kept() == [0, 1, 2, 1000, 1001, 1002, 2000]


def test_an_open_window_waits_as_long_as_it_takes() -> None:
    history = History(limits(3))

    for second in (0, 5000, 10000, 10001):
        history.crash(second)

    assert history.kept() == [0, 5000, 10000]


def test_cores_count_by_their_place_in_the_window() -> None:
    history = History(limits(2))

    decisions = [history.crash(second) for second in (0, 1, 1000, 1001, 2000)]

    assert [d.window for d in decisions if isinstance(d, Keep)] == [1, 2, 1, 2, 1]


def test_a_core_that_is_gone_does_not_end_a_hold() -> None:
    history = History(limits(2))
    history.crash(0)
    history.crash(1)

    for old in list(history.records):
        history.remove(old)

    assert isinstance(history.crash(2), Hold)


def test_a_core_that_is_gone_from_an_open_window_leaves_its_place_to_another() -> None:
    history = History(limits(3))
    history.crash(0)
    history.crash(1)
    history.remove(history.records[0])

    history.crash(2)
    history.crash(3)
    history.crash(4)

    assert history.kept() == [1, 2, 3]


def test_a_limit_that_was_lowered_holds_at_once_and_rotates_down() -> None:
    history = History(limits(3, rotate=True))
    for second in (0, 1, 2):
        history.crash(second)
    history.rules = limits(1, rotate=True)

    assert isinstance(history.crash(3), Hold)
    history.crash(1000)

    assert history.kept() == [1000]


def test_a_limit_that_was_set_later_counts_from_the_last_core() -> None:
    history = History(limits(0))
    for second in range(5):
        history.crash(second)
    history.rules = limits(3)

    for second in range(5, 10):
        history.crash(second)

    assert history.kept() == [0, 1, 2, 3, 4, 5, 6]


def test_an_interval_of_nothing_holds_nothing() -> None:
    history = History(limits(1, interval=0))

    for second in range(3):
        history.crash(second)

    assert history.kept() == [0, 1, 2]


crashes = st.lists(st.integers(0, 2000), unique=True, max_size=15)
rules = st.builds(limits, st.integers(1, 4), rotate=st.booleans())


@without_deadline
@given(rules, crashes, st.randoms())
def test_the_answer_is_the_same_in_whatever_order_the_records_are_read(
    rule: Retention, seconds: list[int], random: Random
) -> None:
    history = History(rule)
    for second in sorted(seconds):
        history.crash(second)
    shuffled = history.records[:]
    random.shuffle(shuffled)

    at = NOON + 2000 * SECOND

    assert retain.decide(shuffled, at, rule) == retain.decide(history.records, at, rule)


@without_deadline
@given(rules, st.lists(st.integers(0, INTERVAL - 1), unique=True, max_size=15))
def test_within_one_interval_no_more_than_the_limit_are_kept_in_whatever_order_they_come(
    rule: Retention, seconds: list[int]
) -> None:
    history = History(rule)

    for second in seconds:
        history.crash(second)

    assert len(history.kept()) <= rule.cores_max_files


def test_crashes_of_one_second_do_not_escape_the_limit_by_their_pids() -> None:
    history = History(limits(3))

    for pid in range(9998, 10008):
        history.crash(0, pid=pid)

    assert len(history.kept()) == 3


@without_deadline
@given(rules, crashes)
def test_with_rotation_there_are_never_more_than_the_limit(
    rule: Retention, seconds: list[int]
) -> None:
    history = History(replace(rule, rotate=True))

    for second in seconds:
        history.crash(second)
        assert len(history.kept()) <= rule.cores_max_files


def sized(process: str, at: int, size: int = 10, **facts: Any) -> CrashRecord:
    return crash(process=process, crashed_at=NOON + at, packed=size, stored_at=NOON + at, **facts)


EACH = sized("a", 0).occupied


def test_nothing_goes_while_there_is_room() -> None:
    assert retain.choose_for_room([sized("tmm", 1)], None, 0) == []


def test_a_crash_loop_gives_up_its_own_cores_first() -> None:
    quiet, loop = sized("bgpd", 0), [sized("tmm", n) for n in (1, 2, 3)]

    assert retain.choose_for_room([quiet, *loop], None, 2 * EACH) == loop[:2]


def test_a_newcomer_counts_for_its_process() -> None:
    quiet, loud = sized("bgpd", 0), sized("tmm", 1)

    assert retain.choose_for_room([quiet, loud], sized("tmm", 2), 10) == [loud]


def test_of_equals_the_oldest_goes() -> None:
    cores = [sized("a", 3), sized("b", 1), sized("c", 2)]

    assert retain.choose_for_room(cores, None, EACH + 1) == [cores[1], cores[2]]


def test_the_end_of_a_log_takes_room_as_a_core_does() -> None:
    cores = [replace(sized("a", 1), log_size=8192), sized("b", 2)]

    assert retain.choose_for_room(cores, None, EACH + 8192) == [cores[0]]
    assert retain.choose_for_room(cores, None, 2 * EACH + 8193) is None


def test_who_renames_his_process_or_his_pod_pushes_out_nobody() -> None:
    quiet = [sized("ledger", 0, workload="bank-ledger"), sized("db", 1, namespace="bank")]
    renaming = [sized(f"a{n}", 10 + n, workload="evil") for n in range(4)]
    guess = Identity(by="guess")
    posing = [sized("x", 20 + n, workload=f"w{n}", identity=guess) for n in range(4)]
    cores = [*quiet, *renaming, *posing]

    removed = retain.choose_for_room(cores, None, 6 * EACH)

    assert removed == [
        *(renaming[0], posing[0], renaming[1], posing[1], renaming[2], posing[2]),
    ]


def test_of_a_workload_the_process_that_has_most_gives_first() -> None:
    single, several = sized("a", 0), [sized("b", n) for n in (1, 2)]

    assert retain.choose_for_room([single, *several], None, EACH) == several[:1]


def test_the_names_that_were_seen_first_are_told_apart_and_all_others_are_one() -> None:
    in_a_pod = {"namespace": "shop", "detected_at": 0}
    cores = [
        crash(**{**in_a_pod, "process": f"a{n}", "detected_at": n})
        for n in range(retain.MOST_NAMES + 2)
    ]
    new = crash(process="never seen", **in_a_pod)
    told = retain.tell_apart(reversed(cores))

    assert told.of(cores[0]) == cores[:1]
    assert told.of(cores[-1]) == told.of(new) == cores[-2:]
    assert retain.tell_apart(cores[:3]).of(new) == []


def test_on_a_host_as_many_programs_are_told_apart_as_crash_there() -> None:
    cores = [crash(process=f"a{n}", detected_at=n) for n in range(100)]

    assert retain.tell_apart(cores).of(crash(process="dockerd")) == []
    assert retain.tell_apart(cores).of(cores[70]) == [cores[70]]


def test_a_loop_of_one_process_gives_before_a_workload_of_many() -> None:
    quiet = [sized(f"daemon{n}", n) for n in range(6)]
    loop = [sized("java", 10 + n, namespace="shop", workload="web") for n in range(4)]

    assert retain.choose_for_room([*quiet, *loop], None, 3 * EACH) == loop[:3]


def test_names_beyond_those_that_are_told_apart_give_as_one_process() -> None:
    quiet = [sized("ledger", 0, namespace="bank", name="a"), sized("ledger", 1, name="b")]
    renaming = [
        sized(f"a{n}", 9 + n, namespace="evil", detected_at=n, name=f"x{n:03}")
        for n in range(retain.MOST_NAMES + 5)
    ]

    removed = retain.choose_for_room([*quiet, *renaming], None, 5 * EACH)

    assert removed == [*renaming[-5:-1], renaming[0]]


def test_what_cannot_be_made_room_for_costs_nobody_anything() -> None:
    assert retain.choose_for_room([sized("tmm", 1)], sized("bgpd", 2), EACH + 1) is None
    assert retain.choose_for_room([], sized("bgpd", 2), 1) is None


@without_deadline
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99), st.integers(1, 50)), max_size=9),
    st.integers(0, 10 * EACH),
)
def test_room_is_made_by_those_who_have_most_and_no_more_than_needed(
    cores: list[tuple[str, int, int]], needed: int
) -> None:
    stored = [
        replace(sized(process, at, size), name=f"core.{number}")
        for number, (process, at, size) in enumerate(cores)
    ]

    removed = retain.choose_for_room(stored, None, needed)

    if removed is None:
        assert sum(record.occupied for record in stored) < needed
        return
    assert sum(record.occupied for record in removed) >= needed
    assert sum(record.occupied for record in removed[:-1]) < needed or not removed
    left = Counter(record.process for record in stored)
    for record in removed:
        assert left[record.process] == max(left.values())
        left[record.process] -= 1


def test_cores_older_than_the_retention_expire() -> None:
    old = crash(stored_at=NOON - 61 * SECOND)
    young = crash(stored_at=NOON - 60 * SECOND)
    held = crash(stored_at=NOON - 99 * SECOND, state="held")
    gone = crash(stored_at=NOON - 99 * SECOND, state="removed")

    assert retain.choose_expired([old, young, held, gone], NOON, 60) == [old]


def test_a_retention_of_nothing_expires_nothing() -> None:
    assert retain.choose_expired([crash(stored_at=1)], NOON, 0) == []
    assert retain.choose_forgotten([crash(state="held", crashed_at=1)], NOON, 0) == []


def test_records_without_a_core_are_forgotten_after_their_last_news() -> None:
    long_ago, lately = NOON - 61 * SECOND, NOON - 59 * SECOND
    old = crash(state="held", crashed_at=long_ago)
    counted = crash(state="held", crashed_at=long_ago, last_crashed_at=lately)
    removed = crash(state="removed", crashed_at=long_ago, removed_at=lately)
    stored = crash(state="stored", crashed_at=long_ago)

    assert retain.choose_forgotten([old, counted, removed, stored], NOON, 60) == [old]


def test_of_too_many_records_those_of_who_has_most_go_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retain, "MOST_RECORDS", 3)
    quiet = crash(state="held", workload="quiet", crashed_at=NOON)
    loud = [crash(state="removed", workload="loud", crashed_at=NOON + n) for n in range(1, 5)]
    stored = [crash(crashed_at=NOON + n) for n in range(9)]

    forgotten = retain.choose_forgotten([quiet, *loud, *stored], NOON + 9, 0)

    assert forgotten == loud[:2]
