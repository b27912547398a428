"""Follow the pods of this node by the Kubernetes API: list them once, then hear of changes.

Source: the Kubernetes API concepts, "Efficient detection of changes": a watch goes on from a
resourceVersion; one that is too old is answered with 410, and then all is listed again.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import msgspec

from common.log import Logger
from services.coremond.cluster import ANSWER_WITHIN, ApiError, as_api_error, connect, is_used
from services.coremond.pod_cache import ApiPod, PodCache
from services.coremond.settings import CoremondSettings

log = Logger()

_WATCHED_FOR = 300
"""Seconds after which the API ends a watch, which is then begun again."""
_SILENCE = 120.0
"""Seconds without a word after which a connection is not trusted any more."""
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
"""Seconds between attempts: doubled each time."""
_DENIED_DELAY = 60.0
"""Seconds between attempts where the API says that they are not allowed."""
_EVENT_LIMIT = 16 * 2**20
"""Bytes of one change; a pod has at most 3 MiB."""
_PAGE = 20
"""Pods that are asked for at once."""
_PAGE_LIMIT = 64 * 2**20
"""Bytes of an answer with so many."""
_PIECE = 2**18
"""Bytes that are read at once."""
_DENIED, _FORBIDDEN, _GONE = 401, 403, 410
_ANEW = {_FORBIDDEN, _GONE}
"""All is listed again: a watch that is not allowed tells of no change, though a list may be."""


class _Page(msgspec.Struct):
    """A list of pods."""

    metadata: "_Position"
    items: list[ApiPod] | None


class _Position(msgspec.Struct, rename="camel"):
    """Where a list or an object stands in the order of all changes."""

    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Change(msgspec.Struct):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class _Object(msgspec.Struct):
    """Any object, as far as its position goes."""

    metadata: _Position


class _Status(msgspec.Struct):
    """What an ERROR has for an object."""

    code: int = 0
    message: str = ""


class PodWatch:
    """Owns the thread that keeps *cache* up to date; nobody waits for it."""

    def __init__(self, connect: Callable[[], Any], node: str, cache: PodCache) -> None:
        self._connect = connect
        self._selector = {"field_selector": f"spec.nodeName={node}"}
        self._cache = cache
        self._version = ""
        """Up to where the changes were heard; empty: all is to be listed."""
        self._failures = 0
        """How many there were since a watch last worked."""
        self._said = ""
        self._stopped = Event()
        self._response: Any = None
        self._thread = Thread(target=self._run, name="pods", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a connection that does not end is left to the process's own end."""
        self._stopped.set()
        with suppress(Exception):
            self._response.shutdown()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        api: Any = None
        while not self._stopped.is_set():
            try:
                api = api or self._connect()
                if not self._version:
                    self._list(api)
                self._watch(api)
            except ApiError as error:
                self._cache.set_awaited(True)
                self._failures += 1
                if error.status in _ANEW or isinstance(error.__cause__, msgspec.MsgspecError):
                    self._version = ""
                if error.status == _DENIED:
                    api = None  # the account may be another by now
                self._wait(error)
            except Exception as error:
                log.exception("unexpected error", reason=repr(error), effect="pods listed again")
                self._cache.set_awaited(True)
                api, self._version = None, ""
                self._stopped.wait(_LONGEST_DELAY)

    def _wait(self, error: ApiError) -> None:
        if self._stopped.is_set() or (self._failures == 1 and error.status == _GONE):
            return
        delay = min(_FIRST_DELAY * 2 ** min(self._failures, 10), _LONGEST_DELAY)
        if error.status in {_DENIED, _FORBIDDEN}:
            delay = _DENIED_DELAY
        if error.status or self._failures > 1:  # one broken connection is none of anybody's concern
            self._say(str(error))
        self._stopped.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311  # so that nodes differ

    def _say(self, problem: str) -> None:
        """Say what is wrong, or that nothing is any more, once for each change."""
        if problem == self._said:
            return
        if problem:
            log.error("failed to list pods", err=problem)
        else:
            log.info("pods listed again")
        self._said = problem

    def _list(self, api: Any) -> None:
        """List all pods of the node, a few at a time: each page is let go before the next."""
        position = _Position()

        def listed() -> Iterator[ApiPod]:
            nonlocal position
            while True:
                page = self._page(api, position.continue_)
                position = page.metadata
                pods = page.items or []
                while pods:
                    yield pods.pop()
                if not position.continue_:
                    return

        self._cache.replace_all(listed())
        self._version = position.resource_version

    def _page(self, api: Any, continue_: str | None) -> _Page:
        with _in_its_words():
            response = api.list_pod_for_all_namespaces(
                **self._selector,
                limit=_PAGE,
                **({"_continue": continue_} if continue_ else {}),
                _preload_content=False,
                _request_timeout=ANSWER_WITHIN,
            )
            return msgspec.json.decode(_read(response), type=_Page)

    def _watch(self, api: Any) -> None:
        """Take in the changes since, until the API ends it."""
        with _in_its_words():
            self._response = api.list_pod_for_all_namespaces(
                **self._selector,
                watch=True,
                resource_version=self._version,
                allow_watch_bookmarks=True,
                timeout_seconds=_WATCHED_FOR,
                _preload_content=False,
                _request_timeout=(ANSWER_WITHIN[0], _SILENCE),
            )
            self._say("")
            self._cache.set_awaited(False)  # what it missed comes at once
            self._follow(time.monotonic() + _LONGEST_DELAY)

    def _follow(self, trusted_at: float) -> None:
        """Take in what comes; it works if anything came, or at least it lasted until then."""
        has_come = False
        try:
            for line in _lines(self._response):
                self._take(msgspec.json.decode(line, type=_Change))
                self._failures, has_come = 0, True
                if self._stopped.is_set():
                    return
        finally:
            has_lasted = time.monotonic() > trusted_at
            if has_lasted:
                self._failures = 0
        if not (has_come or has_lasted):
            raise ApiError("the watch ended at once")

    def _take(self, change: _Change) -> None:
        if change.type == "ERROR":
            status = msgspec.json.decode(change.object, type=_Status)
            raise ApiError(status.message, status.code)
        if change.type == "DELETED":
            self._cache.delete(msgspec.json.decode(change.object, type=ApiPod))
        elif change.type != "BOOKMARK":
            self._cache.put(msgspec.json.decode(change.object, type=ApiPod))
        self._version = msgspec.json.decode(change.object, type=_Object).metadata.resource_version


def _read(response: Any) -> bytearray:
    """Read an answer of a bounded length."""
    data = bytearray()
    for piece in response.stream(_PIECE):
        data += piece
        if len(data) > _PAGE_LIMIT:
            response.close()
            raise ApiError(f"an answer of more than {_PAGE_LIMIT} bytes")
    return data


def _lines(response: Any) -> Iterator[bytes]:
    """Give the lines of a watch as they come, each of a bounded length."""
    buffer = bytearray()
    for piece in response.stream(amt=None, decode_content=False):
        buffer += piece
        if b"\n" in piece:
            *lines, rest = buffer.split(b"\n")
            yield from (bytes(line) for line in lines if line)
            buffer = bytearray(rest)
        if len(buffer) > _EVENT_LIMIT:
            raise ApiError(f"a change of more than {_EVENT_LIMIT} bytes")


@contextmanager
def followed_pods(settings: CoremondSettings) -> Iterator[PodCache | None]:
    """Give the pods of the node as the API tells of them, in the block; None without a cluster."""
    if not is_used(settings.kubernetes):
        yield None
        return
    kubeconfig = settings.kubernetes if isinstance(settings.kubernetes, Path) else None
    cache = PodCache(
        labels=settings.pod_labels,
        annotations=settings.pod_annotations,
        is_awaited=settings.list_pods,
    )
    if not settings.list_pods:
        yield cache
        return
    watch = PodWatch(lambda: connect(kubeconfig), settings.node, cache)
    watch.start()
    try:
        yield cache
    finally:
        watch.close()


@contextmanager
def _in_its_words() -> Iterator[None]:
    """Raise whatever the client raises in the block as an `ApiError`."""
    try:
        yield
    except ApiError:
        raise
    except msgspec.MsgspecError as error:
        raise ApiError(f"unreadable answer: {error}") from error
    except Exception as error:
        raise as_api_error(error) from error
