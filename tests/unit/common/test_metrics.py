import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given

from common.metrics import LABEL_LIMIT, OTHER, Family, Registry, tame
from tests.unit.factories import hostile_texts


def values(family: Family) -> dict[tuple[str, ...], float]:
    return {(*sample.labels.values(), sample.suffix): sample.value for sample in family.samples}


def test_a_counter_without_labels_is_there_before_it_counts() -> None:
    registry = Registry()
    registry.counter("stored_total", "Cores.")

    [family] = registry.families()

    assert (family.name, family.kind, family.help) == ("coremond_stored_total", "counter", "Cores.")
    assert values(family) == {("",): 0}


def test_known_series_are_there_before_they_count_and_others_as_they_come() -> None:
    registry = Registry()
    counter = registry.counter("held_total", "Cores.", ("reason",), known=[("limit",)])
    counter.add("denied", amount=3)
    counter.add("denied")

    [family] = registry.families()

    assert values(family) == {("limit", ""): 0, ("denied", ""): 4}


def test_beyond_its_bound_an_instrument_counts_all_others_together() -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "x", ("namespace", "workload"), most=3)

    for number in range(1000):
        counter.add("default", f"web-{number}")
    counter.add("default", "web-1")

    found = values(registry.families()[0])
    assert found[OTHER, OTHER, ""] == 997
    assert found["default", "web-1", ""] == 2
    assert len(found) == 4


def test_with_a_bound_of_none_all_are_counted_together() -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "x", ("name",), most=0, other=("rest",))
    counter.add("a")
    counter.add("b")

    assert values(registry.families()[0]) == {("rest", ""): 2}


def test_who_calls_himself_as_all_others_takes_no_place_of_theirs() -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "x", ("name",), most=1)
    for name in (OTHER, "a", "b"):
        counter.add(name)

    assert values(registry.families()[0]) == {(OTHER, ""): 2, ("a", ""): 1}


@given(hostile_texts)
def test_a_hostile_value_becomes_a_short_printable_one(text: str) -> None:
    shown = tame(text)

    assert shown.isprintable()
    assert len(shown) <= LABEL_LIMIT
    shown.encode()


def test_an_ordinary_value_stays_as_it_is() -> None:
    assert tame('café "x" \\y') == 'café "x" \\y'


def test_a_histogram_counts_how_many_are_at_most_each_bound() -> None:
    registry = Registry()
    histogram = registry.histogram("wait_seconds", "x", ("phase",), bounds=(0.5, 1, 10))
    for seconds in (0.2, 1.0, 3.0, 99.0, math.nan):
        histogram.observe(seconds, "wait")

    [family] = registry.families()

    found = {
        sample.labels.get("le", sample.suffix): sample.value
        for sample in family.samples
        if sample.labels["phase"] == "wait"
    }
    assert found == {"0.5": 1, "1": 2, "10": 3, "+Inf": 4, "_sum": 103.2, "_count": 4}


def test_what_is_looked_at_is_seen_as_it_is_when_it_is_read() -> None:
    registry, level = Registry(), [1.0]
    gauge = registry.gauge("queue", "x")
    registry.before_reading(lambda: gauge.set(level[0]))
    registry.families()
    level[0] = 7

    assert values(registry.families()[0]) == {("",): 7}


def test_a_gauge_that_nobody_knows_is_not_there() -> None:
    registry = Registry()
    registry.gauge("free_bytes", "x").forget()

    assert registry.families()[0].samples == ()


@pytest.mark.parametrize("threads", [8])
def test_nothing_is_lost_where_many_threads_count(threads: int) -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "x", ("name",))

    def count(_: int) -> None:
        for number in range(2000):
            counter.add(f"{number % 5}")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(threads)))

    assert sum(values(registry.families()[0]).values()) == threads * 2000
