import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import kubelet
from common.kubelet import KubeletLogs, read_pod_directory, read_pod_name
from common.pod import Pod
from tests.unit.factories import file_texts, hostile_texts, without_deadline

PODS = 500
STATIC = "0f" * 16


def uid_of(number: int) -> str:
    return str(UUID(int=number))


def id_of(number: int) -> str:
    return f"{number:064x}"


UID, OTHER_UID, ID, OTHER_ID = uid_of(1), uid_of(2), id_of(1), id_of(2)


class Kubelet:
    """What the kubelet leaves under *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("pods", "containers"):
            (root / name).mkdir(exist_ok=True)

    def run(
        self,
        pod: str,
        uid: str = UID,
        *,
        namespace: str = "shop",
        container: str = "app",
        container_id: str = ID,
    ) -> None:
        log = self.root / "pods" / f"{namespace}_{pod}_{uid}" / container / "0.log"
        log.parent.mkdir(parents=True)
        log.touch()
        name = f"{pod}_{namespace}_{container}-{container_id}.log"[:255]
        (self.root / "containers" / name).symlink_to(log)

    def end(self, pod: str, uid: str = UID, *, namespace: str = "shop") -> None:
        folder = self.root / "pods" / f"{namespace}_{pod}_{uid}"
        for link in (self.root / "containers").iterdir():
            if folder in link.readlink().parents:
                link.unlink()
        shutil.rmtree(folder)


@pytest.fixture
def node(tmp_path: Path) -> Kubelet:
    return Kubelet(tmp_path)


@pytest.fixture
def logs(node: Kubelet) -> KubeletLogs:
    return KubeletLogs(node.root)


def containers_of(pod: Pod | None) -> list[str]:
    return [each.name for each in pod.containers] if pod else []


def test_a_container_is_found_by_its_id(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")

    placed = logs.by_container(ID)

    assert placed
    assert (placed.pod.namespace, placed.pod.name, placed.pod.uid) == ("shop", "web-0", UID)
    assert placed.container == "app"
    assert logs.by_container(OTHER_ID) is None


@pytest.mark.parametrize("uid", [UID, STATIC])
def test_a_pod_is_found_by_all_that_it_is_called(
    node: Kubelet, logs: KubeletLogs, uid: str
) -> None:
    node.run("web-0", uid)
    (node.root / "pods" / f"shop_web-0_{uid}" / "sidecar").mkdir()

    found = logs.by_uid(uid)

    assert containers_of(found) == ["app", "sidecar"]
    assert logs.by_name("web-0") == logs.by_hostname("web-0") == [found]
    assert (logs.by_name("web"), logs.by_hostname("web")) == ([], [])


def test_pods_of_one_name_are_told_apart_by_namespace_and_uid(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    node.run("web-0", OTHER_UID, namespace="twin", container_id=OTHER_ID)

    assert {pod.namespace for pod in logs.by_name("web-0")} == {"shop", "twin"}
    found = [logs.by_container(each) for each in (ID, OTHER_ID)]
    assert [each.pod.uid for each in found if each] == [UID, OTHER_UID]


def test_every_pod_of_a_full_node_is_found_at_once_by_many(
    node: Kubelet, logs: KubeletLogs
) -> None:
    for number in range(PODS):
        node.run(f"web-{number}", uid_of(number), container_id=id_of(number))

    def find(number: int) -> tuple[str | None, str | None, list[str]]:
        placed, pod = logs.by_container(id_of(number)), logs.by_uid(uid_of(number))
        named = logs.by_hostname(f"web-{number}") if number % 50 == 0 else [pod] if pod else []
        return (
            placed.pod.name if placed else None,
            pod.name if pod else None,
            [each.name for each in named],
        )

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(find, range(PODS)))

    assert found == [(f"web-{n}", f"web-{n}", [f"web-{n}"]) for n in range(PODS)]


def test_threads_that_ask_while_pods_come_and_go_are_told_no_wrong_pod(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("stays", uid_of(999), container_id=id_of(999))

    def ask(_: int) -> set[str]:
        told = set()
        for _ in range(150):
            logs.refresh()
            placed = logs.by_container(id_of(999))
            told.add(placed.pod.uid if placed else "")
            for number in range(5):
                if placed := logs.by_container(id_of(number)):
                    assert placed.pod.name == f"web-{number}"
        return told

    with ThreadPoolExecutor(4) as threads:
        asked = threads.map(ask, range(4))
        for _ in range(8):
            for number in range(5):
                node.run(f"web-{number}", uid_of(number), container_id=id_of(number))
            for number in range(5):
                node.end(f"web-{number}", uid_of(number))
        told = set().union(*asked)

    assert told == {uid_of(999)}


# Pods that come and go.


def test_a_pod_that_came_since_is_found(node: Kubelet, logs: KubeletLogs) -> None:
    assert logs.is_empty()

    node.run("web-0")

    assert not logs.is_empty()
    assert [pod.uid for pod in logs.by_name("web-0")] == [UID]


def test_a_pod_that_went_is_remembered_with_when_and_with_its_containers(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    logs.refresh()
    before = time.time_ns()
    node.end("web-0")

    [found] = logs.by_hostname("web-0")

    assert found.until
    assert before <= found.until <= time.time_ns()
    assert containers_of(found) == ["app"]


def test_a_container_that_nobody_asked_for_while_it_was_there_is_the_pods_it_was_of(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    assert logs.by_container(OTHER_ID) is None  # so the links were read, and no pods
    node.end("web-0")
    node.run("web-0", OTHER_UID, container_id=OTHER_ID)

    placed = logs.by_container(ID)

    assert placed
    assert (placed.pod.name, placed.pod.uid) == ("web-0", UID)


def test_a_pod_that_was_made_anew_is_another_with_containers_of_its_own(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0", container="old")
    logs.refresh()
    node.end("web-0")
    node.run("web-0", OTHER_UID, container="new", container_id=OTHER_ID)
    logs.refresh()

    old, new = sorted(logs.by_name("web-0"), key=lambda pod: pod.uid)

    assert (old.until is None, new.until is None) == (False, True)
    assert (containers_of(old), containers_of(new)) == (["old"], ["new"])
    assert old.since < new.since


def test_a_directory_that_comes_back_is_there_again(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")
    logs.refresh()
    node.end("web-0")
    logs.refresh()
    node.run("web-0")

    [found] = logs.by_name("web-0")

    assert found.until is None


def test_after_an_hour_a_pod_is_forgotten(
    node: Kubelet, logs: KubeletLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run("web-0")
    logs.refresh()
    node.end("web-0")
    logs.refresh()
    later = time.time_ns() + int((kubelet.KEPT + 1) * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: later)
    node.run("other", OTHER_UID, container_id=OTHER_ID)

    logs.refresh()

    assert logs.by_uid(UID) is None
    assert logs.by_container(ID) is None
    assert logs.by_uid(OTHER_UID)


def test_no_more_than_so_many_are_remembered(
    node: Kubelet, logs: KubeletLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet, "_MOST", 20)
    for number in range(100):
        node.run(f"web-{number}", uid_of(number), container_id=id_of(number))
        logs.refresh()
        node.end(f"web-{number}", uid_of(number))

    logs.refresh()

    known = [number for number in range(100) if logs.by_uid(uid_of(number))]
    assert 0 < len(known) <= 2 * 20
    assert known == list(range(100 - len(known), 100))


# Whether a pod is surely no more.


def test_a_pod_is_over_once_others_have_logs_and_it_has_none(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    dead = Pod(namespace="shop", name="web-1", uid=OTHER_UID, hostname="web-1")

    assert logs.is_over(dead)


@pytest.mark.parametrize("broken", ["missing", "empty", "too many"])
def test_a_pod_is_not_over_where_its_logs_cannot_be_seen(
    node: Kubelet, logs: KubeletLogs, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    alive = Pod(namespace="shop", name="web-0", uid=UID, hostname="web-0")
    if broken == "missing":
        (node.root / "pods").rmdir()
    elif broken == "too many":
        monkeypatch.setattr(kubelet, "_MOST", 3)
        for number in range(10, 15):
            node.run(f"web-{number}", uid_of(number), container_id=id_of(number))

    assert not logs.is_over(alive)


def test_a_pod_that_has_just_gone_is_not_over_yet(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")
    node.run("web-1", OTHER_UID, container_id=OTHER_ID)
    [pod] = logs.by_name("web-0")
    node.end("web-0")

    assert not logs.is_over(pod)


# What is hostile, broken or too long.


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../..",
        f"/var/log/pods/twin_web-0_{OTHER_UID}/app/0.log",
        f"/var/log/pods/shop_web-1_{OTHER_UID}/app/0.log",
        "/var/log/pods/shop_web-0_nonsense/app/0.log",
        "\udcff" * 50,
    ],
)
def test_a_link_that_leads_elsewhere_tells_names_and_no_pods_uid(
    node: Kubelet, logs: KubeletLogs, target: str
) -> None:
    node.run("web-0", OTHER_UID, container_id=OTHER_ID)
    (node.root / "containers" / f"web-0_shop_app-{ID}.log").symlink_to(target)

    placed = logs.by_container(ID)

    assert placed
    assert (placed.pod.namespace, placed.pod.name, placed.pod.uid) == ("shop", "web-0", "")


def test_a_link_that_was_not_whole_when_it_was_read_is_read_again(
    node: Kubelet, logs: KubeletLogs
) -> None:
    link = node.root / "containers" / f"web-0_shop_app-{ID}.log"
    link.touch()
    logs.refresh()
    link.unlink()
    node.run("web-0")

    logs.refresh()
    placed = logs.by_container(ID)

    assert placed
    assert placed.pod.uid == UID


@pytest.mark.parametrize("cut", [120, 63 + 64])
def test_a_name_that_the_kubelet_had_to_cut_tells_no_container(
    node: Kubelet, logs: KubeletLogs, cut: int
) -> None:
    pod = "p" * cut
    node.run(pod, namespace="n" * 63, container="c" * 63)

    assert logs.by_container(ID) is None
    found = logs.by_uid(UID)
    assert found
    assert (found.name, containers_of(found)) == (pod, ["c" * 63])


def test_entries_that_are_no_pods_are_passed_over(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")
    strange = [
        "x",
        "__",
        f"_web_{UID}",
        f"shop__{UID}",
        f"a_b_c_{UID}",
        "shop_web_0-0",
        "\n_\udcff",
    ]
    for name in strange:
        (node.root / "pods" / name).touch()
        (node.root / "containers" / name).touch()
    (node.root / "containers" / f"web-0_shop_app-{ID}.log.1").touch()

    assert [pod.uid for pod in logs.by_name("web-0")] == [UID]
    assert logs.by_hostname("web") == logs.by_hostname("b") == []


def test_a_pod_without_end_of_containers_is_bounded(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")
    for number in range(100):
        (node.root / "pods" / f"shop_web-0_{UID}" / f"c{number}").mkdir()

    assert len(containers_of(logs.by_uid(UID))) == 64


def test_without_the_kubelets_directories_nothing_is_known(tmp_path: Path) -> None:
    logs = KubeletLogs(tmp_path / "nowhere")

    logs.refresh()

    assert logs.is_empty()
    assert logs.by_container(ID) is None
    assert logs.by_uid(UID) is None


# Names of directories.


def test_the_name_of_a_pods_own_directory_may_end_in_a_container() -> None:
    pod = read_pod_directory(f"shop_web-0_{UID}")
    one = read_pod_directory(f"shop_web-0_{UID}_app")

    assert pod
    assert one
    assert (pod.namespace, pod.name, pod.uid, pod.containers) == ("shop", "web-0", UID, ())
    assert (one.uid, containers_of(one)) == (UID, ["app"])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_",
        f"shop_web-0_{UID}_",
        f"shop_web-0_{UID}_a_b",
        f"_web-0_{UID}",
        f"shop__{UID}",
        f"shop_web-0_{UID.upper()[:-1]}F",
        f"shop_web-0_{UID}\n",
        f"core.x.1.shop_web-0_{UID}x",
        "shop_web-0_" + "g" * 32,
    ],
)
def test_what_is_not_called_as_a_pods_directory_is_none(name: str) -> None:
    assert read_pod_directory(name) is None


@pytest.mark.parametrize("read", [read_pod_name, read_pod_directory])
@without_deadline
@given(name=st.one_of(hostile_texts, file_texts, st.text("_-0af", max_size=60)))
def test_any_name_is_a_pods_or_none(read: Callable[[str], Pod | None], name: str) -> None:
    pod = read(name)

    assert pod is None or name.startswith(f"{pod.namespace}_{pod.name}_{pod.uid}")


def test_a_directory_that_does_not_change_is_not_read_again(
    node: Kubelet, logs: KubeletLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run("web-0")
    for path in (node.root / "containers", *(node.root / "pods").iterdir(), node.root / "pods"):
        os.utime(path, (1, 1))
    logs.refresh()

    def refuse(path: Path) -> list[str]:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(os, "listdir", refuse)

    for _ in range(3):
        logs.refresh()
    assert containers_of(logs.by_uid(UID)) == ["app"]


# The containers of a pod whose directory goes, or went.


def settle(folder: Path) -> int:
    """Have a directory be changed long ago; give a moment after that."""
    changed_at = time.time_ns() - 60 * 10**9
    os.utime(folder, ns=(changed_at, changed_at))
    return changed_at + 10**9


def test_a_pod_whose_directory_did_not_change_since_had_no_other_containers(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    moment = settle(node.root / "pods" / f"shop_web-0_{UID}")

    found = logs.by_uid(UID)

    assert found
    assert [found.is_whole(each) for each in (moment - 2 * 10**9, moment, time.time_ns())] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("is_all_gone", [True, False])
def test_containers_that_were_seen_are_remembered_while_their_directory_goes(
    node: Kubelet, logs: KubeletLogs, is_all_gone: bool
) -> None:
    node.run("web-0")
    node.run("other", OTHER_UID, container_id=OTHER_ID)
    folder = node.root / "pods" / f"shop_web-0_{UID}"
    (folder / "sidecar").mkdir()
    moment = settle(folder)
    logs.refresh()

    shutil.rmtree(folder / "app")
    if is_all_gone:
        shutil.rmtree(folder)

    for found in (logs.by_uid(UID), *logs.by_hostname("web-0")):
        assert found
        assert containers_of(found) == ["app", "sidecar"]
        assert found.is_whole(moment)


def test_a_directory_that_was_first_seen_while_it_went_does_not_tell_all_containers(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    folder = node.root / "pods" / f"shop_web-0_{UID}"
    (folder / "sidecar").mkdir()
    settle(folder)
    crashed_at = time.time_ns()
    shutil.rmtree(folder / "app")
    for link in (node.root / "containers").iterdir():
        link.unlink()

    found = logs.by_uid(UID)

    assert found
    assert (containers_of(found), found.is_whole(crashed_at)) == (["sidecar"], False)


def test_a_pod_that_went_before_it_was_looked_into_is_not_known_whole(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    assert logs.by_container(ID)
    assert not logs.is_empty()  # so its name is known, and no more
    node.end("web-0")

    [found] = logs.by_name("web-0")

    assert (containers_of(found), found.is_whole(time.time_ns())) == (["app"], False)
    assert not found.is_whole(0)


def test_a_container_that_came_after_the_last_look_is_known_by_its_link(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    logs.refresh()
    log = node.root / "pods" / f"shop_web-0_{UID}" / "debugger" / "0.log"
    (node.root / "containers" / f"web-0_shop_debugger-{OTHER_ID}.log").symlink_to(log)
    logs.refresh()
    node.end("web-0")

    found = logs.by_uid(UID)

    assert found
    assert [(each.name, each.ids) for each in found.containers] == [
        ("app", (ID,)),
        ("debugger", (OTHER_ID,)),
    ]


# When a pod came.


def test_when_a_pod_came_is_unknown_of_those_that_were_there_before_us(
    node: Kubelet, logs: KubeletLogs
) -> None:
    node.run("web-0")
    logs.refresh()
    before = time.time_ns()
    logs.refresh()
    (node.root / "pods" / f"shop_web-0_{UID}" / "debugger").mkdir()
    node.run("web-1", OTHER_UID, container_id=OTHER_ID)
    after = time.time_ns()

    first, second = logs.by_uid(UID), logs.by_uid(OTHER_UID)

    assert first
    assert second
    assert first.since == 0
    assert before <= second.since <= after


def test_when_a_pod_came_is_unknown_where_not_all_could_be_listed(
    node: Kubelet, logs: KubeletLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet, "_MOST", 2)
    for number in range(10, 15):
        node.run(f"web-{number}", uid_of(number), container_id=id_of(number))
    logs.refresh()
    monkeypatch.setattr(kubelet, "_MOST", 20)
    node.run("web-0")

    logs.refresh()

    assert {pod.since for pod in logs.there()} == {0}


def test_who_is_there_now_is_told_without_those_that_went(node: Kubelet, logs: KubeletLogs) -> None:
    node.run("web-0")
    node.run("web-1", OTHER_UID, container_id=OTHER_ID)
    logs.refresh()
    node.end("web-0")

    assert [pod.name for pod in logs.there()] == ["web-1"]
