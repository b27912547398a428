"""What the API server says, by a tiny one at the seam; tests/system has the real one."""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from services.coremond import pod_watch
from services.coremond.cluster import ApiError, connect, is_used
from services.coremond.pod_cache import PodCache
from services.coremond.pod_watch import PodWatch
from tests.unit.factories import events_said

PATIENCE = 10.0


class RefusedError(Exception):
    """What the client raises where the API refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"kind": "Status", "message": message}).encode()


def pod(name: str, version: int = 1) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": metadata}


def page(*names: str, version: str = "10", more: str = "") -> bytes:
    metadata = {"resourceVersion": version, "continue": more}
    return json.dumps({"metadata": metadata, "items": [pod(each) for each in names]}).encode()


def change(kind: str, name: str, version: int) -> bytes:
    return json.dumps({"type": kind, "object": pod(name, version)}).encode() + b"\n"


def error(code: int) -> bytes:
    status = {"kind": "Status", "code": code, "message": f"no: {code}"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


class Page:
    """A list, which comes in pieces."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.closed = False

    def stream(self, amount: int) -> Iterator[bytes]:
        yield from (self._data[n : n + amount] for n in range(0, len(self._data), amount))

    def close(self) -> None:
        self.closed = True


class Stream:
    """A watch that gives *pieces*; an exception among them is raised, and `None` lasts."""

    def __init__(self, *pieces: bytes | Exception | None) -> None:
        self._pieces = pieces
        self._shut = Event()

    def stream(self, **_: Any) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                self._shut.wait(PATIENCE)
                raise ConnectionError("shut down")
            yield piece

    def shutdown(self) -> None:
        self._shut.set()


Answer = bytes | Stream | Exception


class Api:
    """Answers each request with the next of *answers*, and then with a watch that lasts."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.connected = 0

    def connect(self) -> "Api":
        self.connected += 1
        return self

    def list_pod_for_all_namespaces(self, **options: Any) -> Page | Stream:
        self.asked.append(options)
        answer = self._answers.pop(0) if self._answers else Stream(None)
        if isinstance(answer, Exception):
            raise answer
        return Page(answer) if isinstance(answer, bytes) else answer

    @property
    def lists(self) -> int:
        return len([each for each in self.asked if "watch" not in each])

    @property
    def versions(self) -> list[str]:
        return [each["resource_version"] for each in self.asked if "watch" in each]


@contextmanager
def watching(api: Api) -> Iterator[PodCache]:
    cache = PodCache()
    watch = PodWatch(api.connect, "node-1", cache)
    watch.start()
    try:
        yield cache
    finally:
        watch.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_DELAY", "_DENIED_DELAY"):
        monkeypatch.setattr(pod_watch, name, 0.01)


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def names(cache: PodCache) -> set[str]:
    return {n for n in "abcde" if (found := cache.by_uid(n)) and found.until is None}


def test_all_pods_of_the_node_are_listed_and_then_followed() -> None:
    stream = Stream(
        change("ADDED", "c", 11), change("MODIFIED", "a", 12), change("DELETED", "b", 13), None
    )
    api = Api(page("a", "b"), stream)

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "c"})

    assert cache.by_uid("b")
    assert {each["field_selector"] for each in api.asked} == {"spec.nodeName=node-1"}
    assert api.versions == ["10"]


def test_pages_are_put_together() -> None:
    api = Api(page("a", more="x"), page("b", more="y"), page("c", version="30"), Stream(None))

    with watching(api) as cache:
        until(lambda: api.versions)

    assert names(cache) == {"a", "b", "c"}
    assert [each.get("_continue") for each in api.asked[:3]] == [None, "x", "y"]
    assert api.versions == ["30"]


def test_a_list_is_asked_for_a_few_pods_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_watch, "_PIECE", 7)
    api = Api(page("a", "b", more="x"), page("c"), Stream(None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "b", "c"})

    assert [each.get("limit") for each in api.asked[:2]] == [pod_watch._PAGE] * 2


def test_pods_that_are_listed_are_let_go_but_for_what_matters() -> None:
    def large_page(number: int) -> bytes:
        large = pod(str(number))
        large["metadata"]["annotations"] = {"large": "x" * 2**18}
        large["spec"] = {"containers": [{"name": "app", "args": ["x" * 2**20]}]}
        metadata = {"resourceVersion": "1", "continue": "x" if number < 29 else ""}
        return json.dumps({"metadata": metadata, "items": [large]}).encode()

    api, cache = Api(*map(large_page, range(30))), PodCache()
    watch = PodWatch(api.connect, "node-1", cache)
    tracemalloc.start()
    try:
        watch._list(api)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(cache.there()) == 30
    assert kept < 2**20
    assert most < 8 * 2**20


def test_a_list_without_an_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pod_watch, "_PAGE_LIMIT", 10_000)
    api = Api(b" " * 10_001, b" " * 10_001, page("a"), Stream(None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a"})

    assert events_said(caplog)[0] == "failed to list pods"


def test_a_list_that_grows_too_old_between_its_pages_is_begun_anew() -> None:
    api = Api(page("a", more="x"), RefusedError(410, "too old"), page("b"), Stream(None))

    with watching(api) as cache:
        until(lambda: api.versions)

    assert names(cache) == {"b"}
    assert [each.get("_continue") for each in api.asked[:3]] == [None, "x", None]


def test_a_node_without_pods_is_followed_as_any_other() -> None:
    api = Api(b'{"metadata": {"resourceVersion": "7"}, "items": null}', Stream(None))

    with watching(api) as cache:
        until(lambda: api.versions)

    assert cache.is_empty()
    assert api.versions == ["7"]


def test_a_change_that_comes_in_pieces_is_one() -> None:
    line = change("ADDED", "a", 11) + change("ADDED", "b", 12)
    api = Api(page(), Stream(*(line[n : n + 7] for n in range(0, len(line), 7)), None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "b"})


def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    api = Api(page("a"), Stream(change("ADDED", "b", 11)), Stream(change("ADDED", "c", 12), None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "b", "c"})

    assert api.versions[:2] == ["10", "11"]
    assert api.lists == 1


def test_a_bookmark_moves_the_watch_on_and_is_no_pod() -> None:
    api = Api(page("a"), Stream(change("BOOKMARK", "b", 99)), Stream(None))

    with watching(api) as cache:
        until(lambda: len(api.versions) == 2)

    assert names(cache) == {"a"}
    assert api.versions == ["10", "99"]


@pytest.mark.parametrize(
    "end", [ConnectionError("reset"), TimeoutError("silence"), OSError(), ValueError("no fp")]
)
def test_a_connection_that_breaks_within_a_line_goes_on_behind_the_line_before(
    end: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Stream(change("ADDED", "b", 11), change("ADDED", "c", 12)[:-9], end)
    api = Api(page("a"), broken, Stream(change("ADDED", "c", 12), None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "b", "c"})

    assert api.versions == ["10", "11"]
    assert (api.lists, events_said(caplog)) == (1, [])


@pytest.mark.parametrize("gone", [RefusedError(410, "too old"), Stream(error(410))])
def test_changes_that_are_too_old_are_listed_anew(gone: Answer) -> None:
    api = Api(page("a", "b"), gone, page("b", "c", version="50"), Stream(None))

    with watching(api) as cache:
        until(lambda: len(api.versions) == 2)

    assert names(cache) == {"b", "c"}
    assert api.versions == ["10", "50"]


def test_changes_that_are_always_too_old_are_not_asked_for_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_watch, "_FIRST_DELAY", 30.0)
    api = Api(*(each for _ in range(50) for each in (page("a"), Stream(error(410)))))

    with watching(api):
        until(lambda: api.lists == 2)
        time.sleep(0.1)

    assert api.lists == 2


def test_a_watch_that_always_ends_at_once_is_not_begun_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_watch, "_FIRST_DELAY", 30.0)
    api = Api(page("a"), *(Stream() for _ in range(50)))

    with watching(api):
        until(lambda: api.versions)
        time.sleep(0.1)

    assert len(api.versions) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"\xff\n",
        b"{}\n",
        b'{"type": "NEWS", "object": {}}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "ADDED", "object": null}\n',
        b"[" * 9999 + b"\n",
    ],
)
def test_after_a_line_that_cannot_be_read_all_is_listed_anew(line: bytes) -> None:
    broken = Stream(change("ADDED", "b", 11), line, change("ADDED", "c", 12))
    api = Api(page("a"), broken, page("d", version="20"), Stream(None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"d"})
        until(lambda: api.versions == ["10", "20"])


def test_a_line_without_an_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(pod_watch, "_EVENT_LIMIT", 10_000)
    endless = [Stream(*[b"x" * 1000] * 100) for _ in range(2)]
    api = Api(page("a"), *endless, Stream(change("ADDED", "b", 11), None))

    with watching(api) as cache:
        until(lambda: names(cache) == {"a", "b"})

    assert events_said(caplog) == ["failed to list pods", "pods listed again"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_is_said_once_in_the_apis_words_and_so_is_its_end(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refusals = [RefusedError(status, "pods is forbidden") for _ in range(5)]
    api = Api(*refusals, page("a"), Stream(None))

    with watching(api):
        until(lambda: api.versions)

    assert events_said(caplog) == ["failed to list pods", "pods listed again"]
    assert caplog.records[0].facts == {"err": "pods is forbidden"}  # type: ignore[attr-defined]


def test_who_may_list_and_not_watch_lists_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    refused = RefusedError(403, "pods is forbidden: cannot watch")
    api = Api(page("a"), refused, page("a", "b"), refused, page("c"), Stream(None))

    with watching(api) as cache:
        until(lambda: len(api.versions) == 3)
        assert names(cache) == {"c"}

    assert api.lists == 3
    assert events_said(caplog) == ["failed to list pods", "pods listed again"]


def test_who_is_not_known_any_more_connects_anew() -> None:
    api = Api(RefusedError(401, "Unauthorized"), page("a"), RefusedError(500, "no"), Stream(None))

    with watching(api):
        until(lambda: len(api.versions) == 2)

    assert api.connected == 2


def test_an_api_that_cannot_be_reached_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    api, failures = Api(page("a"), Stream(None)), [ApiError("no such host")] * 3

    def connect() -> Api:
        if failures:
            raise failures.pop()
        return api

    cache = PodCache()
    watch = PodWatch(connect, "node-1", cache)
    watch.start()
    until(lambda: api.versions)
    watch.close()

    assert names(cache) == {"a"}
    assert events_said(caplog)[0] == "failed to list pods"


def test_pods_stay_known_while_the_api_is_away() -> None:
    api = Api(page("a"), Stream(ConnectionError()), *[RefusedError(503, "away")] * 5, Stream(None))

    with watching(api) as cache:
        until(lambda: len(api.versions) == 7)
        assert names(cache) == {"a"}

    assert api.lists == 1


# Whether all is told.


def test_all_is_told_once_it_was_listed_and_while_a_watch_is_only_begun_again() -> None:
    ended = [Stream(change("BOOKMARK", "a", n)) for n in range(11, 20)]
    cache, awaited = PodCache(is_awaited=True), list[bool]()

    class Asked(Api):
        def list_pod_for_all_namespaces(self, **options: Any) -> Page | Stream:
            awaited.append(cache.is_awaited())
            return super().list_pod_for_all_namespaces(**options)

    api = Asked(page("a"), *ended, Stream(None))
    watch = PodWatch(api.connect, "node-1", cache)
    watch.start()
    until(lambda: len(api.versions) == 10)
    watch.close()

    assert awaited == [True] + [False] * 10


@pytest.mark.parametrize(
    "lost",
    [
        RefusedError(403, "cannot watch"),
        RefusedError(503, "away"),
        RefusedError(410, "too old"),
        Stream(ConnectionError("reset")),
        Stream(error(410)),
        Stream(error(500)),
        Stream(b"no json"),
        Stream(b"no json\n"),
        Stream(),
        ValueError("unexpected"),
    ],
)
def test_changes_are_awaited_again_once_a_watch_is_lost(
    lost: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_DELAY", "_DENIED_DELAY", "_LONGEST_DELAY"):
        monkeypatch.setattr(pod_watch, name, 600.0)
    api = Api(page("a"), lost, RefusedError(503, "away"))

    with watching(api) as cache:
        until(lambda: len(api.asked) >= 2)
        until(cache.is_awaited)

        assert names(cache) == {"a"}


def test_a_watch_that_was_lost_tells_all_once_it_is_begun_again() -> None:
    is_back = Event()

    class Away(Api):
        def list_pod_for_all_namespaces(self, **options: Any) -> Page | Stream:
            if self.versions:
                is_back.wait(PATIENCE)
            return super().list_pod_for_all_namespaces(**options)

    api = Away(page("a"), Stream(ConnectionError("reset")), Stream(None))

    with watching(api) as cache:
        until(lambda: api.versions and cache.is_awaited())
        is_back.set()
        until(lambda: not cache.is_awaited())

    assert api.lists == 1


@pytest.mark.parametrize("answers", [[page("a"), Stream(None)], [RefusedError(403, "no")]])
def test_a_stop_ends_whatever_it_waits_for(
    answers: list[Answer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pod_watch, "_DENIED_DELAY", 600.0)
    api = Api(*answers)
    watch = PodWatch(api.connect, "node-1", PodCache())
    watch.start()
    until(lambda: len(api.asked) == len(answers))

    watch.close()

    assert not watch._thread.is_alive()
    assert "unexpected error" not in events_said(caplog)


# How the API is reached.

USER = "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "][",
        "[]",
        "a: b",
        "\0",
        "current-context: x",
        USER + "clusters: [{name: c, cluster: {server: 7}}]\nusers: [{name: u, user: {}}]",
        USER + "clusters: 7\nusers: null",
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_a_failure_like_others(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)

    with pytest.raises(ApiError) as failure:
        connect(path)

    assert str(failure.value)


def test_without_a_kubeconfig_nobody_but_a_pod_reaches_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    assert [is_used("auto"), is_used("off"), is_used(tmp_path)] == [False, False, True]
    for path in (None, tmp_path / "missing"):
        with pytest.raises(ApiError):
            connect(path)
