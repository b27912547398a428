import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.settings import (
    SOCKET_PATH_LIMIT,
    EnvReader,
    Floor,
    address,
    boolean,
    count,
    directory_name,
    duration,
    floor,
    path,
    positive,
    size,
    socket_path,
)
from tests.unit.factories import without_deadline

GO_DURATION = re.compile(r"0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h|d))+")
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}

parts = st.tuples(st.integers(0, 999), st.sampled_from([*UNITS, "µs", "μs", "d"]))
garbage = st.text() | st.text("0123456789.,+-smhdnuµμKMGTiB% e_", max_size=12)


def go_format(nanoseconds: int) -> str:
    """Write a duration as Go's Duration.String does."""
    if nanoseconds == 0:
        return "0s"
    for unit, length in (("ns", 1000), ("µs", 10**6), ("ms", 10**9)):
        if nanoseconds < length:
            return f"{nanoseconds / (length // 1000):.15g}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


@given(st.integers(0, 2**62))
def test_a_duration_that_go_writes_is_read_as_what_it_was(nanoseconds: int) -> None:
    text = go_format(nanoseconds)

    assert math.isclose(duration(text), nanoseconds / 10**9, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        (".5m", 30),
        ("1.s", 1),
        ("100us", 1e-4),
        ("100\u00b5s", 1e-4),
        ("100\u03bcs", 1e-4),
    ],
)
def test_durations_are_those_of_go_and_days(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@without_deadline
@given(garbage | st.lists(parts).map(lambda found: "".join(f"{n}{unit}" for n, unit in found)))
def test_a_duration_is_taken_exactly_where_go_takes_it(text: str) -> None:
    try:
        seconds = duration(text)
    except ValueError:
        seconds = None

    assert (seconds is not None) == bool(GO_DURATION.fullmatch(text))


@pytest.mark.parametrize("text", ["", "5", "m", ".", ".s", "5 m", "5m ", "-5m", "+5m", "5M", "00"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["9" * 400 + "s", "9" * 400 + "ns", "300000000h"])
def test_a_duration_that_go_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@given(st.integers(0, 2**60), st.sampled_from(["", "K", "M", "G", "T"]), st.data())
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(["", "B", "iB"])) if unit else ""

    assert size(f"{number}{unit}{ending}") == number * 1024 ** "_KMGT".index(unit or "_")


@without_deadline
@given(garbage)
def test_a_size_is_a_number_or_a_mistake(text: str) -> None:
    try:
        found = size(text)
    except ValueError:
        return

    assert found >= 0
    assert re.fullmatch(r"[0-9]+([KMGT](i?B)?)?", text)


@pytest.mark.parametrize(
    "text", ["", "1k", "1 G", "-1", "1.5G", "B", "1iB", "1G\n", "\u0661", "1P"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "on_a_disk_of_1000"),
    [("0", 0), ("15%", 150), ("0.5%", 5), ("100%", 1000), ("1K", 1024)],
)
def test_a_floor_is_so_many_bytes_or_a_part_of_the_disk(text: str, on_a_disk_of_1000: int) -> None:
    assert floor(text).of(1000) == on_a_disk_of_1000


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "1e1%", "15 %", "15%%", "9" * 400 + "%"])
def test_what_is_no_floor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 2G, or a percentage"):
        floor(text)


@given(st.floats(0, 100).map(lambda n: f"{n:.3f}%"), st.integers(0, 2**63))
def test_a_part_of_a_disk_is_never_more_than_the_disk(text: str, disk: int) -> None:
    assert 0 <= floor(text).of(disk) <= disk


def test_no_floor_is_nothing() -> None:
    assert Floor().of(10**12) == 0


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_what_go_takes_for_true_is_true(text: str) -> None:
    assert boolean(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_what_go_takes_for_false_is_false(text: str) -> None:
    assert boolean(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "2", " true", "true\n"])
def test_anything_else_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="expected true or false"):
        boolean(text)


@without_deadline
@given(garbage)
def test_whole_numbers_are_ascii_digits(text: str) -> None:
    try:
        found = count(text)
    except ValueError:
        return

    assert re.fullmatch("[0-9]+", text)
    assert found == int(text)


@pytest.mark.parametrize("text", ["0", "00", "-1", "x", ""])
def test_a_number_that_must_be_positive_is(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        positive(text)


@pytest.mark.parametrize("text", ["", "relative", "./x", "/a\0b"])
def test_a_path_is_absolute(text: str) -> None:
    with pytest.raises(ValueError, match="expected an absolute path"):
        path(text)


def test_the_path_of_a_socket_fits_in_its_address() -> None:
    longest = "/" + "é" * 53

    assert len(str(socket_path(longest)).encode()) == SOCKET_PATH_LIMIT
    with pytest.raises(ValueError, match="at most 107 bytes"):
        socket_path(longest + "x")


@pytest.mark.parametrize("text", [".", "..", "a/b", "/", "a\0", "x" * 256])
def test_a_name_that_is_no_directorys_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name without a slash"):
        directory_name(text)


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:65536", "host:-1", "host:http"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:19891", "[::]:19891", "localhost:0"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert address(text) == text


def test_every_mistake_is_told_with_its_value_and_what_was_expected() -> None:
    reader = EnvReader({"A": "x", "B": "5 m", "C": ""})

    found = [
        reader.read("A", count, 1),
        reader.read("B", duration, 2.0),
        reader.read("C", count, 3),
    ]
    reader.require(False, "A and B do not agree")
    with pytest.raises(ConfigError) as raised:
        reader.finish()

    assert found == [1, 2.0, 3]
    assert len(raised.value.problems) == 3
    assert raised.value.problems[0].startswith("A='x': expected a whole number")
    assert raised.value.problems[1].startswith("B='5 m': expected a duration")
    assert raised.value.problems[2] == "A and B do not agree"


def test_an_unset_and_an_empty_setting_have_the_default() -> None:
    reader = EnvReader({"EMPTY": ""})

    assert reader.read("EMPTY", count, 7) == reader.read("UNSET", count, 7) == 7
