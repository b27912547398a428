import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cgroup import Placement, choose_path, read_placement
from tests.unit.factories import hostile_texts, without_deadline

UID = "0a1b2c3d-1111-2222-3333-0123456789ab"
OTHER_UID = "ffffffff-1111-2222-3333-0123456789ab"
ESCAPED = UID.replace("-", "_")
STATIC = "0f" * 16
ID = "0123456789abcdef" * 4
OTHER_ID = "fedcba9876543210" * 4
HERE = Placement(UID, ID)
SLICE = f"kubepods-burstable-pod{ESCAPED}.slice"
SYSTEMD = f"/kubepods.slice/kubepods-burstable.slice/{SLICE}"
KIND = f"/docker/{OTHER_ID}"


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"/kubepods/burstable/pod{UID}/crio-{ID}",
        f"{SYSTEMD}/cri-containerd-{ID}.scope",
        f"{SYSTEMD}/crio-{ID}.scope",
        f"{SYSTEMD}/crio-{ID}.scope/container",
        f"{SYSTEMD}/docker-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{ESCAPED}.slice/cri-containerd-{ID}.scope",
        f"/{SLICE}:cri-containerd:{ID}",
        f"/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}",
        f"{KIND}/kubelet/kubepods/burstable/pod{UID}/{ID}",
        f"{KIND}/kubelet.slice/kubelet-{SLICE}/cri-containerd-{ID}.scope",
        f"{KIND}/kubepods/besteffort/pod{UID}/{ID}",
        f"/../../kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope",
        f"/../../../kubepods/burstable/pod{UID}/{ID}",
        f"/../../pod{UID}/{ID}",
        f"{SYSTEMD}/cri-containerd-{ID}.scope/system.slice/sshd.service",
        f"{SYSTEMD}/cri-containerd-{ID}.scope/user.slice/user-1000.slice/session-1.scope",
    ],
)
def test_every_driver_and_runtime_tells_pod_and_container(path: str) -> None:
    assert read_placement(path) == HERE


@pytest.mark.parametrize(
    "path",
    [
        f"{SYSTEMD}/crio-conmon-{ID}.scope",
        f"/kubepods/burstable/pod{UID}/crio-conmon-{ID}",
        f"/kubepods/burstable/pod{UID}",
        f"{SYSTEMD}/cri-containerd-{ID[:-1]}.scope",
        f"/kubepods/burstable/pod{UID}/some/{OTHER_ID}",
    ],
)
def test_what_is_in_no_container_of_a_pod_is_still_the_pods(path: str) -> None:
    assert read_placement(path) == Placement(UID, "")


def test_a_static_pod_has_a_hash_for_its_uid() -> None:
    found = read_placement(f"/kubepods/burstable/pod{STATIC}/{ID}")

    assert found == Placement(STATIC, ID)


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/libpod_parent/libpod-{ID}",
        f"/../cri-containerd-{ID}.scope",
    ],
)
def test_a_container_outside_of_pods_is_a_container(path: str) -> None:
    assert read_placement(path) == Placement("", ID)


@pytest.mark.parametrize(
    "forged",
    [
        f"kubepods/burstable/pod{OTHER_UID}/{OTHER_ID}",
        f"{OTHER_ID}",
        f"kubepods-pod{OTHER_UID.replace('-', '_')}.slice/cri-containerd-{OTHER_ID}.scope",
        f"docker-{OTHER_ID}.scope/pod{OTHER_UID}",
    ],
)
@pytest.mark.parametrize(
    "own", [f"/kubepods/pod{UID}/{ID}", f"{SYSTEMD}/crio-{ID}.scope", f"/{SLICE}:crio:{ID}"]
)
def test_a_container_cannot_call_cgroups_of_its_own_like_another_pods(
    own: str, forged: str
) -> None:
    assert read_placement(f"{own}/{forged}") == HERE


@pytest.mark.parametrize("above", ["", "/../..", KIND])
@pytest.mark.parametrize(
    "forged",
    [f"kubepods/pod{UID}/{ID}", f"cri-containerd-{ID}.scope", ID, f"docker-{ID}.scope/x"],
)
def test_what_a_user_calls_his_own_cgroups_tells_nothing(above: str, forged: str) -> None:
    path = f"{above}/user.slice/user-1000.slice/user@1000.service/{forged}"

    assert read_placement(path) in {Placement(), read_placement(above)}
    assert ID not in read_placement(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/init.scope",
        "/system.slice/kubelet.service",
        f"/kubepods/pod{UID}x/y",
        f"/kubepods/pod{UID[:-1]}",
        f"/kubepods/xpod{UID}",
        f"/pod{UID.upper()}",
        f"/x/{ID}0",
        f"/x/{ID.upper()}",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/machine-libpod_pod_{ID}.slice",
    ],
)
def test_what_only_looks_like_a_pod_or_a_container_is_none(path: str) -> None:
    assert read_placement(path) == Placement()


@without_deadline
@given(st.lists(hostile_texts, max_size=5), hostile_texts)
def test_whatever_stands_behind_a_container_changes_nothing(deeper: list[str], last: str) -> None:
    path = "/".join([f"{SYSTEMD}/cri-containerd-{ID}.scope", *deeper, last])

    assert read_placement(path) == HERE


V1 = b"""12:pids:/kubepods/burstable/pod%(uid)s/%(id)s
11:cpuset:/kubepods/burstable/pod%(uid)s/%(id)s
1:name=systemd:/kubepods/burstable/pod%(uid)s/%(id)s
0::/%(unified)s
"""


@pytest.mark.parametrize("unified", [b"", b"system.slice/containerd.service", KIND.encode()[1:]])
def test_on_a_host_with_both_versions_the_one_that_knows_the_pod_counts(unified: bytes) -> None:
    text = V1 % {b"uid": UID.encode(), b"id": ID.encode(), b"unified": unified}

    assert read_placement(choose_path(text)) == HERE


def test_of_paths_that_tell_as_much_version_2_counts() -> None:
    text = b"4:pids:/a/much/longer/path\n0::/short\n"

    assert choose_path(text) == "/short"


def test_a_hierarchy_that_has_no_pods_hides_none() -> None:
    deep = b"/system.slice/containerd.service/" + b"x" * 300
    text = b"9:misc:%s\n3:cpuset:%s\n2:rdma:/\n" % (deep, f"/kubepods/pod{UID}/{ID}".encode())

    assert read_placement(choose_path(text)) == HERE


def test_a_colon_in_a_path_is_the_paths() -> None:
    assert choose_path(f"0::/{SLICE}:cri-containerd:{ID}\n".encode()).endswith(f":{ID}")


@without_deadline
@given(st.binary(max_size=200))
def test_any_bytes_give_a_path_of_bounded_length_or_none(text: bytes) -> None:
    path = choose_path(text * 100)

    assert len(path) <= 4096
    assert "\n" not in path
    path.encode()
