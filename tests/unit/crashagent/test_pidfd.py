import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from services.crashagent.pidfd import inode_of, peer_pidfd, pid_of, read_pidfd

PAUSE = ["sleep", "1000"]


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(PAUSE) as process:
        yield process
        process.kill()


@pytest.fixture
def childs(child: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Give a pidfd of the child."""
    pidfd = os.pidfd_open(child.pid)
    yield pidfd
    os.close(pidfd)


@pytest.fixture
def tells() -> None:
    """Ask for a kernel that tells of cores by a pidfd."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        read_pidfd(pidfd)
    except OSError as error:
        pytest.skip(f"missing: Linux 6.16, for PIDFD_GET_INFO ({error.strerror})")
    finally:
        os.close(pidfd)


@pytest.mark.usefixtures("tells")
def test_a_process_that_lives_is_not_being_dumped(childs: int) -> None:
    info = read_pidfd(childs)

    assert info.pid == pid_of(childs)
    assert not info.is_dumped


@pytest.mark.usefixtures("tells")
def test_we_ourselves_are_not_being_dumped() -> None:
    pidfd = os.pidfd_open(os.getpid())
    info = read_pidfd(pidfd)
    os.close(pidfd)

    assert (info.pid, info.is_dumped) == (os.getpid(), False)


@pytest.mark.usefixtures("tells")
def test_a_process_that_is_reaped_has_no_pid_and_was_not_dumped(
    child: "subprocess.Popen[bytes]", childs: int
) -> None:
    child.kill()
    child.wait()

    info = read_pidfd(childs)

    assert (info.pid, info.is_dumped) == (0, False)


def test_the_pid_is_told_until_the_process_is_reaped(
    child: "subprocess.Popen[bytes]", childs: int
) -> None:
    assert pid_of(childs) == child.pid

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert pid_of(childs) == child.pid  # a zombie still has it

    child.wait()
    assert pid_of(childs) == -1


def test_what_is_no_pidfd_has_no_pid() -> None:
    reading, writing = os.pipe()
    try:
        assert pid_of(reading) == -1
        with pytest.raises(OSError, match="ioctl"):
            read_pidfd(reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_the_peer_of_a_connection_is_who_made_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pidfd = peer(ours)

        assert pid_of(pidfd) == os.getpid()
        assert not os.get_inheritable(pidfd)
        os.close(pidfd)


def test_the_peer_is_told_after_it_is_gone() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0" + os.urandom(8).hex().encode())
        listener.listen()
        child = os.fork()
        if child == 0:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(listener.getsockname())
                os._exit(0)
        connection, _ = listener.accept()
        with connection:
            before = peer(connection)
            os.waitpid(child, 0)
            after = peer(connection)

            assert (pid_of(before), pid_of(after)) == (-1, -1)
            assert inode_of(before) == inode_of(after)
            os.close(before)
            os.close(after)


def peer(connection: socket.socket) -> int:
    try:
        return peer_pidfd(connection)
    except OSError as error:
        pytest.skip(f"missing: Linux 6.5, for the pidfd of a peer ({error.strerror})")


def test_each_process_has_an_inode_of_its_own(child: "subprocess.Popen[bytes]") -> None:
    pidfds = [os.pidfd_open(child.pid), os.pidfd_open(child.pid), os.pidfd_open(os.getpid())]
    one, again, another = map(inode_of, pidfds)
    for pidfd in pidfds:
        os.close(pidfd)
    if one == another:
        pytest.skip("missing: Linux 6.9, where pidfds have inodes of their own")

    assert one == again
