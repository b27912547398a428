import pytest

from common.pod import Container, NoPods, Pod, default_hostname


@pytest.mark.parametrize(
    ("pod", "hostname"),
    [
        ("web-0", "web-0"),
        ("a.b", "a.b"),
        ("x" * 63, "x" * 63),
        ("x" * 64, "x" * 63),
        ("x" * 62 + "-0", "x" * 62),
        ("x" * 60 + ".-.-0", "x" * 60),
    ],
)
def test_a_host_name_is_the_pods_as_far_as_the_kernel_has_room(pod: str, hostname: str) -> None:
    assert default_hostname(pod) == hostname


def test_a_pod_knows_its_containers_by_name() -> None:
    app = Container(name="app")
    pod = Pod(namespace="shop", name="web-0", uid="1", hostname="web-0", containers=(app,))

    assert pod.container("app") is app
    assert pod.container("other") is None


@pytest.mark.parametrize(
    ("seen", "whole"),
    [
        (None, [True, True, True, True]),
        ((), [False, False, False, False]),
        (((10, 20),), [True, False, True, False]),
        (((10, 20), (30, None)), [True, False, True, True]),
        (((30, 20),), [True, False, False, False]),
    ],
)
def test_a_pods_containers_are_all_where_they_were_seen_to_be(
    seen: tuple[tuple[int, int | None], ...] | None, whole: list[bool]
) -> None:
    pod = Pod(namespace="shop", name="web-0", uid="1", hostname="web-0", seen=seen)

    assert [pod.is_whole(moment) for moment in (0, 9, 15, 30)] == whole


def test_without_a_cluster_there_are_no_pods() -> None:
    pods = NoPods()

    assert pods.is_empty()
    assert (pods.by_container("a"), pods.by_uid("")) == (None, None)
    assert pods.by_hostname("") == pods.by_name("") == pods.there() == []
