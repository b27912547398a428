import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.qkview_collect.exposition import CONTENT_TYPE
from services.qkview_collect.metrics_port import MetricsPort, listen
from services.qkview_collect.overview import View
from services.qkview_collect.pages import Pages
from tests.bundle import wait_until

VIEW = View(families=(), faults=("coremond: it does\nnot answer",), dead=())


def free_port(host: str = "127.0.0.1") -> int:
    with closing(listen(f"{host}:0")) as listener:
        port: int = listener.getsockname()[1]
    return port


def ask(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1"
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    with closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read().decode()


def opened(address: str, caplog: pytest.LogCaptureFixture) -> int:
    """Wait until the port is had, and give it."""

    def bound() -> str:
        found = [r for r in caplog.records if r.getMessage() == "metrics are served"]
        return found[-1].facts["address"] if found else ""  # type: ignore[attr-defined]

    text: str = wait_until(bound, f"metrics at {address}")
    return int(text.rpartition(":")[2])


@pytest.fixture
def port(caplog: pytest.LogCaptureFixture) -> Iterator[int]:
    caplog.set_level("DEBUG")
    with MetricsPort("127.0.0.1:0", Pages(lambda: VIEW).answer):
        yield opened("127.0.0.1:0", caplog)


def test_metrics_are_served_in_the_format_that_says_so(port: int) -> None:
    response, text = ask(port, "/metrics?x=1")

    assert (response.status, response.headers["Content-Type"], text) == (200, CONTENT_TYPE, "")


def test_life_and_readiness_differ_and_each_fault_is_one_line(port: int) -> None:
    alive, alive_text = ask(port, "/healthz")
    ready, ready_text = ask(port, "/readyz")

    assert (alive.status, alive_text) == (200, "ok\n")
    assert (ready.status, ready_text) == (503, "coremond: it does not answer\n")


def test_a_head_is_the_same_without_its_body(port: int) -> None:
    response, text = ask(port, "/readyz", "HEAD")

    assert (response.status, text) == (503, "")
    assert response.headers["Content-Length"] == "29"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/etc/passwd", "/../metrics", "/healthz%00"])
def test_there_are_no_other_paths(port: int, path: str) -> None:
    assert ask(port, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_there_are_no_other_methods(port: int, method: str) -> None:
    response, _ = ask(port, "/metrics", method)

    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_who_speaks_something_else_is_told_so(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\n")
        with connection.makefile("rb") as file:
            answer = file.read()

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_port_that_is_taken_is_told_once_and_had_as_soon_as_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    with MetricsPort(f"127.0.0.1:{port}", Pages(lambda: VIEW).answer, retry=0.05):
        [line] = [r for r in caplog.records if r.getMessage() == "metrics not served"]
        taken.close()
        assert opened("", caplog) == port
        assert ask(port, "/healthz")[0].status == 200

    assert line.facts["reason"] == "Address already in use"  # type: ignore[attr-defined]
    assert [r for r in caplog.records if r.levelname == "ERROR"] == [line]


def test_a_host_that_is_not_there_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with MetricsPort("host.invalid:1", Pages(lambda: VIEW).answer):
        pass

    [line] = caplog.records
    assert line.getMessage() == "metrics not served"


def test_everywhere_is_reached_by_both_kinds_of_addresses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("missing: IPv6")
    caplog.set_level("DEBUG")

    with MetricsPort("[::]:0", Pages(lambda: VIEW).answer):
        port = opened("[::]:0", caplog)

        assert ask(port, "/healthz")[0].status == 200
        assert ask(port, "/healthz", host="::1")[0].status == 200


def test_who_follows_finds_the_port_free(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    port = free_port()
    for _ in range(3):
        with MetricsPort(f"127.0.0.1:{port}", Pages(lambda: VIEW).answer):
            assert ask(port, "/healthz")[0].status == 200

    assert "metrics not served" not in caplog.text
