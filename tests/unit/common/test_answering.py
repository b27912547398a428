import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from common.answering import Answer, Answering
from tests.bundle import wait_until

LARGE = bytes(8 * 2**20)
"""More than any buffer between two ends takes in."""

Start = Callable[..., Callable[[], socket.socket]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that starts to answer, and gives one that connects."""
    with ExitStack() as stack:

        def started(answer: Answer, **options: float) -> Callable[[], socket.socket]:
            listener = socket.create_server(("127.0.0.1", 0))
            stack.enter_context(Answering(listener, answer, **options))  # type: ignore[arg-type]

            def connect() -> socket.socket:
                connection = stack.enter_context(socket.create_connection(listener.getsockname()))
                connection.settimeout(20)
                return connection

            return connect

        yield started


def echo(received: bytes) -> bytes | None:
    return received if received.endswith(b".") else None


def all_of(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.read()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_who_has_said_all_is_answered_and_left(start: Start) -> None:
    connection = start(echo)()

    connection.sendall(b"a word")
    connection.sendall(b" or two.")

    assert all_of(connection) == b"a word or two."


def test_who_need_not_say_anything_is_answered_at_once(start: Start) -> None:
    connection = start(lambda _: LARGE)()

    assert all_of(connection) == LARGE


def test_who_is_silent_keeps_nobody_waiting(start: Start) -> None:
    connect = start(echo)
    silent = [connect() for _ in range(20)]
    for connection in silent[::2]:
        connection.sendall(b"half a word")

    later = connect()
    later.sendall(b"x.")

    assert all_of(later) == b"x."


def test_who_never_reads_keeps_nobody_waiting(start: Start) -> None:
    connect = start(lambda _: LARGE)
    deaf = [connect() for _ in range(5)]

    assert all_of(connect()) == LARGE
    assert len(deaf) == 5


def test_who_stays_silent_too_long_is_left(start: Start) -> None:
    connection = start(echo, patience=0.1)()

    assert is_closed(connection)


def test_who_drips_for_ever_is_left_as_well(start: Start) -> None:
    connection = start(echo, patience=0.3)()

    def drip() -> bool:
        try:
            connection.sendall(b"x")
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    wait_until(drip, "the end of the connection", 20)


def test_one_too_many_takes_the_place_of_the_oldest(start: Start) -> None:
    connect = start(echo, most=3)
    oldest, *others = [connect() for _ in range(3)]
    # They are accepted in their order: once a further one is answered, all were.
    further = connect()
    further.sendall(b"x.")
    assert all_of(further) == b"x."

    assert is_closed(oldest)
    for connection in others:
        connection.sendall(b"y.")
        assert all_of(connection) == b"y."


def test_many_at_once_are_all_answered(start: Start) -> None:
    connect = start(echo)

    def ask(number: int) -> bytes:
        connection = connect()
        connection.sendall(b"%d." % number)
        return all_of(connection)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(200)))

    assert answers == [b"%d." % number for number in range(200)]


def test_an_answer_that_fails_costs_its_connection_only(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(received: bytes) -> bytes | None:
        if received == b"fail":
            raise RuntimeError("a bug")
        return echo(received)

    connect = start(answer)
    failing = connect()
    failing.sendall(b"fail")
    assert is_closed(failing)

    other = connect()
    other.sendall(b"x.")

    assert all_of(other) == b"x."
    assert [record.getMessage() for record in caplog.records] == ["cannot answer"]


def test_what_comes_behind_a_question_does_not_cut_the_answer_off(start: Start) -> None:
    connection = start(lambda received: LARGE if received else None)()

    connection.sendall(bytes(200_000))

    assert all_of(connection) == LARGE
