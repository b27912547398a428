"""Tell of crashes where `kubectl describe pod` shows it: as Events on the pods that crashed.

Like crashes of one container are one Event with a count, as client-go's correlator does it; crashes
are never delayed by it. Source: the Kubernetes API reference, core/v1 Event.
"""

import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from common.log import Logger
from common.pod import ContainerKind
from common.record import CrashRecord
from services.coremond.cluster import ANSWER_WITHIN, ApiError, as_api_error, connect, is_used
from services.coremond.settings import CoremondSettings

log = Logger()

TOGETHER = 600.0
"""Seconds after its first crash for which further ones are counted in an Event."""
EVERY = 10.0
"""Seconds between two changes of one Event."""
_BURST, _PER_SECOND = 50.0, 2.0
"""Requests that may be made at once, and how many more each second."""
_MOST = 1024
"""Events that are known at once; the least recent goes."""
_DELAY = 30.0
"""Seconds without a request after one failed."""

_LISTS: dict[ContainerKind, str] = {
    "container": "containers",
    "init": "initContainers",
    "ephemeral": "ephemeralContainers",
}
"""Where a pod's spec has containers of a kind."""

_Key = tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class _Event:
    """What is to be seen of crashes that are alike."""

    record: CrashRecord
    """The newest."""
    id: str
    """What the API is to call it."""
    first: float
    """When the first was told of, seconds since the epoch."""
    last: float = 0.0
    count: int = 0
    name: str = ""
    """Empty until the API has it."""
    shown: int = 0
    """The count that the API has."""
    shown_at: float = 0.0


class Announcer:
    """Owns the thread that makes Events, by way of *connect*; *store* is where cores are."""

    def __init__(
        self,
        connect: Callable[[], Any],
        node: str,
        store: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._node = node
        self._store = store
        self._clock = clock
        self._api: Any = None
        self._events = OrderedDict[_Key, _Event]()
        self._changed = Condition()
        self._is_stopped = False
        self._said = ""
        self._tokens, self._counted_at = _BURST, clock()
        self._not_before = 0.0
        self._thread = Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; what was not told of by then is in the records."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(timeout=1.0)

    def announce(self, record: CrashRecord, number: int) -> None:
        """Have *number* crashes told of, which *record* is the newest of; a guess is kept to us."""
        if not (record.kubernetes and record.kubernetes.uid) or record.identity.by == "guess":
            return
        key = (
            *(record.namespace, record.pod, record.kubernetes.uid),
            *(record.container, record.process),
        )
        now = self._clock()
        with self._changed:
            event = self._events.pop(key, None)
            if event is None or now - event.first > TOGETHER:
                event = _Event(record=record, id=_event_name(record, now), first=now)
            event.record, event.last = record, now
            event.count += number
            self._events[key] = event
            if len(self._events) > _MOST:
                self._events.popitem(last=False)
            self._changed.notify()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            with self._changed:
                count, record, last = event.count, event.record, event.last
            try:
                self._show(event, record, count, last)
                event.shown, event.shown_at = count, self._clock()
                self._say("")
            except ApiError as error:
                self._fail(event, count, error)
            except Exception as error:
                log.exception("unexpected error", reason=repr(error), effect="an event is missing")
                event.shown = count

    def _next(self) -> _Event | None:
        """Wait for an Event that may be shown now; None once it is time to stop."""
        with self._changed:
            while not self._is_stopped:
                now = self._clock()
                self._tokens = min(
                    _BURST, self._tokens + max(0.0, now - self._counted_at) * _PER_SECOND
                )
                self._counted_at = now
                waiting = [event for event in self._events.values() if event.count > event.shown]
                due = [event for event in waiting if now - event.shown_at >= EVERY]
                if due and self._tokens >= 1.0 and now >= self._not_before:
                    self._tokens -= 1.0
                    return due[0]
                self._changed.wait(timeout=1.0 if waiting else None)
        return None

    def _show(self, event: _Event, record: CrashRecord, count: int, last: float) -> None:
        self._api = self._api or self._connect()
        message = describe(record, self._store / record.core if record.state == "stored" else None)
        options = {"_preload_content": False, "_request_timeout": ANSWER_WITHIN}
        change = {"count": count, "lastTimestamp": _timestamp(last), "message": message}
        try:
            if event.name:
                self._api.patch_namespaced_event(event.name, record.namespace, change, **options)
                return
            body = self._body(record, event.id, event.first) | change
            self._api.create_namespaced_event(record.namespace, body, **options)
        except Exception as error:
            raise as_api_error(error) from error
        event.name = event.id

    def _body(self, record: CrashRecord, name: str, first: float) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": record.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": record.namespace,
                "name": record.pod,
                "uid": record.kubernetes.uid if record.kubernetes else "",
                **_field_path(record),
            },
            "reason": "CoreDumped",
            "type": "Warning",
            "source": {"component": "coremond", "host": self._node},
            "reportingComponent": "coremond",
            "reportingInstance": self._node,
            "firstTimestamp": _timestamp(first),
        }

    def _fail(self, event: _Event, count: int, error: ApiError) -> None:
        """Try again later, unless the API's answer will not be another."""
        if error.status == 404 and event.name:
            event.name = ""  # it expired there, and is made anew
        elif error.status == 409 and not event.name:
            event.name = event.id  # it was made, but the answer did not come in time
        elif 400 <= error.status < 500 and error.status not in {401, 408, 429}:
            event.shown = count
        if error.status == 401:
            self._api = None  # the account may be another by now
        if error.status not in {404, 409}:
            self._say(str(error))
            self._not_before = self._clock() + _DELAY
        event.shown_at = self._clock()

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            log.error("failed to create events", err=problem)
        self._said = problem


@contextmanager
def announced(settings: CoremondSettings) -> Iterator[Callable[[CrashRecord, int], None]]:
    """Give what tells of crashes in the block; it does nothing without a cluster."""
    if not settings.events or not is_used(settings.kubernetes):
        yield lambda *_: None
        return
    kubeconfig = settings.kubernetes if isinstance(settings.kubernetes, Path) else None
    announcer = Announcer(lambda: connect(kubeconfig), settings.node, settings.store_dir)
    try:
        yield announcer.announce
    finally:
        announcer.close()


def _event_name(record: CrashRecord, now: float) -> str:
    """Give a name that no other Event of the pod has, as client-go does: ``<pod>.<hex>``."""
    return f"{record.pod[:200].rstrip('.-')}.{int(now * 1e9):x}{record.id}"


def _field_path(record: CrashRecord) -> dict[str, str]:
    """Point at the container in the pod's spec, where it is known which it is."""
    if record.identity.container_by == "guess":
        return {}
    kind = record.kubernetes and record.kubernetes.container_kind
    return {"fieldPath": f"spec.{_LISTS[kind or 'container']}{{{record.container}}}"}


def describe(record: CrashRecord, core: Path | None) -> str:
    """Say in a sentence what crashed, of what, and where its core is."""
    is_guess = record.identity.container_by == "guess"
    container = f"{record.container}{' (a guess)' if is_guess else ''}"
    text = f"{record.process} (pid {record.pid}) in container {container} died"
    if record.signal:
        text += f" of {_signal(record.signal)}"
    where = f"core: {core}" if core else f"no core was kept: {record.reason}"
    text += f"; {where}; node {record.node}, crash {record.id}"
    return "".join(each if each.isprintable() else "?" for each in text)[:1000]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
