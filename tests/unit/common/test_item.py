from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MessageError
from common.item import (
    EVENT_VERSION,
    ITEM_VERSION,
    MESSAGE_LIMIT,
    CoreEvent,
    CrashItem,
    clean,
)
from common.naming import SourceName, read_source_name
from tests.unit.factories import event, item, without_deadline

texts = st.text(max_size=50)
ids = st.none() | st.integers(0, 2**32 - 1)
moments = st.integers(0, 2**63 - 1)

items = st.builds(
    CrashItem,
    path=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(
        lambda text: "/" + text
    ),
    arrived=st.sampled_from(["file", "apport", "kernel-socket", "systemd", "apport-report"]),
    **dict.fromkeys(("pid", "host_pid", "tid", "uid", "gid"), ids),
    signal=st.none() | st.integers(1, 64),
    **dict.fromkeys(("comm", "exe", "cmdline", "hostname", "cgroup", "container_id"), texts),
    started_at=st.none() | moments,
    rlimit=st.none() | st.integers(0, 2**64 - 1),
    dumpable=st.none() | st.integers(0, 2),
    crashed_at=moments,
    truncated=st.booleans(),
    truncated_why=texts,
)
events = st.builds(
    CoreEvent,
    kind=st.sampled_from(["stored", "held", "removed", "failed"]),
    **dict.fromkeys(("id", "pod", "container", "process", "core", "reason"), texts),
    pid=ids,
    at=moments,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
item_names = st.sampled_from(
    ["path", "pid", "comm", "crashed_at", "arrived", "encoding", "truncated", "rlimit"]
)
json_bodies = (
    st.binary()
    | json_values.map(msgspec.json.encode)
    | st.dictionaries(item_names, json_values | st.just("/a")).map(msgspec.json.encode)
)
nested = st.tuples(st.sampled_from([b"[", b'{"a":']), st.integers(1, 9999))
bodies = json_bodies | nested.map(lambda found: found[0] * found[1])


@without_deadline
@given(items)
def test_an_item_arrives_as_it_was_sent(sent: CrashItem) -> None:
    assert CrashItem.from_wire(sent.to_wire()) == sent


@without_deadline
@given(events)
def test_an_event_arrives_as_it_was_sent(sent: CoreEvent) -> None:
    assert CoreEvent.from_wire(sent.to_wire()) == sent


def test_the_topic_of_an_event_is_its_kind() -> None:
    assert event(kind="held").to_wire()[0] == b"held"


@without_deadline
@given(st.lists(st.binary() | st.just(ITEM_VERSION) | st.just(EVENT_VERSION), max_size=4))
def test_frames_that_are_no_message_are_refused_and_nothing_worse(frames: list[bytes]) -> None:
    for read in (CrashItem.from_wire, CoreEvent.from_wire):
        with pytest.raises(MessageError):
            read(frames)


@without_deadline
@given(bodies)
def test_a_body_is_an_item_or_refused(body: bytes) -> None:
    try:
        found = CrashItem.from_wire([ITEM_VERSION, body])
    except MessageError:
        return

    assert found.path.startswith("/")
    assert CrashItem.from_wire(found.to_wire()) == found


@without_deadline
@given(bodies)
def test_a_body_is_an_event_or_refused(body: bytes) -> None:
    try:
        found = CoreEvent.from_wire([b"stored", EVENT_VERSION, body])
    except MessageError:
        return

    assert CoreEvent.from_wire(found.to_wire()) == found


def frames_with(**facts: Any) -> list[bytes]:
    ordinary = msgspec.to_builtins(item())
    return [ITEM_VERSION, msgspec.json.encode({**ordinary, **facts})]


def test_a_message_of_another_version_is_refused() -> None:
    [_, body] = item().to_wire()

    with pytest.raises(MessageError, match="crash/2"):
        CrashItem.from_wire([b"crash/2", body])


def test_an_event_of_another_version_is_refused() -> None:
    [kind, _, body] = event().to_wire()

    with pytest.raises(MessageError, match="core/1"):
        CoreEvent.from_wire([kind, b"core/2", body])


def test_a_message_of_more_frames_is_refused() -> None:
    with pytest.raises(MessageError):
        CrashItem.from_wire([*item().to_wire(), b""])


def test_a_body_as_long_as_allowed_is_read_and_a_longer_one_is_not() -> None:
    missing = MESSAGE_LIMIT - len(item(cmdline="").to_wire()[1])

    assert CrashItem.from_wire(item(cmdline="x" * missing).to_wire())
    with pytest.raises(MessageError, match=f"at most {MESSAGE_LIMIT}"):
        CrashItem.from_wire(item(cmdline="x" * (missing + 1)).to_wire())


def test_an_event_longer_than_allowed_is_refused() -> None:
    with pytest.raises(MessageError):
        CoreEvent.from_wire(event(reason="x" * MESSAGE_LIMIT).to_wire())


@pytest.mark.parametrize("path", ["", "relative", "../etc/passwd", "/var/crash/core\0", " /a"])
def test_a_path_that_is_not_absolute_and_plain_is_refused(path: str) -> None:
    with pytest.raises(MessageError, match="absolute path"):
        CrashItem.from_wire(frames_with(path=path))


@pytest.mark.parametrize(
    "facts",
    [{"pid": "9"}, {"arrived": "mail"}, {"encoding": "zip"}, {"truncated": 1}, {"comm": None}],
)
def test_a_fact_of_another_kind_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        CrashItem.from_wire(frames_with(**facts))


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": -1},
        {"pid": 10**11},
        {"pid": 10**300},
        {"crashed_at": -1},
    ],
)
def test_a_number_that_no_name_of_a_core_can_hold_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        CrashItem.from_wire(frames_with(**facts))


def test_what_the_most_hostile_process_shows_of_itself_fits_in_a_message() -> None:
    shown = clean(b"\1" * 9999)
    sent = item(comm=clean(b"\1" * 15), exe=shown, cmdline=shown, cgroup=shown)

    assert CrashItem.from_wire(sent.to_wire()) == sent


@without_deadline
@given(st.binary(), st.integers(0, 20))
def test_hostile_bytes_are_shown_as_text_that_travels(raw: bytes, limit: int) -> None:
    text = clean(raw, limit)

    assert clean(text.encode(), 9999) == text


def test_the_name_in_an_items_path_is_read_back_from_it() -> None:
    name = SourceName(process="a.b", pid=1, host="h", crashed_at=10**18)

    [found] = read_source_name(item(path=f"/var/crash/{name}").path.rpartition("/")[2])

    assert found == name
