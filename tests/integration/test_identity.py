"""Whose a crash is, on a node without an API: by cgroups, kubelet directories and the core."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import kernel
from tests.bundle import Bundle, wait_until
from tests.crashes import by_file
from tests.node import Driver, Node, new_id

StartBundle = Callable[..., Bundle]

PODS = 110


@pytest.fixture
def start(start_bundle: StartBundle, faithful: Node) -> StartBundle:
    """Give a function that starts a bundle on the made-up node."""

    def start(**settings: str) -> Bundle:
        logs = str(faithful.logs)
        return start_bundle(COREMON_KUBELET_LOGS=logs, NODE_NAME="node-1", **settings)

    return start


def by_socket(bundle: Bundle) -> Any:
    return kernel.core_pattern(f"@@{bundle.run_dir / 'kernel.sock'}")


def who(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["namespace"], record["pod"], record["container"]


def how(record: dict[str, Any]) -> tuple[str, str]:
    return record["identity"]["by"], record["identity"]["container_by"]


@pytest.mark.usefixtures("coredump_socket")
@pytest.mark.parametrize(
    ("driver", "runtime"),
    [("cgroupfs", ""), ("systemd", "cri-containerd"), ("systemd", "crio"), ("systemd", "docker")],
)
def test_the_cgroup_of_a_process_tells_its_container(
    start: StartBundle, faithful: Node, crash_program: Path, driver: Driver, runtime: str
) -> None:
    app, sidecar = new_id(), new_id()
    containers = {"app": app, "sidecar": sidecar}
    uid = faithful.run_pod("shop", "web-0", containers, driver=driver, runtime=runtime)
    faithful.run_pod("twin", "web-0", {"app": new_id()}, driver=driver, runtime=runtime)
    bundle = start()

    with by_socket(bundle):
        faithful.run(sidecar, crash_program, hostname="web-0")
        [record] = bundle.wait_for_stored()

    assert who(record) == ("shop", "web-0", "sidecar")
    assert how(record) == ("container-id", "container-id")
    assert (record["kubernetes"]["uid"], record["container_id"]) == (uid, sidecar)
    assert record["name"].startswith("core.web-0.sidecar.crash.")


@pytest.mark.usefixtures("coredump_socket")
def test_a_static_pod_and_one_whose_container_is_unknown_are_found_by_their_uid(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    container = new_id()
    uid = faithful.run_pod("kube-system", "etcd-node-1", {"etcd": container}, uid="0f" * 16)
    for link in (faithful.logs / "containers").iterdir():
        link.unlink()
    bundle = start()

    with by_socket(bundle):
        faithful.run(container, crash_program)
        [record] = bundle.wait_for_stored()

    assert who(record) == ("kube-system", "etcd-node-1", "etcd")
    assert how(record) == ("pod-uid", "only-one")
    assert record["kubernetes"]["uid"] == uid


@pytest.mark.usefixtures("coredump_socket")
def test_a_container_that_nobody_has_told_of_is_not_taken_for_the_only_one(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    app, sandbox = new_id(), new_id()
    uid = faithful.run_pod("shop", "web-0", {"app": app, "pause": sandbox})
    faithful.log_of("shop", "web-0", uid, "pause").unlink()
    faithful.log_of("shop", "web-0", uid, "pause").parent.rmdir()
    (faithful.logs / "containers" / f"web-0_shop_pause-{sandbox}.log").unlink()
    bundle = start()

    with by_socket(bundle):
        faithful.run(sandbox, crash_program)
        [record] = bundle.wait_for_stored()

    assert (who(record), how(record)) == (("shop", "web-0", "app"), ("pod-uid", "guess"))


@pytest.mark.usefixtures("coredump_socket")
def test_a_process_of_the_host_is_no_pods(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    faithful.run_pod("shop", "node-1", {"app": new_id()})
    bundle = start()

    with by_socket(bundle):
        subprocess.run(
            ["unshare", "--uts", "sh", "-c", 'hostname node-1; exec "$0"', crash_program],
            check=False,
        )
        [record] = bundle.wait_for_stored()

    assert (record["namespace"], record["pod"]) == ("", "node-1")
    assert record["kubernetes"] is None


@pytest.mark.usefixtures("coredump_socket")
def test_the_end_of_the_containers_log_lies_beside_the_core(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    container = new_id()
    uid = faithful.run_pod("shop", "web-0", {"app": container})
    log = faithful.log_of("shop", "web-0", uid, "app")
    lines = [f"2026-01-01T00:00:00.{n:09d}Z stdout F line {n}\n" for n in range(50)]
    log.write_text("".join(lines))
    later = time.strftime("%Y-%m-%dT%H:%M:%S.000000001Z", time.gmtime(time.time() + 3600))
    (log.parent / "1.log").write_text(f"{later} stdout F begun after the crash\n")
    bundle = start(COREMON_LOG_LINES="10", COREMON_CORES_MAX_FILES="0", COREMON_MAX_USE="0")

    with by_socket(bundle):
        faithful.run(container, crash_program)
        [record] = bundle.wait_for_stored()

    kept = bundle.core(record).with_name(record["log"])
    assert kept.read_text() == "".join(lines[-10:])
    assert kept.stat().st_mode & 0o777 == 0o600
    assert record["log"] == record["name"] + ".log"


@pytest.mark.usefixtures("coredump_socket")
def test_a_hold_turns_away_one_namespace_and_not_its_twin(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    loud, quiet = new_id(), new_id()
    faithful.run_pod("shop", "web-0", {"app": loud})
    faithful.run_pod("twin", "web-0", {"app": quiet})
    bundle = start(COREMON_CORES_MAX_FILES="1")

    with by_socket(bundle):
        faithful.run(loud, crash_program, hostname="web-0")
        bundle.wait_for_stored()
        wait_until((bundle.run_dir / "holds.json").exists, "a hold")
        for _ in range(3):
            faithful.run(loud, crash_program, hostname="web-0")
        faithful.run(quiet, crash_program, hostname="web-0")
        stored = bundle.wait_for_stored(2)
        wait_until(
            lambda: [r["count"] for r in bundle.records() if r["state"] == "held"] == [3],
            "three crashes to be counted",
        )

    assert {record["namespace"] for record in stored} == {"shop", "twin"}


@pytest.mark.usefixtures("coredump_socket")
def test_a_full_node_that_crashes_at_once_has_every_core_under_its_pod(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    pods = {new_id(): ("shop" if n % 2 else "twin", f"web-{n // 2}") for n in range(PODS)}
    for container, (namespace, name) in pods.items():
        faithful.run_pod(namespace, name, {"app": container})
    bundle = start(COREMON_CORES_MAX_FILES="0")

    with by_socket(bundle), ThreadPoolExecutor(PODS) as threads:
        for container, (_, name) in pods.items():
            threads.submit(faithful.run, container, crash_program, hostname=name)
        stored = bundle.wait_for_stored(PODS, patience=90)

    assert {record["container_id"]: who(record)[:2] for record in stored} == pods
    assert {how(record)[0] for record in stored} == {"container-id"}
    assert bundle.leftovers() == []


def crash_by_file(bundle: Bundle, faithful: Node, program: Path, host: str, *claims: str) -> Any:
    container = new_id()
    faithful.run_pod("any", f"any-{container[:5]}", {"any": container})
    before = len(bundle.stored())
    with by_file(bundle):
        faithful.run(container, "env", "-i", *claims, program, hostname=host)
        return bundle.wait_for_stored(before + 1)[-1]


@pytest.mark.usefixtures("real_kernel")
def test_a_host_name_that_one_pod_has_is_that_pods(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    faithful.run_pod("shop", "web-0", {"app": new_id(), "crash": new_id()})
    record = crash_by_file(start(), faithful, crash_program, "web-0")

    assert (who(record), how(record)) == (
        ("shop", "web-0", "crash"),
        ("hostname", "process"),
    )


@pytest.mark.usefixtures("real_kernel")
def test_a_host_name_that_two_pods_have_is_a_guess_until_the_core_says_more(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    for namespace in ("shop", "twin"):
        faithful.run_pod(namespace, "web-0", {"app": new_id()})
    bundle = start()

    guessed = crash_by_file(bundle, faithful, crash_program, "web-0")
    told = crash_by_file(
        bundle, faithful, crash_program, "web-0", "POD_NAME=web-0", "POD_NAMESPACE=twin"
    )

    assert (guessed["pod"], how(guessed)[0]) == ("web-0", "guess")
    assert (who(told), how(told)) == (("twin", "web-0", "app"), ("core-environ", "only-one"))


@pytest.mark.usefixtures("real_kernel")
def test_a_claim_that_the_host_name_gainsays_is_a_guess(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    for name in ("web-0", "bank-0"):
        faithful.run_pod("shop", name, {"app": new_id()})
    record = crash_by_file(start(), faithful, crash_program, "web-0", "POD_NAME=bank-0")

    assert (record["pod"], how(record)[0]) == ("web-0", "guess")


@pytest.mark.usefixtures("real_kernel")
def test_a_core_in_a_pods_own_directory_is_that_pods_whatever_it_says(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    uid = faithful.run_pod("shop", "web-0", {"app": new_id(), "sidecar": new_id()})
    bundle = start()
    own = bundle.crash_dir / f"shop_web-0_{uid}_sidecar"
    own.mkdir()
    own.chmod(0o1777)

    with kernel.core_pattern(kernel.file_pattern(own)):
        subprocess.run(["env", "POD_NAME=bank-0", crash_program], check=False)
        [record] = bundle.wait_for_stored()

    assert (who(record), how(record)) == (
        ("shop", "web-0", "sidecar"),
        ("pod-uid", "directory"),
    )
    wait_until(lambda: not os.listdir(own), "the source to go")


@pytest.mark.usefixtures("real_kernel")
def test_a_directory_that_is_called_as_a_victims_is_a_guess(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    container = new_id()
    faithful.run_pod("tenant", "evil", {"app": container})
    victim = faithful.run_pod("bank", "bank-0", {"app": new_id()})
    bundle = start()
    asked_for = bundle.crash_dir / f"bank_bank-0_{victim}_app"
    asked_for.mkdir()
    asked_for.chmod(0o1777)

    with kernel.core_pattern(kernel.file_pattern(asked_for)):
        faithful.run(container, crash_program, hostname="evil")
        [record] = bundle.wait_for_stored()

    assert (who(record), how(record)) == (("tenant", "evil", "app"), ("guess", "guess"))


@pytest.mark.usefixtures("real_kernel")
def test_a_directory_that_anybody_made_is_no_pods(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    uid = faithful.run_pod("shop", "web-0", {"app": new_id()})
    bundle = start(COREMON_SCAN_INTERVAL="1s")
    forged = bundle.home / "forged"
    forged.mkdir()
    shutil.copy(crash_program, forged / f"core.x.1.web-0.{time.time_ns()}")
    os.chown(forged, 65534, 65534)
    forged = forged.rename(bundle.crash_dir / f"shop_web-0_{uid}")
    link = bundle.crash_dir / f"twin_web-0_{uid}"
    link.symlink_to(forged)

    with by_file(bundle):
        subprocess.run([crash_program], check=False)
        bundle.wait_for_stored()
    time.sleep(2.5)  # two looks through all

    assert len(bundle.records()) == 1
    assert len(os.listdir(forged)) == 1


@pytest.mark.usefixtures("real_kernel")
def test_a_pod_that_was_deleted_is_still_known(
    start: StartBundle, faithful: Node, crash_program: Path
) -> None:
    uid = faithful.run_pod("shop", "web-0", {"app": new_id()})
    bundle = start(COREMON_SCAN_INTERVAL="1s")
    time.sleep(2.5)  # it looks at who is there once a second
    faithful.end_pod("shop", "web-0", uid)
    record = crash_by_file(bundle, faithful, crash_program, "web-0")

    assert (who(record), how(record)[0]) == (("shop", "web-0", "app"), "hostname")
    assert record["kubernetes"]["uid"] == uid
