import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given

from common.pod import ContainerKind
from common.record import CrashRecord, Identity, PodFacts
from services.coremond import announce
from services.coremond.announce import Announcer, describe
from services.coremond.cluster import ApiError, as_api_error
from tests.store import crash
from tests.unit.factories import events_said, hostile_texts, without_deadline

PATIENCE = 10.0
STORE = Path("/var/cores/node-1")


class RefusedError(Exception):
    """What the client raises where the API refuses."""

    def __init__(self, status: int, message: str = "no") -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"message": message})


class Api:
    """Keeps Events as the API does; the next of *failures* is raised, or passed over if None."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.failures: list[Exception | None] = []
        self.asked = 0
        self.connected = 0
        self.is_lost_after = False
        """What fails was done nevertheless: only the answer is lost."""

    def connect(self) -> "Api":
        self.connected += 1
        return self

    def _begin(self) -> Exception | None:
        self.asked += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure and not self.is_lost_after:
            raise failure
        return failure

    def create_namespaced_event(self, namespace: str, body: dict[str, Any], **_: Any) -> None:
        failure = self._begin()
        key = namespace, body["metadata"]["name"]
        if key in self.events:
            raise RefusedError(409, "already exists")
        self.events[key] = json.loads(json.dumps(body))
        if failure:
            raise failure

    def patch_namespaced_event(
        self, name: str, namespace: str, body: dict[str, Any], **_: Any
    ) -> None:
        failure = self._begin()
        if (namespace, name) not in self.events:
            raise RefusedError(404, "not found")
        self.events[namespace, name].update(json.loads(json.dumps(body)))
        if failure:
            raise failure

    def counts(self) -> list[int]:
        return sorted(event["count"] for event in self.events.values())


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_742_738_615.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def announcer(api: Api, clock: Clock) -> Iterator[Announcer]:
    made = Announcer(api.connect, "node-1", STORE, clock=clock)
    yield made
    made.close()


def record(**facts: Any) -> CrashRecord:
    known = {
        "namespace": "shop",
        "kubernetes": PodFacts(uid="u-1"),
        "identity": Identity(by="container-id", container_by="container-id"),
        "node": "node-1",
    }
    return crash(**{**known, **facts})


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def of_pod(name: str, **facts: Any) -> CrashRecord:
    """Make the record of a crash in a pod of its own."""
    return record(pod=name, kubernetes=PodFacts(uid=f"uid of {name}"), **facts)


def pods_told_of(api: Api) -> list[str]:
    """Give the pod of each Event, the first first."""
    return [event["involvedObject"]["name"] for event in api.events.values()]


def events_of(announcer: Announcer) -> list[announce._Event]:
    with announcer._changed:
        return [event for events in announcer._pods.values() for event in events.values()]


def is_idle(announcer: Announcer) -> bool:
    """Say whether the API has all that was told."""
    return not any(each.is_waiting or each.is_asked for each in events_of(announcer))


def go_on(announcer: Announcer, clock: Clock, seconds: float) -> None:
    """Let time go by, and have it noticed."""
    clock.now += seconds
    with announcer._changed:
        announcer._changed.notify()


def settle(announcer: Announcer, clock: Clock) -> None:
    """Let time go by until the API has all that was told."""
    while not is_idle(announcer):
        go_on(announcer, clock, announce.EVERY)
        time.sleep(0.005)


def test_a_crash_becomes_an_event_on_its_pod(announcer: Announcer, api: Api) -> None:
    core = record()

    announcer.announce(core, 1)

    until(lambda: api.events)
    [((namespace, name), event)] = api.events.items()
    assert (namespace, name.partition(".")[0]) == ("shop", core.pod)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": core.pod,
        "uid": "u-1",
        "fieldPath": f"spec.containers{{{core.container}}}",
    }
    assert (event["reason"], event["type"], event["count"]) == ("CoreDumped", "Warning", 1)
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2025-03-23T14:03:35Z"
    for part in ("observer (pid 9)", "SIGSEGV", str(STORE / core.core), core.id):
        assert part in event["message"]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("container", "spec.containers{app}"),
        ("init", "spec.initContainers{app}"),
        ("ephemeral", "spec.ephemeralContainers{app}"),
    ],
)
def test_an_event_points_at_the_container_where_the_pods_spec_has_it(
    announcer: Announcer, api: Api, kind: ContainerKind, path: str
) -> None:
    facts = PodFacts(uid="u-1", container_kind=kind)

    announcer.announce(replace(record(container="app"), kubernetes=facts), 1)

    until(lambda: api.events)
    assert [event["involvedObject"]["fieldPath"] for event in api.events.values()] == [path]


def test_a_container_that_is_a_guess_is_called_one_and_not_pointed_at(
    announcer: Announcer, api: Api
) -> None:
    identity = Identity(by="pod-uid", container_by="guess")

    announcer.announce(record(container="app", identity=identity), 1)

    until(lambda: api.events)
    [event] = api.events.values()
    assert "fieldPath" not in event["involvedObject"]
    assert "in container app (a guess) died" in event["message"]


@pytest.mark.parametrize(
    "facts",
    [
        {"identity": Identity(by="guess", container_by="only-one")},
        {"kubernetes": None},
        {"kubernetes": PodFacts(uid="")},
    ],
)
def test_what_is_a_guess_or_of_no_pod_is_told_to_nobody(
    announcer: Announcer, api: Api, facts: dict[str, Any]
) -> None:
    announcer.announce(replace(record(pod="quiet-0"), **facts), 1)
    announcer.announce(record(pod="loud-0"), 1)

    until(lambda: api.events)
    assert [event["involvedObject"]["name"] for event in api.events.values()] == ["loud-0"]


def test_crashes_alike_are_one_count_and_one_request_in_a_while(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    announcer.announce(record(), 1)
    until(lambda: api.events)
    for _ in range(100):
        announcer.announce(record(), 3)
    go_on(announcer, clock, announce.EVERY - 1)
    announcer.announce(record(pod="other-0"), 1)
    until(lambda: len(api.events) == 2)
    assert api.counts() == [1, 1]

    go_on(announcer, clock, 1)

    until(lambda: api.counts() == [1, 301])
    assert api.asked == 3


@pytest.mark.parametrize(
    "other", [{"pod": "b"}, {"container": "b"}, {"process": "b"}, {"namespace": "b"}]
)
def test_crashes_that_are_not_alike_are_events_of_their_own(
    announcer: Announcer, api: Api, other: dict[str, Any]
) -> None:
    announcer.announce(record(), 1)
    announcer.announce(replace(record(), **other, id="other"), 1)

    until(lambda: len(api.events) == 2)
    assert api.counts() == [1, 1]


def test_a_pod_that_was_made_anew_has_events_of_its_own(announcer: Announcer, api: Api) -> None:
    announcer.announce(record(), 1)
    announcer.announce(replace(record(), kubernetes=PodFacts(uid="u-2"), id="other"), 1)

    until(lambda: len(api.events) == 2)
    assert {event["involvedObject"]["uid"] for event in api.events.values()} == {"u-1", "u-2"}


def test_after_a_while_a_new_event_is_begun(announcer: Announcer, api: Api, clock: Clock) -> None:
    announcer.announce(record(), 1)
    until(lambda: is_idle(announcer))
    clock.now += announce.TOGETHER + 1

    announcer.announce(record(), 1)

    until(lambda: len(api.events) == 2)
    assert api.counts() == [1, 1]


def test_a_storm_of_crashes_is_a_bounded_number_of_requests(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    for number in range(300):
        announcer.announce(record(pod=f"web-{number}"), 1)
    until(lambda: api.asked == announce._BURST)

    go_on(announcer, clock, 5)

    allowed = announce._BURST + 5 * announce._PER_SECOND
    until(lambda: api.asked == allowed)
    time.sleep(0.05)
    assert api.asked == allowed


def test_no_more_events_are_known_at_once_than_so_many(
    announcer: Announcer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_MOST", 10)

    for number in range(1000):
        announcer.announce(record(pod=f"web-{number}"), 1)

    assert len(events_of(announcer)) == 10


# A pod that makes up what it is called.


def test_beyond_a_few_processes_a_container_has_one_event_for_all_others(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    for number in range(100):
        announcer.announce(record(process=f"p{number}"), 1)
    announcer.announce(record(process="p1"), 1)
    go_on(announcer, clock, announce.EVERY)

    until(lambda: api.counts() == [1, 1, 1, 2, 96])
    [many] = [event for event in api.events.values() if event["count"] == 96]
    assert many["message"].startswith("The newest of several processes: p99 (pid 9) ")
    assert many["involvedObject"]["fieldPath"] == "spec.containers{f5-observer}"


def test_the_processes_of_one_container_take_no_event_from_another(
    announcer: Announcer, api: Api
) -> None:
    for number in range(100):
        announcer.announce(record(process=f"p{number}"), 1)
    announcer.announce(record(container="sidecar", process="envoy"), 1)

    until(lambda: "envoy" in "".join(event["message"] for event in api.events.values()))


def test_after_a_while_other_processes_have_events_of_their_own(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    for number in range(4):
        announcer.announce(record(process=f"old{number}"), 1)
    until(lambda: len(api.events) == 4 and is_idle(announcer))
    clock.now += announce.TOGETHER + 1

    announcer.announce(record(process="new"), 1)

    until(lambda: len(api.events) == 5)
    assert not any("several" in event["message"] for event in api.events.values())
    assert len(events_of(announcer)) == 1


def test_a_pod_that_renames_itself_for_each_crash_keeps_no_other_from_its_event(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    for number in range(2000):
        announcer.announce(of_pod("hostile-0", process=f"p{number}"), 1)
    announcer.announce(of_pod("victim-0"), 1)
    for number in range(2000, 2040):
        announcer.announce(of_pod("hostile-0", process=f"p{number}"), 1)
        go_on(announcer, clock, 0.05)

    until(lambda: "victim-0" in pods_told_of(api))
    settle(announcer, clock)
    assert sum(api.counts()) == 2041


def test_pods_are_served_in_turn(announcer: Announcer, api: Api, clock: Clock) -> None:
    for number in range(200):
        announcer.announce(of_pod("hostile-0", container=f"c{number}"), 1)
    until(lambda: api.asked == announce._BURST)
    for number in range(3):
        announcer.announce(of_pod(f"quiet-{number}"), 1)

    go_on(announcer, clock, 2)

    until(lambda: len(api.events) == announce._BURST + 4)
    assert pods_told_of(api)[-4:].count("hostile-0") == 1


def test_where_there_are_too_many_events_one_of_the_pod_that_has_most_goes(
    announcer: Announcer, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_MOST", 10)
    api.failures = [RefusedError(500)]
    announcer.announce(of_pod("first-0"), 1)
    until(lambda: api.asked == 1)
    for pod in ("quiet-0", "quiet-1"):
        announcer.announce(of_pod(pod), 1)
    for number in range(100):
        announcer.announce(of_pod("hostile-0", container=f"c{number}"), 1)

    go_on(announcer, clock, announce._DELAY)

    until(lambda: len(api.events) == 10)
    assert {"first-0", "quiet-0", "quiet-1"} < set(pods_told_of(api))


def test_what_was_told_goes_before_what_was_not(
    announcer: Announcer, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_MOST", 10)
    for number in range(9):
        announcer.announce(of_pod("web-0", container=f"old{number}"), 1)
    until(lambda: len(api.events) == 9 and is_idle(announcer))
    api.failures = [RefusedError(500)]
    announcer.announce(of_pod("web-0", container="new0"), 1)
    until(lambda: api.asked == 10)
    for number in range(1, 10):
        clock.now += 0.001
        announcer.announce(of_pod("web-0", container=f"new{number}"), 1)

    go_on(announcer, clock, announce._DELAY + announce.EVERY)

    until(lambda: len(api.events) == 19)


# What the API may answer.


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_what_the_api_refuses_is_not_asked_for_again(
    announcer: Announcer, api: Api, clock: Clock, status: int
) -> None:
    api.failures = [RefusedError(status)]
    announcer.announce(record(pod="refused-0"), 1)
    until(lambda: api.asked == 1)
    go_on(announcer, clock, 100)

    announcer.announce(record(pod="later-0"), 1)

    until(lambda: api.events)
    assert [event["involvedObject"]["name"] for event in api.events.values()] == ["later-0"]
    assert api.asked == 2


@pytest.mark.parametrize(
    "failure",
    [
        RefusedError(401),
        RefusedError(429),
        RefusedError(500),
        RefusedError(503),
        TimeoutError(),
        ConnectionError("x"),
    ],
)
def test_what_fails_for_now_is_tried_again_with_all_that_came_since(
    announcer: Announcer,
    api: Api,
    clock: Clock,
    failure: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.failures = [failure, failure]
    announcer.announce(record(), 1)
    until(lambda: api.asked == 1)
    announcer.announce(record(), 4)

    for asked in (2, 3):
        go_on(announcer, clock, 40)
        until(lambda asked=asked: api.asked == asked)  # type: ignore[misc]

    until(lambda: api.counts() == [5])
    assert events_said(caplog) == ["failed to create events"]


def test_what_was_never_shown_is_not_lost_however_long_it_fails(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    api.failures = [RefusedError(500)]
    announcer.announce(record(), 3)
    until(lambda: api.asked == 1 and not any(each.is_asked for each in events_of(announcer)))
    clock.now += announce.TOGETHER + 1

    announcer.announce(record(), 1)

    until(lambda: api.counts() == [4])


def test_what_was_not_shown_of_an_event_that_is_over_is_counted_in_the_next(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    announcer.announce(record(), 1)
    until(lambda: api.events and is_idle(announcer))
    announcer.announce(record(), 5)
    clock.now += announce.TOGETHER + 1
    api.failures = [RefusedError(500)]

    announcer.announce(record(), 1)

    until(lambda: api.asked == 2)
    settle(announcer, clock)
    assert sum(api.counts()) == 7


def test_while_requests_fail_there_are_few(announcer: Announcer, api: Api, clock: Clock) -> None:
    api.failures = [RefusedError(500)] * 100
    for number in range(20):
        announcer.announce(record(pod=f"web-{number}"), 1)
    until(lambda: api.asked == 1)

    go_on(announcer, clock, announce._DELAY - 1)
    time.sleep(0.05)

    assert api.asked == 1


def test_an_event_that_expired_is_made_anew(announcer: Announcer, api: Api, clock: Clock) -> None:
    announcer.announce(record(), 1)
    until(lambda: api.events)
    api.events.clear()
    clock.now += announce.EVERY
    announcer.announce(record(), 1)
    until(lambda: api.asked == 2)

    go_on(announcer, clock, announce.EVERY)

    until(lambda: api.counts() == [2])


def test_an_event_whose_answer_was_lost_is_not_lost_and_not_doubled(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    api.is_lost_after = True
    api.failures = [TimeoutError()]
    announcer.announce(record(), 1)
    until(lambda: api.asked == 1)
    announcer.announce(record(), 1)

    for asked in (2, 3):
        go_on(announcer, clock, 40)
        until(lambda asked=asked: api.asked == asked)  # type: ignore[misc]

    until(lambda: api.counts() == [2])


def test_who_is_not_known_any_more_connects_anew(
    announcer: Announcer, api: Api, clock: Clock
) -> None:
    api.failures = [RefusedError(401)]
    announcer.announce(record(), 1)
    until(lambda: api.asked == 1)

    go_on(announcer, clock, 100)

    until(lambda: api.events)
    assert api.connected == 2


def test_what_nobody_expected_costs_one_event(
    announcer: Announcer, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def connect() -> Api:
        raise LookupError("a bug")

    announcer._connect = connect
    announcer.announce(record(pod="lost-0"), 1)
    until(lambda: caplog.records)
    announcer._connect = api.connect

    announcer.announce(record(), 1)

    until(lambda: api.events)
    assert events_said(caplog) == ["unexpected error"]


def test_nobody_waits_for_the_api(clock: Clock) -> None:
    let_go = Event()

    def connect() -> Any:
        let_go.wait(PATIENCE)
        raise ApiError("too late")

    announcer = Announcer(connect, "node-1", STORE, clock=clock)
    for number in range(100):
        announcer.announce(record(pod=f"web-{number}"), 1)

    assert len(events_of(announcer)) == 100
    let_go.set()
    announcer.close()


# Names and texts.


@pytest.mark.parametrize("pod", ["web-0", "x" * 253, "x" * 199 + "-" + "y" * 50, "x" * 198 + ".-y"])
def test_the_name_of_an_event_is_one_that_the_api_takes(
    announcer: Announcer, api: Api, pod: str
) -> None:
    announcer.announce(record(pod=pod), 1)

    until(lambda: api.events)
    [(_, name)] = api.events
    assert len(name) <= 253
    for part in name.split("."):
        assert part[0].isalnum()
        assert part[-1].isalnum()
    assert name.startswith(pod[:190])


def test_a_crash_that_was_not_kept_says_why() -> None:
    text = describe(record(state="held", reason="its limit", signal=999), None)

    assert "no core was kept: its limit" in text
    assert "signal 999" in text


@without_deadline
@given(hostile_texts, hostile_texts)
def test_whatever_a_process_is_called_the_message_is_one_printable_line(
    process: str, container: str
) -> None:
    text = describe(replace(record(), process=process, container=container), None)

    assert text.isprintable()
    assert len(text) <= 1000
    text.encode()


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (RefusedError(403, "pods is forbidden"), "pods is forbidden", 403),
        (TimeoutError(), "TimeoutError", 0),
        (ConnectionError("refused"), "refused", 0),
    ],
)
def test_a_failure_is_told_in_the_apis_words(error: Exception, said: str, status: int) -> None:
    found = as_api_error(error)

    assert (str(found), found.status) == (said, status)
