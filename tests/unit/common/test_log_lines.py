import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import log as log_lines
from common.log import LINE_LIMIT, Logger, render
from tests.unit.factories import hostile_texts, without_deadline

NAMED = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "r": "\r"}
CODED = {"x": 2, "u": 4, "U": 8}

surrogates = st.text(st.characters(categories=["Cs"]), max_size=5)
values = hostile_texts | surrogates
short = values.map(lambda text: text[:30])


def parse(line: str) -> list[tuple[str, str]]:
    """Read a line strictly: what is not exactly a line raises ValueError."""
    fields, place = [], 0
    while True:
        key, place = quoted(line, place)
        if line[place : place + 1] != "=":
            raise ValueError(f"expected = at {place} of {line!r}")
        value, place = quoted(line, place + 1)
        fields.append((key, value))
        if place == len(line):
            return fields
        if line[place] != "|":
            raise ValueError(f"expected | at {place} of {line!r}")
        place += 1


def quoted(line: str, place: int) -> tuple[str, int]:
    """Read what stands in quotes; give it and the place behind it."""
    if line[place : place + 1] != '"':
        raise ValueError(f"expected a quote at {place} of {line!r}")
    text, place = "", place + 1
    while line[place] != '"':
        character, place = one(line, place)
        text += character
    return text, place + 1


def one(line: str, place: int) -> tuple[str, int]:
    """Read a character, which may be escaped; give it and the place behind it."""
    if line[place] != "\\":
        if not line[place].isprintable():
            raise ValueError(f"bare {line[place]!r} at {place}")
        return line[place], place + 1
    kind = line[place + 1]
    if kind in NAMED:
        return NAMED[kind], place + 2
    end = place + 2 + CODED[kind]
    digits = line[place + 2 : end]
    if not all(digit in "0123456789abcdef" for digit in digits):
        raise ValueError(f"expected {CODED[kind]} digits at {place} of {line!r}")
    return chr(int(digits, 16)), end


def shown(text: str) -> str:
    """Give what a line can tell of *text*: a byte that was no UTF-8 reads as its number."""
    return "".join(chr(ord(c) - 0xDC00) if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Let this program's lines go to a text that can be read."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    text = io.StringIO()
    log_lines.configure(proc="crashagent", stream=text)
    yield text
    root.handlers[:] = handlers
    root.setLevel(level)
    log_lines.configure(stream=io.StringIO())
    root.handlers[:] = handlers
    root.setLevel(level)


@without_deadline
@given(st.dictionaries(st.sampled_from(["ts", "l", "m", "lt", "src", "ct"]), short))
def test_a_line_reads_back_as_exactly_the_fields_that_were_written(fields: dict[str, str]) -> None:
    line = render({"first": 1, **fields})

    assert parse(line) == [("first", "1"), *((key, shown(text)) for key, text in fields.items())]
    assert line.isprintable()


@without_deadline
@given(st.lists(values.map(lambda text: text * 60), min_size=1, max_size=5))
def test_a_line_that_is_too_long_is_cut_in_its_values_only(texts: list[str]) -> None:
    fields = {f"field{number}": text for number, text in enumerate(texts)}

    line = render({"ts": "now", **fields, "v": "1.0"})

    assert len(line.encode()) + 1 <= LINE_LIMIT
    parsed = dict(parse(line))
    assert list(parsed) == ["ts", *fields, "v"]
    for key, text in fields.items():
        assert parsed[key] == shown(text) or shown(text).startswith(parsed[key].removesuffix("…"))


@pytest.mark.parametrize("text", ["\x01", "\u2028", "\U000e0001", "\\", '"', "é", "😀", "\udc80"])
def test_a_cut_never_goes_through_an_escape(text: str) -> None:
    values = ["x" * lead + text * LINE_LIMIT for lead in range(12)]

    lines = [render({"m": value, "v": "1.0"}) for value in values]

    assert all(len(line.encode()) + 1 <= LINE_LIMIT for line in lines)
    for value, line in zip(values, lines, strict=True):
        [(_, cut), last] = parse(line)
        assert last == ("v", "1.0")
        assert cut.endswith("…")
        assert shown(value).startswith(cut[:-1])


def test_the_longest_value_gives_way_and_the_others_stay() -> None:
    line = dict(parse(render({"m": "short", "cmdline": "x" * 9999, "v": "1.0"})))

    assert (line["m"], line["v"]) == ("short", "1.0")
    assert line["cmdline"].startswith("x" * 3000)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (7, "7"), (None, "None"), (b"a\xff", "a\xff")],
)
def test_a_fact_is_shown_as_text(value: object, text: str) -> None:
    assert parse(render({"fact": value})) == [("fact", text)]


def test_control_characters_are_shown_by_their_numbers() -> None:
    assert render({"m": 'a"b\\c\nd\te\x1bf\x85'}) == '"m"="a\\"b\\\\c\\nd\\te\\x1bf\\x85"'


def test_a_line_has_its_fields_in_their_order(stream: io.StringIO) -> None:
    Logger({"id": "1"}).bind(src="/a").info("creating coredump", dst="/b")

    [line] = stream.getvalue().splitlines()
    assert [key for key, _ in parse(line)] == [
        *("ts", "l", "m", "lt", "proc", "id", "src", "dst", "ct", "v")
    ]
    assert parse(line)[1:5] == [
        ("l", "info"),
        ("m", "creating coredump"),
        ("lt", "A"),
        ("proc", "crashagent"),
    ]
    assert parse(line)[-2:] == [("ct", "f5-coremond"), ("v", "1.0")]


def test_a_hostile_event_stays_in_its_line_and_field(stream: io.StringIO) -> None:
    forged = 'x"|"l"="critical"|"m"="owned\n"ts"="2025"'

    Logger().warning("%s %d {0}", comm=forged, hostname=b"\xff\n")

    [line] = stream.getvalue().split("\n")[:-1]
    fields = parse(line)
    assert [key for key, _ in fields].count("l") == 1
    assert dict(fields)["m"] == "%s %d {0}"
    assert dict(fields)["comm"] == forged


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_a_line_says_its_level(stream: io.StringIO, level: str) -> None:
    getattr(Logger(), level)("something")

    assert dict(parse(stream.getvalue().rstrip("\n")))["l"] == level


def test_what_only_someone_looking_for_it_wants_is_not_said_unasked(stream: io.StringIO) -> None:
    Logger().debug("detail")

    assert stream.getvalue() == ""


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    try:
        raise ValueError('a "quoted"\nmessage')
    except ValueError as error:
        Logger().exception("unexpected error", reason=repr(error))

    [line] = stream.getvalue().split("\n")[:-1]
    assert 'ValueError: a "quoted"\nmessage' in dict(parse(line))["trace"]
