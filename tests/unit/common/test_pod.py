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


def test_without_a_cluster_there_are_no_pods() -> None:
    pods = NoPods()

    assert pods.is_empty()
    assert (pods.by_container("a"), pods.by_uid("")) == (None, None)
    assert pods.by_hostname("") == pods.by_name("") == []
