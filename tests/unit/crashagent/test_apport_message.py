import array
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MessageError
from services.crashagent.apport_message import (
    Forwarded,
    parse_message,
    read_credentials,
    read_descriptors,
)
from tests.unit.factories import without_deadline

UNLIMITED = 2**64 - 1

Ancillary = tuple[int, int, bytes]


def rights(*descriptors: int) -> Ancillary:
    data = array.array("i", descriptors).tobytes()
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, data)


def credentials(pid: int) -> Ancillary:
    return (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", pid, 0, 0))


def test_a_message_of_todays_hosts_has_four_words() -> None:
    assert parse_message(b"7 11 18446744073709551615 1") == Forwarded(
        pid=7, signal=11, rlimit=None, dumpable=1
    )


def test_a_message_of_the_hosts_of_2016_has_three() -> None:
    assert parse_message(b"7 6 0") == Forwarded(pid=7, signal=6, rlimit=0, dumpable=None)


@given(
    st.integers(1, 2**31 - 1),
    st.integers(1, 255),
    st.integers(0, UNLIMITED),
    st.none() | st.integers(0, 2),
)
def test_what_a_host_writes_is_read(pid: int, number: int, rlimit: int, mode: int | None) -> None:
    words = [pid, number, rlimit, *([] if mode is None else [mode])]

    said = parse_message(" ".join(map(str, words)).encode())

    assert (said.pid, said.signal, said.dumpable) == (pid, number, mode)
    assert said.rlimit == (None if rlimit == UNLIMITED else rlimit)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"7",
        b"7 11",
        b"7 11 0 1 2",
        b"0 11 0 1",
        b"-7 11 0 1",
        b"2147483648 11 0 1",
        b"7 0 0 1",
        b"7 256 0 1",
        b"7 11 18446744073709551616 1",
        b"7 11 -1 1",
        b"7 11 0 3",
        b"7 11 0 x",
        b"7 11 0 1\0",
        b"7.0 11 0 1",
        b"0x7 11 0 1",
        b"7_0 11 0 1",
        "\u0667 11 0 1".encode(),
        b"7 11 0 " + b"1" * 4000,
        b"7" * 4096,
    ],
)
def test_a_message_out_of_its_ranges_is_refused(message: bytes) -> None:
    with pytest.raises(MessageError):
        parse_message(message)


@without_deadline
@given(
    st.binary()
    | st.lists(st.integers() | st.text(max_size=3)).map(
        lambda words: " ".join(map(str, words)).encode()
    )
)
def test_any_bytes_are_a_message_or_refused_and_nothing_worse(message: bytes) -> None:
    try:
        said = parse_message(message)
    except MessageError:
        return

    assert said.pid is not None
    assert 0 < said.pid < 2**31


@pytest.mark.parametrize("credentials_first", [True, False])
def test_descriptors_and_credentials_are_read_in_either_order(credentials_first: bool) -> None:
    sent = [rights(5), credentials(42)]

    ancillary = sent[::-1] if credentials_first else sent

    assert read_descriptors(ancillary) == [5]
    assert read_credentials(ancillary) == 42


def test_every_descriptor_of_every_part_is_the_callers() -> None:
    assert read_descriptors([rights(5, 6), credentials(1), rights(7)]) == [5, 6, 7]


@given(st.lists(st.integers(0, 2**31 - 1), max_size=20), st.integers(0, 99))
def test_a_part_that_was_cut_gives_its_whole_descriptors(sent: list[int], length: int) -> None:
    level, kind, data = rights(*sent)

    found = read_descriptors([(level, kind, data[:length])])

    assert found == sent[: min(length, len(data)) // 4]


@given(st.integers(0, 11))
def test_credentials_that_were_cut_are_none(length: int) -> None:
    level, kind, data = credentials(42)

    assert read_credentials([(level, kind, data[:length])]) is None


def test_a_pid_that_is_not_seen_from_here_is_none() -> None:
    assert read_credentials([credentials(0)]) is None
    assert read_credentials([]) is None


def test_parts_of_other_levels_and_kinds_are_passed_over() -> None:
    other = [
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, b"\5\0\0\0"),
        (socket.SOL_SOCKET, 99, b"\5" * 12),
    ]

    assert read_descriptors(other) == []
    assert read_credentials(other) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.binary(max_size=20))))
def test_any_parts_are_read_without_harm(ancillary: list[Ancillary]) -> None:
    descriptors = read_descriptors(ancillary)

    assert len(descriptors) <= sum(len(data) // 4 for _, _, data in ancillary)
    read_credentials(ancillary)


def test_what_the_kernel_hands_over_is_read() -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver, open("/dev/null", "rb") as core:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        own = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
        sender.sendmsg(
            [b"7 11 0 1"],
            [
                (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [core.fileno()])),
                (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, own),
            ],
        )
        message, ancillary, _, _ = receiver.recvmsg(99, 999)
    [descriptor] = read_descriptors(ancillary)

    assert parse_message(message).pid == 7
    assert read_credentials(ancillary) == os.getpid()
    assert os.fstat(descriptor).st_rdev == os.stat("/dev/null").st_rdev
    os.close(descriptor)
