import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import naming
from common.errors import NamingError
from common.item import clean
from common.naming import CoreName, SourceName
from tests.unit.factories import CRASHED_AT, file_texts, hostile_texts, without_deadline

short_texts = st.text(max_size=3) | st.text("./%\n", max_size=12)
pids = st.integers(0, 2**32 - 1)
moments = st.integers(0, 2**63 - 1)
dotted = st.text("ab7.", min_size=1, max_size=15)

pieces = st.sampled_from(
    ["core", "", "a", "%", "%zz", "%FF", "1", "٣", "99999999999", "1742738615", str(CRASHED_AT)]
)
garbage = file_texts | st.text() | st.lists(pieces, max_size=9).map(".".join)


@without_deadline
@given(pod=short_texts, container=short_texts, process=short_texts, pid=pids, crashed_at=moments)
def test_a_stored_name_reads_back_as_what_was_written(
    pod: str, container: str, process: str, pid: int, crashed_at: int
) -> None:
    name = CoreName(pod=pod, container=container, process=process, pid=pid, crashed_at=crashed_at)

    assert CoreName.parse(str(name)) == name


@without_deadline
@given(process=short_texts, host=short_texts, pid=pids, crashed_at=moments)
def test_a_name_made_by_crashagent_has_one_reading(
    process: str, host: str, pid: int, crashed_at: int
) -> None:
    name = SourceName(process=process, pid=pid, host=host, crashed_at=crashed_at)

    assert naming.read_source_name(str(name)) == [name]


@without_deadline
@given(raw=st.binary(max_size=10))
def test_bytes_that_are_no_text_read_back_as_they_are_shown(raw: bytes) -> None:
    name = CoreName(pod="p", container="c", process=os.fsdecode(raw), pid=1, crashed_at=CRASHED_AT)

    assert CoreName.parse(str(name)).process == clean(raw)


@without_deadline
@given(pod=hostile_texts, container=hostile_texts, process=hostile_texts, pid=pids)
def test_every_file_of_a_crash_has_a_name_that_a_disk_takes(
    pod: str, container: str, process: str, pid: int
) -> None:
    name = CoreName(pod=pod, container=container, process=process, pid=pid, crashed_at=CRASHED_AT)

    files = [f"{name}{suffix}" for suffix in (".gz", ".gz.crc", ".json")]
    files += [f".{file}.tmp" for file in files]

    assert all(len(file.encode("ascii")) <= 255 for file in files)
    assert not any("/" in file or "\0" in file or file in {".", ".."} for file in files)
    assert CoreName.parse(str(name)).pid == pid


@without_deadline
@given(process=hostile_texts, host=hostile_texts, pid=pids)
def test_every_file_of_an_intake_has_a_name_that_a_disk_takes(
    process: str, host: str, pid: int
) -> None:
    name = str(SourceName(process=process, pid=pid, host=host, crashed_at=CRASHED_AT))

    files = [name, naming.sidecar_name(name), f".{naming.sidecar_name(name)}.tmp"]

    assert all(len(file.encode("ascii")) <= 255 for file in files)
    assert not any("/" in file or "\0" in file or file in {".", ".."} for file in files)
    assert naming.read_source_name(name)[0].crashed_at == CRASHED_AT


def test_the_longest_name_fills_what_the_disk_allows() -> None:
    long = CoreName(
        pod="p" * 999, container="c" * 999, process="x" * 999, pid=2**32 - 1, crashed_at=CRASHED_AT
    )

    assert len(f".{long}.gz.crc.tmp") == 255


@without_deadline
@given(text=hostile_texts, limit=st.integers(1, 300))
def test_a_name_is_never_cut_inside_an_escape(text: str, limit: int) -> None:
    part = naming.encode(text, limit)

    assert len(part) <= limit
    assert re.fullmatch(r"(?:[A-Za-z0-9_~-]|%[0-9A-F]{2})*", part)


@without_deadline
@given(garbage)
def test_garbage_is_no_stored_name_and_nothing_worse(name: str) -> None:
    try:
        CoreName.parse(name)
    except NamingError:
        return

    assert name.startswith("core.")


@without_deadline
@given(garbage)
def test_garbage_is_no_source_name_and_nothing_worse(name: str) -> None:
    try:
        readings = naming.read_source_name(name)
    except NamingError:
        return

    assert name.startswith("core.")
    assert readings


@pytest.mark.parametrize(
    "name",
    [
        "core",
        "core.",
        "core.a.b.c.1",
        f"core.a.b.c.x.{CRASHED_AT}",
        f"core.a.b.c.-1.{CRASHED_AT}",
        f"core.a.b.c.12345678901.{CRASHED_AT}",
        "core.a.b.c.1.174273861",
        f"core.a.b.c.1.{CRASHED_AT}0",
        f"core.a.b.c.1.{CRASHED_AT}.gz",
        f"CORE.a.b.c.1.{CRASHED_AT}",
        "core.a.b.c.\u0661.1742738615",
    ],
)
def test_what_is_no_stored_name_is_refused(name: str) -> None:
    with pytest.raises(NamingError):
        CoreName.parse(name)


def test_seconds_are_read_as_nanoseconds() -> None:
    [reading] = naming.read_source_name("core.observer.9.f5-observer-0.1742738615")

    assert reading.crashed_at == 1_742_738_615 * 10**9


@without_deadline
@given(process=dotted, pid=st.integers(1, 99999), host=dotted)
def test_the_notes_tell_how_a_name_of_the_kernel_is_to_be_read(
    process: str, pid: int, host: str
) -> None:
    readings = naming.read_source_name(f"core.{process}.{pid}.{host}.1742738615")

    chosen = naming.choose_reading(readings, pid, process)

    assert (chosen.process, chosen.pid, chosen.host) == (process, pid, host)


def test_without_notes_the_last_number_is_taken_for_the_pid() -> None:
    readings = naming.read_source_name("core.python3.11.42.node-1.1742738615")

    chosen = naming.choose_reading(readings, None, "")

    assert (chosen.process, chosen.pid, chosen.host) == ("python3.11", 42, "node-1")


@without_deadline
@given(st.binary(min_size=1, max_size=255).filter(lambda raw: not {0, 47} & set(raw)))
def test_any_file_name_can_be_written_as_text_and_found_again(raw: bytes) -> None:
    name = os.fsdecode(raw)

    text = naming.encode_name(name)

    assert text.isascii()
    assert text.isprintable()
    assert naming.decode_name(text) == name


@without_deadline
@given(st.text().map(lambda text: naming.PREFIX + text))
def test_the_sidecar_of_a_source_names_its_source(source: str) -> None:
    assert naming.source_of_sidecar(naming.sidecar_name(source)) == source


@pytest.mark.parametrize("name", ["core.x.item", ".x.item", ".core.x", ".intake.1.item", ""])
def test_other_files_are_no_sidecars(name: str) -> None:
    assert naming.source_of_sidecar(name) == ""


def test_crashes_with_different_names_have_different_ids() -> None:
    one, other = naming.short_id("core.a"), naming.short_id("core.b")

    assert one != other
    assert re.fullmatch(r"[0-9a-f]{12}", one)
