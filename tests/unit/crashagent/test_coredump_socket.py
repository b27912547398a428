import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from common.errors import TruncatedError
from services.crashagent.coredump_socket import Request, ask_for_core, read_request, reject

KERNEL, USERSPACE, REJECT, WAIT = 1, 2, 4, 8
REQUEST = struct.pack("=IIQ", 16, 16, 0xF)
OFFER = Request(16, 0xF)
WELL = struct.pack("=I", 0)
SHORT = 0.05
"""Seconds; only for those who say nothing more."""

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give a connection as crashagent has it, and the kernel's end."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with ours, kernels:
        yield ours, kernels


def left_in(connection: socket.socket) -> bytes:
    """Give what is still to be read."""
    try:
        return connection.recv(2**20)
    except BlockingIOError:
        return b""


def test_a_request_is_read_and_nothing_behind_it(ends: Ends) -> None:
    ours, kernels = ends
    kernels.sendall(REQUEST + b"\x7fELF and so on")

    assert read_request(ours) == Request(size_ack=16, mask=0xF)
    assert left_in(ours) == b"\x7fELF and so on"


@pytest.mark.parametrize("size", [17, 24, 80, 4095])
def test_the_rest_of_a_longer_request_is_discarded(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(struct.pack("=IIQ", size, 32, 0xFF) + b"?" * (size - 16) + b"next")

    assert read_request(ours) == Request(size_ack=32, mask=0xFF)
    assert left_in(ours) == b"next"


def test_of_a_core_that_comes_at_once_nothing_is_taken(ends: Ends) -> None:
    ours, kernels = ends
    kernels.sendall(b"\x7fELF and so on")

    assert read_request(ours) is None
    assert left_in(ours) == b"\x7fELF and so on"


@pytest.mark.parametrize("size", [0, 1, 8, 15, 4096, 2**31, 2**32 - 1])
def test_a_request_of_an_impossible_size_is_refused(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(struct.pack("=IIQ", size, 16, 0xF) + bytes(8192))

    with pytest.raises(TruncatedError, match=f"cannot have {size} bytes"):
        read_request(ours)


@pytest.mark.parametrize("size", [0, 8, 15])
def test_an_answer_that_would_be_too_short_is_not_given(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(struct.pack("=IIQ", 16, size, 0xF))

    with pytest.raises(TruncatedError, match=f"cannot have {size} bytes"):
        read_request(ours)


@pytest.mark.parametrize("step", [1, 3, 5, 15])
def test_a_request_may_come_in_pieces(ends: Ends, step: int) -> None:
    ours, kernels = ends

    with said(kernels, [REQUEST[at : at + step] for at in range(0, 16, step)]):
        assert read_request(ours) == OFFER


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_first_bytes_of_a_core_may_come_in_pieces(ends: Ends, step: int) -> None:
    ours, kernels = ends

    with said(kernels, [b"\x7fELF"[at : at + step] for at in range(0, 4, step)]):
        assert read_request(ours) is None


@contextmanager
def said(connection: socket.socket, pieces: list[bytes]) -> Iterator[None]:
    """Send *pieces* one after the other, each once the one before may have been seen."""
    never = threading.Event()

    def send() -> None:
        for piece in pieces:
            connection.sendall(piece)
            never.wait(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("size", range(16))
def test_who_falls_silent_is_not_waited_for(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(REQUEST[:size])

    with pytest.raises(TruncatedError, match="in time"):
        read_request(ours, SHORT)


@pytest.mark.parametrize("size", range(16))
def test_who_ends_is_noticed_at_once(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(REQUEST[:size])
    kernels.close()

    with pytest.raises(TruncatedError, match="and ended"):
        read_request(ours, 3600)


@pytest.mark.parametrize("size", range(3))
def test_who_ends_in_the_first_bytes_of_a_core_is_noticed(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(b"\x7fELF"[:size])
    kernels.shutdown(socket.SHUT_WR)

    with pytest.raises(TruncatedError, match="and ended"):
        read_request(ours, 3600)


def test_who_ends_behind_the_request_has_said_it(ends: Ends) -> None:
    ours, kernels = ends
    kernels.sendall(REQUEST)
    kernels.close()

    assert read_request(ours) == OFFER


@pytest.mark.parametrize(
    ("mask", "expected"), [(0xF, KERNEL | WAIT), (0x7, KERNEL), (2**64 - 1, KERNEL | WAIT)]
)
def test_the_core_is_asked_for_with_what_the_kernel_knows(
    ends: Ends, mask: int, expected: int
) -> None:
    ours, kernels = ends
    kernels.sendall(WELL + b"\x7fELF")

    ask_for_core(ours, Request(16, mask))

    assert kernels.recv(4096) == struct.pack("=IIQ", 16, 0, expected)
    assert left_in(ours) == b"\x7fELF"


def test_an_answer_has_sixteen_bytes_whatever_more_is_taken(ends: Ends) -> None:
    ours, kernels = ends
    kernels.sendall(WELL)

    ask_for_core(ours, Request(4096, 0xF))

    assert len(kernels.recv(4096)) == 16


def test_to_reject_says_so_and_nothing_else(ends: Ends) -> None:
    ours, kernels = ends
    kernels.sendall(WELL)

    reject(ours, OFFER)

    assert kernels.recv(4096) == struct.pack("=IIQ", 16, 0, REJECT)


def test_a_kernel_that_asks_nothing_is_told_nothing(ends: Ends) -> None:
    ours, kernels = ends
    kernels.setblocking(False)

    reject(ours, None)

    assert left_in(kernels) == b""


@pytest.mark.parametrize("mark", [1, 2, 3, 4, 0x80000000, 2**32 - 1])
def test_a_kernel_that_does_not_take_the_answer_sends_no_core(ends: Ends, mark: int) -> None:
    ours, kernels = ends
    kernels.sendall(struct.pack("=I", mark))

    with pytest.raises(TruncatedError, match=f"mark {mark:#x}"):
        ask_for_core(ours, OFFER)


@pytest.mark.parametrize("size", range(4))
def test_a_mark_that_does_not_come_is_not_waited_for(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(WELL[:size])

    with pytest.raises(TruncatedError, match="in time"):
        ask_for_core(ours, OFFER, SHORT)


@pytest.mark.parametrize("size", range(4))
def test_an_end_in_place_of_the_mark_is_noticed(ends: Ends, size: int) -> None:
    ours, kernels = ends
    kernels.sendall(WELL[:size])
    kernels.shutdown(socket.SHUT_WR)

    with pytest.raises(TruncatedError, match="and ended"):
        ask_for_core(ours, OFFER, 3600)


@pytest.mark.parametrize("answer", [ask_for_core, reject])
def test_a_process_that_was_killed_meanwhile_ends_nobody(
    ends: Ends, answer: Callable[[socket.socket, Request], None]
) -> None:
    ours, kernels = ends
    kernels.close()

    with pytest.raises(TruncatedError, match="the kernel went away"):
        answer(ours, OFFER)
