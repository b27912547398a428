import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.record import Identity, PodFacts
from common.settings import NANOSECONDS
from services.corectl.info import lines_of
from services.corectl.list_cores import json_array, row_of
from services.corectl.moments import read_moment, show_moment, show_span
from services.corectl.presence import presence, why_absent
from services.corectl.show import json_of, safe, show_signal, show_size
from services.corectl.table import Column, plain_lines
from tests.store import crash

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\n\r\t'\"\\"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", 910 * NANOSECONDS),
        ("0", 1000 * NANOSECONDS),
        ("1970-01-01", 0),
        ("1970-01-01 00:01:00", 60 * NANOSECONDS),
        ("1970-01-01T00:01:00.000001Z", 60 * NANOSECONDS + 1000),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_a_moment_is_a_date_a_time_or_so_long_ago(text: str, moment: int) -> None:
    assert read_moment(text, now=1000 * NANOSECONDS) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2h ago", "-1h", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a date such as"):
        read_moment(text, now=0)


def test_a_moment_is_shown_as_coredumpctl_does() -> None:
    assert show_moment(1_742_738_615_173_108_860) == "Sun 2025-03-23 14:03:35 UTC"
    assert show_moment(2**200) == f"{2**200} ns"


def test_sizes_spans_and_signals_are_for_people() -> None:
    assert [show_size(n) for n in (0, 1023, 1024, 3 * 2**30, 2**60)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "3.0 GiB",
        "1048576.0 TiB",
    ]
    assert [show_span(n) for n in (5, 65, 7200, 200_000)] == ["5s", "1min", "2h", "2d"]
    assert [show_signal(n) for n in (11, None, 99)] == ["SIGSEGV", "-", "99"]


def test_a_cell_says_what_is_left_of_the_core() -> None:
    kept = crash()

    assert presence(kept, {kept.core}) == "present"
    assert presence(crash(truncated=True), {kept.core}) == "truncated"
    assert presence(kept, set()) == "missing"
    assert presence(crash(state="held"), {kept.core}) == "none"
    assert presence(crash(state="removed"), {kept.core}) == "removed"


def test_why_a_core_is_absent_is_said_in_words() -> None:
    assert why_absent(crash()) == ""
    assert why_absent(crash(state="held", reason="limit")) == "its core was never stored: limit"
    assert why_absent(crash(state="removed")) == "its core was removed"


def test_a_record_of_many_crashes_shows_how_many() -> None:
    assert "none x7" in row_of(crash(state="held", count=7), "none")


def test_no_fact_reaches_the_terminal_unescaped() -> None:
    record = crash(comm=HOSTILE, exe=HOSTILE, pod=HOSTILE, reason=HOSTILE, cmdline=HOSTILE)

    shown = [*row_of(record, "present"), *lines_of(record, "present"), safe(HOSTILE)]

    assert all(text.isprintable() for text in shown)


@given(st.text())
def test_json_stays_what_it_was_and_shows_no_control_character(text: str) -> None:
    written = json_of({"text": text})

    assert written.isprintable()
    assert msgspec.json.decode(written) == {"text": text}


def test_an_array_of_records_holds_the_records_whole() -> None:
    records = [crash(comm=HOSTILE), crash(pid=2)]

    read = json.loads(json_array(records))

    assert read == [json.loads(record.to_json()) for record in records]
    assert json_array([]) == "[]"


def test_info_tells_the_known_facts_and_leaves_the_unknown_out() -> None:
    lines = lines_of(crash(uid=0, gid=None, hostname="", size=2048), "present")

    told = {label.strip(): text for label, _, text in (line.partition(": ") for line in lines)}
    assert told["UID"] == "0"
    assert told["Signal"] == "11 (SIGSEGV)"
    assert told["Size"] == "2048 (2.0 KiB)"
    assert told["Identity"] == "pod by container-id, container by guess"
    assert told["Core file"].endswith(".gz (present)")
    assert not {"GID", "Hostname", "Reason"} & set(told)
    assert len({line.index(": ") for line in lines}) == 1


def test_plain_columns_line_up_and_end_without_blanks() -> None:
    columns = (Column("NAME"), Column("PID", is_number=True), Column("EXE"))

    lines = plain_lines(columns, [["a", "1", "x"], ["bbbbb", "12345", ""]])

    assert lines == ["NAME    PID EXE", "a         1 x", "bbbbb 12345"]
    assert plain_lines(columns, [], header=False) == []


def test_info_tells_what_is_known_of_the_pod() -> None:
    facts = PodFacts(
        uid="0f1e",
        owner_kind="Deployment",
        owner_name="web",
        container_kind="init",
        image="app:1",
        labels={"a": "b\n"},
    )
    lines = {line.strip() for line in lines_of(crash(kubernetes=facts), "present")}

    assert {"Pod UID: 0f1e", "Owner: Deployment/web", "Image: app:1", "Labels: a=b\\n"} <= lines
    assert "Container kind: init" in lines
    assert not any(line.startswith(("Restarts", "Limits", "Log")) for line in lines)


def test_a_pod_is_shown_with_its_namespace_and_a_doubt() -> None:
    sure = crash(namespace="shop", pod="web-0", identity=Identity(by="container-id"))
    unsure = crash(namespace="", pod="web-0", identity=Identity(by="guess"))

    assert "shop/web-0" in row_of(sure, "present")
    assert "web-0 (guess)" in row_of(unsure, "present")
