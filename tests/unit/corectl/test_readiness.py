import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from common.answering import Answering
from services.corectl.readiness import Readiness, ReadinessError, ask_readiness

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that has a text answered to every request, and gives where."""
    with ExitStack() as stack:

        def served(text: bytes) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            stack.enter_context(Answering(listener, lambda asked: text if asked else None))
            return f"0.0.0.0:{listener.getsockname()[1]}"

        yield served


def test_who_is_ready_has_no_faults(serve: Serve) -> None:
    address = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    assert ask_readiness(address, 20) == Readiness(address=address)


def test_who_is_not_ready_says_a_fault_in_each_line(serve: Serve) -> None:
    address = serve(b"HTTP/1.1 503 Service Unavailable\r\n\r\ncoremond: a\ncrashagent: b\n")

    assert ask_readiness(address, 20).faults == ("coremond: a", "crashagent: b")


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_somebody_else_at_the_port_is_told_as_such(serve: Serve, text: bytes) -> None:
    with pytest.raises(ReadinessError, match="is not qkview-collect"):
        ask_readiness(serve(text), 20)
