from itertools import count

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import CorruptError
from common.packing import codec
from common.packing.codec import BLOCK, MOST_PACKED, Unit, Units, gathered
from tests.unit.factories import without_deadline

packed_sizes = st.integers(0, MOST_PACKED)
full = st.lists(st.tuples(packed_sizes, st.just(BLOCK)), max_size=20)
last = st.lists(st.tuples(packed_sizes, st.integers(1, BLOCK)), max_size=1)
pairs = st.builds(lambda units, end: units + end, full, last)


def units_of(sizes: list[tuple[int, int]]) -> Units:
    units = Units()
    for packed, size in sizes:
        units.add(packed, size)
    return units


@without_deadline
@given(pairs)
def test_units_stand_one_behind_the_other(sizes: list[tuple[int, int]]) -> None:
    units = units_of(sizes)

    found = list(units)

    assert [(unit.packed, unit.size) for unit in found] == sizes
    assert [unit.place for unit in found] == [
        sum(p for p, _ in sizes[:n]) for n in range(len(found))
    ]
    assert [unit.start for unit in found] == [
        sum(s for _, s in sizes[:n]) for n in range(len(found))
    ]
    assert (units.end, units.size) == (sum(p for p, _ in sizes), sum(s for _, s in sizes))
    assert len(units) == len(sizes)


@without_deadline
@given(pairs, st.data())
def test_the_unit_at_a_place_holds_that_place(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    units = units_of(sizes)
    assume(units.size)

    offset = data.draw(st.integers(0, units.size - 1))
    unit = units.at(offset)

    assert unit.start <= offset < unit.start + unit.size
    assert unit in list(units)


@without_deadline
@given(pairs, st.integers(0, 25))
def test_only_the_first_are_kept(sizes: list[tuple[int, int]], number: int) -> None:
    units = units_of(sizes)

    units.keep(number)

    assert list(units) == list(units_of(sizes[:number]))
    assert units.size == sum(size for _, size in sizes[:number])


@pytest.mark.parametrize(
    "sizes",
    [
        [(9, 1), (9, 1)],
        [(9, BLOCK - 1), (9, BLOCK)],
        [(9, BLOCK), (9, 0)],
        [(9, 0), (9, BLOCK)],
        [(9, 0), (9, 0)],
        [(9, BLOCK + 1)],
        [(MOST_PACKED + 1, BLOCK)],
        [(2**40, BLOCK)],
        [(9, 2**63)],
    ],
)
def test_units_as_we_do_not_make_them_are_none_of_ours(sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(CorruptError, match="at byte"):
        units_of(sizes)


@pytest.mark.parametrize("times", [0, 1, 64])
def test_many_alike_are_added_at_once(times: int) -> None:
    units = units_of([(3, BLOCK)])

    units.add(5, BLOCK, times)

    assert list(units)[1:] == [Unit(3 + 5 * n, 5, (n + 1) * BLOCK, BLOCK) for n in range(times)]


def test_more_units_than_a_core_may_have_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_UNITS", 1000)

    assert len(gathered((28, BLOCK) for _ in range(1000))) == 1000
    with pytest.raises(CorruptError, match=f"more than 1000 units, up to byte {28 * 1001}"):
        gathered((28, BLOCK) for _ in count())
