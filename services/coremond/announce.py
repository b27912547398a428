"""Tell of crashes where `kubectl describe pod` shows it: as Events on the pods that crashed.

Like crashes of one container are one Event with a count, as client-go's correlator does it; crashes
are never delayed by it. What a process is called is its own choice, so a container has few Events
at once, and pods take turns. Source: the Kubernetes API reference, core/v1 Event.
"""

import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

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
"""Events that are known at once; beyond that, one of the pod that has most goes."""
_MOST_PROCESSES = 4
"""Processes of a container that have an Event each; all others of it are counted in one."""
_DELAY = 30.0
"""Seconds without a request after one failed."""

_LISTS: dict[ContainerKind, str] = {
    "container": "containers",
    "init": "initContainers",
    "ephemeral": "ephemeralContainers",
}
"""Where a pod's spec has containers of a kind."""


class _Key(NamedTuple):
    """What crashes have in common that are counted in one Event of a pod's."""

    namespace: str
    pod: str
    container: str
    process: str
    """Empty for all processes of the container that have no Event of their own."""


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
    is_asked: bool = False
    """The API is being told of it."""
    is_of_many: bool = False
    """It counts all processes of the container that have no Event of their own."""

    @property
    def is_waiting(self) -> bool:
        """There are crashes that the API was not told of."""
        return self.count > self.shown

    def is_over(self, now: float) -> bool:
        """Say whether what crashes at *now* begins another; what was never shown goes on."""
        return self.shown > 0 and not self.is_asked and now - self.first > TOGETHER


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
        self._pods = OrderedDict[str, OrderedDict[_Key, _Event]]()
        """The Events of each pod, by its uid; whoever was served last is behind the others."""
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
        now = self._clock()
        with self._changed:
            events = self._pods.setdefault(record.kubernetes.uid, OrderedDict())
            for old in [key for key, event in events.items() if _is_done(event, now)]:
                del events[old]
            key = _choose_key(record, events)
            event = events.get(key)
            if event is None or event.is_over(now):
                left = event.count - event.shown if event else 0
                event = _Event(record=record, id=_event_name(record, now), first=now, count=left)
                event.is_of_many = not key.process
                events[key] = event
            event.record, event.last = record, now
            event.count += number
            if sum(map(len, self._pods.values())) > _MOST:
                self._drop_one()
            self._changed.notify()

    def _drop_one(self) -> None:
        """Forget an Event of the pod that has most: one that has nothing to tell, if there is."""
        uid, events = max(self._pods.items(), key=lambda pod: (len(pod[1]), _has_idle(pod[1])))
        del events[min(events, key=lambda key: (events[key].is_waiting, events[key].last))]
        if not events:
            del self._pods[uid]

    def _run(self) -> None:
        while (event := self._next()) is not None:
            with self._changed:
                count, record, last = event.count, event.record, event.last
                event.is_asked = True
            try:
                self._show(event, record, count, last)
                event.shown, event.shown_at = count, self._clock()
                self._say("")
            except ApiError as error:
                self._fail(event, count, error)
            except Exception as error:
                log.exception("unexpected error", reason=repr(error), effect="an event is missing")
                event.shown = count
            finally:
                event.is_asked = False

    def _next(self) -> _Event | None:
        """Wait for an Event that may be shown now; None once it is time to stop."""
        with self._changed:
            while not self._is_stopped:
                now = self._clock()
                self._tokens = min(
                    _BURST, self._tokens + max(0.0, now - self._counted_at) * _PER_SECOND
                )
                self._counted_at = now
                may_ask = self._tokens >= 1.0 and now >= self._not_before
                if may_ask and (event := self._take_turn(now)):
                    self._tokens -= 1.0
                    return event
                is_any = any(e.is_waiting for pod in self._pods.values() for e in pod.values())
                self._changed.wait(timeout=1.0 if is_any else None)
        return None

    def _take_turn(self, now: float) -> _Event | None:
        """Choose the Event that is shown next: each pod has its turn, and in it each of its own."""
        for uid, events in self._pods.items():
            for key, event in events.items():
                if event.is_waiting and now - event.shown_at >= EVERY:
                    self._pods.move_to_end(uid)
                    events.move_to_end(key)
                    return event
        return None

    def _show(self, event: _Event, record: CrashRecord, count: int, last: float) -> None:
        self._api = self._api or self._connect()
        core = self._store / record.core if record.state == "stored" else None
        message = describe(record, core, is_of_many=event.is_of_many)
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


def _choose_key(record: CrashRecord, events: Mapping[_Key, _Event]) -> _Key:
    """Say in which of its pod's *events* a crash is counted: its process's, while there are few."""
    key = _Key(record.namespace, record.pod, record.container, record.process)
    if key in events:
        return key
    others = [each for each in events if each.process and each[:3] == key[:3]]
    return key if len(others) < _MOST_PROCESSES else key._replace(process="")


def _is_done(event: _Event, now: float) -> bool:
    """Say whether nothing is to be told of an Event any more."""
    return event.is_over(now) and not event.is_waiting


def _has_idle(events: Mapping[_Key, _Event]) -> bool:
    return not all(event.is_waiting for event in events.values())


def _event_name(record: CrashRecord, now: float) -> str:
    """Give a name that no other Event of the pod has, as client-go does: ``<pod>.<hex>``."""
    return f"{record.pod[:200].rstrip('.-')}.{int(now * 1e9):x}{record.id}"


def _field_path(record: CrashRecord) -> dict[str, str]:
    """Point at the container in the pod's spec, where it is known which it is."""
    if record.identity.container_by == "guess":
        return {}
    kind = record.kubernetes and record.kubernetes.container_kind
    return {"fieldPath": f"spec.{_LISTS[kind or 'container']}{{{record.container}}}"}


def describe(record: CrashRecord, core: Path | None, *, is_of_many: bool = False) -> str:
    """Say in a sentence what crashed, of what, and where its core is.

    *is_of_many* says that it is the newest of the processes that are counted together.
    """
    is_guess = record.identity.container_by == "guess"
    container = f"{record.container}{' (a guess)' if is_guess else ''}"
    text = f"{record.process} (pid {record.pid}) in container {container} died"
    if record.signal:
        text += f" of {_signal(record.signal)}"
    where = f"core: {core}" if core else f"no core was kept: {record.reason}"
    text += f"; {where}; node {record.node}, crash {record.id}"
    if is_of_many:
        text = f"The newest of several processes: {text}"
    return "".join(each if each.isprintable() else "?" for each in text)[:1000]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
