from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.coremond import pod_cache
from services.coremond.pod_cache import ApiPod, PodCache
from tests.unit.factories import CRASHED_AT

HASH = "0f" * 16
MADE = "2026-01-01T00:00:00Z"
MADE_BY = 1767225601 * 10**9
"""The end of that second."""
SECOND = 10**9


def uid_of(number: int) -> str:
    return str(UUID(int=number))


UID, OTHER_UID = uid_of(1), uid_of(2)


def api_pod(
    name: str = "web-0",
    uid: str = UID,
    *,
    namespace: str = "shop",
    ids: Iterable[str] = (),
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> ApiPod:
    """Make a pod as the API gives it; *ids* are those of its containers, app0 and so on."""
    ids = list(ids) or ["a" * 64]
    names = [f"app{number}" for number in range(len(ids))]
    body = {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "creationTimestamp": MADE,
            **metadata,
        },
        "spec": {"containers": [{"name": each} for each in names], **(spec or {})},
        "status": {
            "containerStatuses": [
                {"name": each, "containerID": f"containerd://{container_id}", "restartCount": 0}
                for each, container_id in zip(names, ids, strict=True)
            ],
            **(status or {}),
        },
    }
    return msgspec.json.decode(msgspec.json.encode(body), type=ApiPod)


class Clock:
    def __init__(self) -> None:
        self.now = CRASHED_AT

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> PodCache:
    return PodCache(clock=clock)


def test_a_pod_is_found_by_all_that_it_is_called(cache: PodCache) -> None:
    assert cache.is_empty()
    cache.put(api_pod(ids=["a" * 64, "b" * 64]))

    placed = cache.by_container("b" * 64)

    assert placed
    assert (placed.pod.uid, placed.container) == (UID, "app1")
    assert cache.by_uid(UID) == placed.pod
    assert cache.by_name("web-0") == cache.by_hostname("web-0") == [placed.pod]
    assert not cache.is_empty()


@pytest.mark.parametrize(
    ("spec", "hostname"),
    [
        ({}, "web-0"),
        ({"hostname": "front"}, "front"),
        ({"hostname": "front", "hostnameOverride": "a.example.com"}, "a.example.com"),
        ({"hostNetwork": True}, ""),
        ({"hostNetwork": True, "hostname": "front"}, ""),
        ({"hostname": None, "hostNetwork": None}, "web-0"),
    ],
)
def test_the_host_name_is_what_a_process_in_the_pod_sees(
    cache: PodCache, spec: dict[str, Any], hostname: str
) -> None:
    cache.put(api_pod(spec=spec))

    found = cache.by_uid(UID)

    assert found
    assert found.hostname == hostname


def test_a_static_pod_has_the_kubelets_uid_and_may_be_older_than_its_mirror(
    cache: PodCache,
) -> None:
    annotations = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}
    cache.put(api_pod("etcd-node-1", annotations=annotations))

    found = cache.by_uid(HASH)

    assert found
    assert (found.name, found.since) == ("etcd-node-1", 0)
    assert [pod.uid for pod in cache.by_name("etcd-node-1")] == [HASH]


@pytest.mark.parametrize(
    "annotations",
    [
        {"kubernetes.io/config.hash": UID, "kubernetes.io/config.mirror": UID},
        {"kubernetes.io/config.hash": HASH},
        {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": "x"},
        {"kubernetes.io/config.hash": "", "kubernetes.io/config.mirror": ""},
    ],
)
def test_an_annotation_of_a_users_makes_no_pod_another(
    cache: PodCache, annotations: dict[str, str]
) -> None:
    cache.put(api_pod())
    cache.put(api_pod("evil", OTHER_UID, ids=["b" * 64], annotations=annotations))

    victim, forger = cache.by_uid(UID), cache.by_uid(OTHER_UID)

    assert victim
    assert forger
    assert (victim.name, forger.name) == ("web-0", "evil")
    assert cache.by_uid(HASH) is None


STATIC = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_that_claim_to_be_one_static_pod_none_is_told(
    cache: PodCache, is_first: bool
) -> None:
    real = api_pod("etcd-node-1", annotations=STATIC)
    forged = api_pod("evil", OTHER_UID, ids=["b" * 64], annotations=STATIC)
    for each in (forged, real) if is_first else (real, forged):
        cache.put(each)

    assert cache.by_uid(HASH) is None
    assert [pod.name for pod in cache.by_name("etcd-node-1")] == ["etcd-node-1"]
    assert [placed.pod.name for each in "ab" if (placed := cache.by_container(each * 64))] == [
        "etcd-node-1",
        "evil",
    ]
    evil = cache.by_uid(OTHER_UID)
    assert evil
    assert (evil.name, evil.uid) == ("evil", OTHER_UID)

    cache.delete(forged)

    found = cache.by_uid(HASH)
    assert found
    assert (found.name, found.until) == ("etcd-node-1", None)

    cache.delete(real)

    assert cache.by_uid(HASH) is None


def test_a_static_pod_whose_mirror_is_made_anew_is_the_same(cache: PodCache) -> None:
    cache.put(api_pod("etcd-node-1", annotations=STATIC))
    cache.delete(api_pod("etcd-node-1", annotations=STATIC))
    cache.put(api_pod("etcd-node-1", OTHER_UID, ids=["b" * 64], annotations=STATIC))

    [found] = cache.by_name("etcd-node-1")

    assert (found.uid, found.until) == (HASH, None)
    assert found == cache.by_uid(HASH)
    for each in "ab":
        placed = cache.by_container(each * 64)
        assert placed
        assert placed.pod == found


def test_a_static_pod_that_is_forgotten_leaves_nothing(cache: PodCache, clock: Clock) -> None:
    cache.delete(api_pod("etcd-node-1", annotations=STATIC))
    clock.now += int((pod_cache.KEPT + 1) * SECOND)

    cache.delete(api_pod("other", OTHER_UID, ids=["b" * 64]))

    assert (cache.by_uid(HASH), cache._mirrors) == (None, {})


def test_a_container_is_known_by_all_the_ids_it_had(cache: PodCache) -> None:
    cache.put(api_pod(ids=["a" * 64]))
    state = {"terminated": {"containerID": "containerd://" + "b" * 64, "exitCode": 139}}
    status = {
        "name": "app0",
        "containerID": "containerd://" + "c" * 64,
        "restartCount": 2,
        "lastState": state,
    }

    cache.put(api_pod(status={"containerStatuses": [status]}))

    for each in "abc":
        placed = cache.by_container(each * 64)
        assert placed
        assert placed.pod.containers[0].restart_count == 2


def test_a_container_that_restarts_for_ever_is_remembered_in_bounds(cache: PodCache) -> None:
    for number in range(500):
        cache.put(api_pod(ids=[f"{number:064x}"]))

    known = [number for number in range(500) if cache.by_container(f"{number:064x}")]

    assert known == list(range(500 - pod_cache._MOST_IDS, 500))


def test_init_and_ephemeral_containers_are_over_once_they_ended_well(cache: PodCache) -> None:
    def ended(name: str, code: int) -> dict[str, Any]:
        state = {"exitCode": code, "finishedAt": MADE if name != "lost" else None}
        return {"name": name, "state": {"terminated": state}}

    cache.put(
        api_pod(
            spec={
                "initContainers": [
                    *({"name": name} for name in ("done", "failed", "lost", "new")),
                    {"name": "proxy", "restartPolicy": "Always"},
                ],
                "ephemeralContainers": [{"name": "debugger"}],
            },
            status={
                "initContainerStatuses": [
                    *(ended("done", 0), ended("lost", 0), ended("failed", 139), ended("proxy", 0))
                ],
                "ephemeralContainerStatuses": [ended("debugger", 0)],
                "containerStatuses": [ended("app0", 0)],
            },
        )
    )

    found = cache.by_uid(UID)

    assert found
    assert {(each.name, each.kind, each.until) for each in found.containers} == {
        ("app0", "container", None),
        ("done", "init", MADE_BY),
        ("failed", "init", None),
        ("lost", "init", 0),
        ("new", "init", None),
        ("proxy", "init", None),
        ("debugger", "ephemeral", MADE_BY),
    }


def test_when_a_container_was_first_started_is_known_from_its_first_start_only(
    cache: PodCache,
) -> None:
    def started(state: str, restarts: int = 0) -> int:
        status = {
            "name": "app0",
            "restartCount": restarts,
            "state": {state: {"startedAt": MADE} if state != "waiting" else {}},
        }
        cache.put(api_pod(status={"containerStatuses": [status]}))
        found = cache.by_uid(UID)
        assert found
        return found.containers[0].since

    assert started("waiting") == 0
    assert started("running", restarts=1) == 0
    assert started("running") == MADE_BY
    assert started("waiting", restarts=1) == MADE_BY
    cache.delete(api_pod())
    assert started("terminated") == MADE_BY


def test_a_deleted_pod_is_remembered_with_when_it_went(cache: PodCache, clock: Clock) -> None:
    cache.put(api_pod())
    clock.now += SECOND

    cache.delete(api_pod())

    found = cache.by_uid(UID)
    assert found
    assert found.until == clock.now
    assert cache.by_name("web-0") == cache.by_hostname("web-0") == [found]
    assert cache.by_container("a" * 64)
    assert not cache.is_empty()


def test_a_pod_that_is_made_anew_is_another(cache: PodCache) -> None:
    cache.put(api_pod())
    cache.delete(api_pod())
    cache.put(api_pod(uid=OTHER_UID, ids=["b" * 64]))

    found = [cache.by_container(each * 64) for each in "ab"]

    assert [each.pod.uid for each in found if each] == [UID, OTHER_UID]
    assert {pod.uid for pod in cache.by_name("web-0")} == {UID, OTHER_UID}


def test_a_list_takes_the_place_of_all_that_was_known(cache: PodCache) -> None:
    cache.put(api_pod("goes", UID))
    cache.put(api_pod("stays", OTHER_UID, ids=["b" * 64]))

    cache.replace_all([api_pod("stays", OTHER_UID), api_pod("comes", uid_of(3), ids=["c" * 64])])

    assert {
        name: [pod.until is None for pod in cache.by_name(name)]
        for name in ("goes", "stays", "comes")
    } == {"goes": [False], "stays": [True], "comes": [True]}
    assert cache.by_container("b" * 64)


def test_deleted_pods_are_forgotten_after_an_hour_with_all_their_containers(
    cache: PodCache, clock: Clock
) -> None:
    cache.delete(api_pod())
    clock.now += int((pod_cache.KEPT + 1) * SECOND)

    cache.delete(api_pod("other", OTHER_UID, ids=["b" * 64]))

    assert (cache.by_uid(UID), cache.by_container("a" * 64), cache.by_name("web-0")) == (
        None,
        None,
        [],
    )
    assert cache.by_uid(OTHER_UID)


def test_no_more_deleted_pods_are_remembered_than_so_many(cache: PodCache) -> None:
    number = pod_cache.MOST_DELETED + 10
    for each in range(number):
        cache.delete(api_pod(f"web-{each}", uid_of(each), ids=[f"{each:064x}"]))

    known = [each for each in range(number) if cache.by_uid(uid_of(each))]

    assert known == list(range(10, number))
    assert known == [each for each in range(number) if cache.by_container(f"{each:064x}")]


@pytest.mark.parametrize(
    ("owner", "labels", "expected"),
    [
        (None, {}, ("", "")),
        (
            ("ReplicaSet", "web-5d9c7b6f4"),
            {"pod-template-hash": "5d9c7b6f4"},
            ("Deployment", "web"),
        ),
        (("ReplicaSet", "web-5d9c7b6f4"), {}, ("ReplicaSet", "web-5d9c7b6f4")),
        (("ReplicaSet", "web"), {"pod-template-hash": "web"}, ("ReplicaSet", "web")),
        (("StatefulSet", "db"), {}, ("StatefulSet", "db")),
        (("Job", "backup-28512480"), {}, ("CronJob", "backup")),
        (("Job", "once"), {}, ("Job", "once")),
    ],
)
def test_the_owner_is_the_workload(
    cache: PodCache,
    owner: tuple[str, str] | None,
    labels: dict[str, str],
    expected: tuple[str, str],
) -> None:
    owners = [{"kind": "Other", "name": "no", "controller": None}]
    if owner:
        owners.append({"kind": owner[0], "name": owner[1], "controller": True})  # type: ignore[dict-item]
    cache.put(api_pod(labels=labels, ownerReferences=owners))

    found = cache.by_uid(UID)

    assert found
    assert (found.owner_kind, found.owner_name) == expected


def test_only_what_was_asked_for_is_kept_of_labels_and_annotations() -> None:
    cache = PodCache(labels=["team", "app*"], annotations=["a.b/?"])
    cache.put(
        api_pod(
            labels={"team": "x", "apple": "y", "secret": "z"},
            annotations={"a.b/c": "1", "a.b/cd": "2"},
        )
    )

    found = cache.by_uid(UID)

    assert found
    assert (found.labels, found.annotations) == ({"team": "x", "apple": "y"}, {"a.b/c": "1"})


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", "2026-01-01T00:00:00.5+01:00"])
def test_a_moment_that_cannot_be_read_is_unknown(cache: PodCache, timestamp: str | None) -> None:
    cache.put(api_pod(creationTimestamp=timestamp))

    found = cache.by_uid(UID)

    assert found
    assert found.since == 0


def test_what_the_api_leaves_out_or_has_as_null_is_empty(cache: PodCache) -> None:
    body = b"""{"metadata": {"name": "a", "namespace": "b", "uid": "c", "labels": null},
        "spec": {"containers": null, "initContainers": [{"name": "i", "resources": {}}]},
        "status": {"containerStatuses": null, "initContainerStatuses": [{"name": "other"}]}}"""
    cache.put(msgspec.json.decode(body, type=ApiPod))

    found = cache.by_uid("c")

    assert found
    assert [each.name for each in found.containers] == ["i"]


def test_threads_that_ask_while_pods_change_are_told_no_wrong_pod(cache: PodCache) -> None:
    pods = [api_pod(f"web-{n}", uid_of(n), ids=[f"{n:064x}"]) for n in range(100)]

    def ask(_: int) -> None:
        for _ in range(30):
            for number in range(100):
                if placed := cache.by_container(f"{number:064x}"):
                    assert placed.pod.name == f"web-{number}"
                assert len(cache.by_name(f"web-{number}")) <= 1

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, n) for n in range(3)]
        for _ in range(10):
            cache.replace_all(pods)
            for pod in pods[::2]:
                cache.delete(pod)
            cache.replace_all(pods[::3])
        for each in asked:
            each.result()

    assert len([n for n in range(100) if cache.by_uid(uid_of(n))]) == 100


def test_a_cache_is_awaited_until_it_was_told_of_all_pods() -> None:
    cache = PodCache(is_awaited=True)

    assert cache.is_awaited()
    cache.replace_all([])

    assert not cache.is_awaited()


def test_a_cache_is_awaited_again_while_nobody_tells_of_changes(cache: PodCache) -> None:
    cache.set_awaited(True)

    assert cache.is_awaited()
    cache.set_awaited(False)

    assert not cache.is_awaited()


def test_a_list_that_breaks_off_changes_nothing(cache: PodCache) -> None:
    def broken() -> Iterable[ApiPod]:
        yield api_pod("comes", OTHER_UID)
        raise ConnectionError

    cache.replace_all([api_pod()])

    with pytest.raises(ConnectionError):
        cache.replace_all(broken())

    assert cache.by_name("comes") == []
    assert [pod.until for pod in cache.by_name("web-0")] == [None]
    assert [pod.name for pod in cache.there()] == ["web-0"]
