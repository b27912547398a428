"""Metrics and health of a bundle that runs."""

import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from common.acknowledgement import ACKNOWLEDGEMENT_VERSION
from common.metrics import LABEL_LIMIT, OTHER
from common.settings import NANOSECONDS
from common.workqueue import items_endpoint
from services.coremond.measures import GUESS
from tests import crashes
from tests.bundle import PATIENCE, Bundle, Home, wait_until

MOST = 5
HOSTILE = ['we"b', "we\\b", "we\nb", "we{b}=", "ü" * 100, "x" * 250, "_other", "=1 2"]


class Scraped(Bundle):
    """A bundle whose metrics are asked for."""

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Ask the port of the metrics; give the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    @property
    def port(self) -> int:
        return int(self.wait_for("metrics are served")["address"].rpartition(":")[2])

    def numbers(self) -> dict[tuple[str, ...], float]:
        """Read all numbers, by their name and the values of their labels."""
        status, text = self.get("/metrics")
        assert status == 200
        return {
            (sample.name.removeprefix("coremond_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_for_number(self, value: float, *name: str) -> None:
        wait_until(lambda: self.numbers().get(name) == value, f"{name} to be {value}")

    def wait_for_readiness(self, *faults: str) -> None:
        """Wait until each of *faults* is said, or there is none."""

        def is_so() -> bool:
            status, text = self.get("/readyz")
            if not faults:
                return status == 200
            return status == 503 and all(fault in text for fault in faults)

        wait_until(is_so, f"readiness: {faults}")


@pytest.fixture
def bundle() -> Iterator[Scraped]:
    with ExitStack() as stack:
        home = stack.enter_context(Home())
        (home / "minlevel.yaml").write_text("default: debug\n")
        settings = {
            "COREMON_METRICS_WORKLOADS": str(MOST),
            "COREMON_CORES_MAX_FILES": "0",
            "COREMON_SCAN_INTERVAL": "200ms",
            "CRASHAGENT_KERNEL_SOCKET": "off",
        }
        bundle = stack.enter_context(Scraped(home, settings))
        bundle.wait_for_readiness()
        yield bundle


def crash(bundle: Bundle, message: bytes = b"9 11 0 1") -> None:
    """Hand a core in."""
    with crashes.Sender(bundle.apport_socket) as sender:
        sender.send_message(message)
        sender.write(os.urandom(10_000))


def test_a_crash_is_counted_on_its_whole_way(bundle: Scraped) -> None:
    before = bundle.numbers()
    crash(bundle)
    bundle.wait_for_stored()

    bundle.wait_for_number(1, "crashes_stored_total")

    after = bundle.numbers()
    rose = {name for name, number in after.items() if number > before.get(name, 0)}
    assert {
        ("intake_total", "apport"),
        ("intake_capture_total", "stream"),
        ("intake_bytes_total",),
        ("crashes_total", "apport"),
        ("core_bytes_total",),
        ("packed_bytes_total",),
        ("store_cores",),
        ("store_bytes",),
        ("crashes_unacknowledged",),
        ("last_stored_timestamp_seconds",),
        ("phase_seconds_count", "convert"),
        ("intake_seconds_count", "whole"),
    } <= rose
    assert after["packed_bytes_total",] >= 10_000
    assert after["queue", "waiting"] == after["intake_under_way",] == 0


def test_a_program_that_is_stopped_is_named_until_it_goes_on(bundle: Scraped) -> None:
    for program in ("coremond", "crashagent"):
        pid = bundle.pid_of(program)
        os.kill(pid, signal.SIGSTOP)
        try:
            bundle.wait_for_readiness(f"{program}: it does not answer")
            assert bundle.get("/healthz") == (200, "ok\n")
            assert bundle.numbers()["program_up", program] == 0
            assert bundle.numbers()["ready",] == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        bundle.wait_for_readiness()


@pytest.mark.parametrize("program", ["coremond", "crashagent"])
def test_a_program_that_is_away_is_named_until_it_is_back(bundle: Scraped, program: str) -> None:
    bundle.ask("stopProcess", program)

    bundle.wait_for_readiness(f"{program}: it does not answer")

    bundle.ask("startProcess", program)
    bundle.wait_for_readiness()


@pytest.mark.parametrize("program", ["coremond", "crashagent"])
def test_a_program_that_was_killed_leaves_nothing_in_the_way_of_the_next(
    bundle: Scraped, program: str
) -> None:
    killed = bundle.kill(program)
    wait_until(lambda: bundle.pid_of(program) not in {0, killed}, f"another {program}")

    bundle.wait_for_readiness()

    assert bundle.numbers()["program_up", program] == 1


def test_a_store_that_is_gone_is_told_until_it_is_back(bundle: Scraped) -> None:
    aside = bundle.store_dir.with_name("aside")
    bundle.store_dir.rename(aside)

    bundle.wait_for_readiness(f"coremond: {bundle.store_dir}: No such file or directory")

    assert bundle.get("/healthz") == (200, "ok\n")
    aside.rename(bundle.store_dir)
    bundle.wait_for_readiness()


def test_sockets_that_nobody_can_reach_are_told(bundle: Scraped) -> None:
    bundle.apport_socket.unlink()

    bundle.wait_for_readiness(f"crashagent: nobody can connect at {bundle.apport_socket}")


def test_hostile_workloads_forge_nothing_and_have_no_more_than_their_series(
    bundle: Scraped,
) -> None:
    for number, name in enumerate(HOSTILE):
        source = (
            f"core.x.{number}.{name.replace(chr(10), '!')[:60]}.{time.time_ns() // NANOSECONDS}"
        )
        (bundle.crash_dir / source).write_bytes(b"a core")
    bundle.wait_for_stored(len(HOSTILE))

    bundle.wait_for_number(len(HOSTILE), "crashes_stored_total")

    numbers = bundle.numbers()
    found = {
        name: number for name, number in numbers.items() if name[0] == "workload_crashes_total"
    }
    assert len(found) == MOST + 2
    assert found["workload_crashes_total", "", GUESS, ""] == 0
    assert sum(found.values()) == len(HOSTILE)
    assert found["workload_crashes_total", "", OTHER, ""] >= len(HOSTILE) - MOST
    assert all(len(value) <= LABEL_LIMIT for name in found for value in name)


def test_an_operator_acknowledges_what_he_has_seen(bundle: Scraped) -> None:
    crash(bundle)
    crash(bundle, b"10 11 0 1")
    bundle.wait_for_stored(2)
    bundle.wait_for_number(2, "crashes_unacknowledged")

    one = bundle.corectl("ack", "10")
    left = bundle.corectl("list", "--new", "--quiet")
    again = bundle.corectl("ack", "10")
    others = bundle.corectl("ack", "--all")

    assert (one.returncode, one.stdout) == (0, "1 acknowledged\n")
    assert [line.split()[-2] for line in left.stdout.splitlines()] == ["new"]
    assert (again.returncode, again.stderr) == (1, "No new coredumps found.\n")
    assert (others.returncode, others.stdout) == (0, "1 acknowledged\n")
    bundle.wait_for_number(0, "crashes_unacknowledged")
    assert bundle.corectl("list", "--new").returncode == 1
    assert [line.split()[-2] for line in bundle.corectl("list", "-q").stdout.splitlines()] == [
        "-"
    ] * 2


def test_what_is_meant_has_to_be_said(bundle: Scraped) -> None:
    crash(bundle)
    bundle.wait_for_stored()

    assert bundle.corectl("ack").returncode == 2
    assert bundle.corectl("ack", "--all", "9").returncode == 2
    assert bundle.corectl("list", "--new").returncode == 0


def test_many_are_acknowledged_at_once(bundle: Scraped) -> None:
    number = 130
    for pid in range(number):
        (bundle.crash_dir / f"core.x.{pid + 1}.web.{time.time_ns()}").write_bytes(b"a core")
    bundle.wait_for_stored(number)
    bundle.wait_for_number(number, "crashes_unacknowledged")

    assert bundle.corectl("ack", "--all").stdout == f"{number} acknowledged\n"

    bundle.wait_for_number(0, "crashes_unacknowledged")


def test_a_coremond_that_is_away_acknowledges_nothing(bundle: Scraped) -> None:
    crash(bundle)
    bundle.wait_for_stored()
    bundle.ask("stopProcess", "coremond")

    ended = bundle.corectl("ack", "--all")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "coremond did not take it within 2 s" in ended.stderr


def test_a_malformed_acknowledgement_is_dropped(bundle: Scraped) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
        sender.connect(items_endpoint(bundle.run_dir))
        for body in (b"", b'{"ids":["../x"]}', b"[" * 10**5):
            sender.send_multipart([ACKNOWLEDGEMENT_VERSION, body])
        sender.send_multipart([b"ack/99", b"{}"])

        wait_until(
            lambda: sum(e["m"] == "work item refused" for e in bundle.events()) == 4, "4 lines"
        )
    assert bundle.pid_of("coremond")


def test_many_scrapes_at_once_beside_slow_clients_are_all_answered(bundle: Scraped) -> None:
    port = bundle.port
    with ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            slow.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: bundle.get("/metrics")[0], range(60)))

    assert answers == [200] * 60


def test_a_port_that_is_taken_leaves_all_else_as_it_is() -> None:
    with Home() as home, socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Scraped(home, {"COREMON_METRICS_ADDRESS": address}) as bundle:
            line = bundle.wait_for("metrics not served", address=address)
            crash(bundle)
            bundle.wait_for_stored()
            status = bundle.corectl("status")

    assert line["reason"] == "Address already in use"
    assert status.returncode == 1
    assert f"metrics at {address}" in status.stderr


def test_nothing_is_served_where_nothing_is_asked_for() -> None:
    with Home() as home:
        (home / "minlevel.yaml").write_text("default: debug\n")
        with Scraped(home, {"COREMON_METRICS_ADDRESS": "off"}) as bundle:
            wait_until(lambda: bundle.corectl("status").returncode == 0, "the programs to be well")

            assert bundle.find("metrics are served") is None


def test_corectl_tells_where_metrics_are_and_why_it_is_not_ready(bundle: Scraped) -> None:
    bundle.settings["COREMON_METRICS_ADDRESS"] = f"127.0.0.1:{bundle.port}"
    wait_until(lambda: bundle.corectl("status").returncode == 0, "the programs to be well")
    well = bundle.corectl("status")
    shutil.rmtree(bundle.store_dir)
    bundle.wait_for_readiness("No such file or directory")
    ill = bundle.corectl("status")

    assert f"Metrics: http://127.0.0.1:{bundle.port}/metrics, ready\n" in well.stdout
    assert "/metrics, not ready\n" in ill.stdout
    assert f"not ready: coremond: {bundle.store_dir}: No such file" in ill.stderr
    assert ill.returncode == 1
