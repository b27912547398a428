import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MessageError
from common.record import CrashRecord, Identity, Source, facts_of
from tests.store import crash
from tests.unit.factories import item, without_deadline

texts = st.text(max_size=30)
moments = st.integers(0, 2**63 - 1)
sources = st.builds(
    Source, name=texts, device=moments, inode=moments, size=moments, changed_at=st.integers(-9, 9)
)
records = st.builds(
    CrashRecord,
    **dict.fromkeys(("id", "name", "reason", "pod", "container", "process", "comm"), texts),
    state=st.sampled_from(["stored", "held", "removed"]),
    identity=st.sampled_from([Identity(by="hostname"), Identity(by="guess")]),
    **dict.fromkeys(("size", "data", "packed", "crashed_at", "last_crashed_at"), moments),
    ratio=st.floats(0, 1e9),
    stored_at=st.none() | moments,
    convert_seconds=st.none() | st.floats(0, 1e9),
    sources=st.lists(sources, max_size=3).map(tuple),
)
damages = st.tuples(st.integers(0, 9999), st.integers(0, 255))


@without_deadline
@given(records)
def test_a_record_reads_back_as_it_was_written(record: CrashRecord) -> None:
    assert CrashRecord.from_json(record.to_json()) == record


def test_a_record_is_text_for_people() -> None:
    text = crash().to_json()

    assert text.startswith(b"{\n  ")
    assert text.endswith(b"}\n")


@without_deadline
@given(st.binary() | st.integers(1, 9999).map(lambda depth: b'{"a":' * depth))
def test_garbage_is_no_record_and_nothing_worse(text: bytes) -> None:
    with pytest.raises(MessageError):
        CrashRecord.from_json(text)


@without_deadline
@given(damages)
def test_a_damaged_record_is_refused_or_still_a_record(damage: tuple[int, int]) -> None:
    text = bytearray(crash().to_json())
    text[damage[0] % len(text)] = damage[1]

    try:
        record = CrashRecord.from_json(bytes(text))
    except MessageError:
        return

    assert CrashRecord.from_json(record.to_json()) == record


def test_a_record_cut_short_is_refused_wherever_it_is_cut() -> None:
    text = crash().to_json().rstrip()

    for length in range(len(text)):
        with pytest.raises(MessageError):
            CrashRecord.from_json(text[:length])


def test_a_record_of_a_later_version_is_left_alone() -> None:
    text = crash(version=2).to_json()

    with pytest.raises(MessageError, match="version 2"):
        CrashRecord.from_json(text)


def test_a_field_that_a_later_program_added_does_no_harm() -> None:
    written = crash()
    fields = {**msgspec.to_builtins(written), "signature": "abc"}

    assert CrashRecord.from_json(msgspec.json.encode(fields)) == written


def test_the_key_of_a_container_is_its_workload_and_not_its_pod() -> None:
    one = crash(pod="tmm-x2x2x", workload="tmm", container="c", namespace="n")
    other = crash(pod="tmm-z9z9z", workload="tmm", container="c", namespace="n")

    assert one.container_key == other.container_key == ("n", "tmm", "c", None, False)


def test_a_guess_is_of_none_of_the_containers_that_it_may_be_of() -> None:
    sure, guess = (crash(identity=Identity(by=by)) for by in ("pod-uid", "guess"))

    assert sure.container_key != guess.container_key


def test_what_a_crash_takes_up_is_counted_in_blocks_with_what_is_beside_its_core() -> None:
    assert crash(packed=1, log_size=0).occupied == 3 * 4096
    assert crash(packed=4097, log_size=1).occupied == 5 * 4096


def test_a_record_has_all_that_its_item_told() -> None:
    told = item(tid=12, container_id="0" * 64)

    facts = facts_of(told)

    assert facts["tid"] == 12
    assert facts["container_id"] == "0" * 64
    assert "path" not in facts
