"""What crashagent accepted and had not noted is handed on, and what it had noted is not."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from common.daemon import Stop
from common.item import CrashItem
from common.packing.crew import Crew
from services.crashagent import keeper
from services.crashagent.apport_message import ANCILLARY_SIZE, MESSAGE_SIZE, read_descriptors
from services.crashagent.listener import open_listener
from services.crashagent.settings import CrashagentSettings
from services.crashagent.spool import Spool
from tests import crashes
from tests.bundle import wait_until
from tests.unit.factories import events_said

MESSAGE = b"7 11 0 1"


@pytest.fixture
def settings(home: Path) -> CrashagentSettings:
    return CrashagentSettings(crash_dir=home, apport_socket=home / "apport.socket")


@contextmanager
def accepted(settings: CrashagentSettings) -> Iterator[tuple[socket.socket, int]]:
    """Accept a connection with a message; give the listener, and the inode of the core's pipe."""
    reading, writing = os.pipe()
    with open_listener(settings.apport_socket) as listener:
        crashes.forward(settings.apport_socket, MESSAGE, reading)
        connection, _ = listener.accept()
        listener.setblocking(False)
        try:
            with connection:
                yield listener, os.fstat(reading).st_ino
        finally:
            os.close(reading)
            os.close(writing)


def test_a_connection_that_nobody_noted_is_handed_on_whole(settings: CrashagentSettings) -> None:
    with accepted(settings) as (listener, pipe):
        handed = keeper.rescue(settings)

        again, _ = listener.accept()
        with again:
            message, ancillary, _, _ = again.recvmsg(MESSAGE_SIZE, ANCILLARY_SIZE)
        [core] = read_descriptors(ancillary)
        same = os.fstat(core).st_ino == pipe
        os.close(core)

    assert (handed, message, same) == (1, MESSAGE, True)


def test_a_crash_that_was_noted_is_not_handed_on(settings: CrashagentSettings) -> None:
    with (
        accepted(settings) as (listener, pipe),
        Crew(1) as crew,
        closing(Spool(settings.crash_dir, "host", "gzip", crew)) as spool,
    ):
        intake = spool.begin(CrashItem(path="/", arrived="apport", crashed_at=1), pipe=pipe)
        intake.close()

        handed = keeper.rescue(settings)

        with pytest.raises(BlockingIOError):
            listener.accept()
    assert handed == 0


def test_other_sockets_of_the_program_are_left_alone(settings: CrashagentSettings) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open_listener(settings.apport_socket):
        theirs.send(b"not a crash")

        assert keeper.rescue(settings) == 0
        assert ours.recv(100) == b"not a crash"


def test_a_keeper_that_failed_at_once_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    ended, writing = os.pipe()
    os.close(writing)
    stop = Stop()
    watch = keeper.KeeperWatch(ended)
    serving = Thread(target=watch.serve, args=(stop,))

    serving.start()
    wait_until(lambda: events_said(caplog) == ["keeper ended"], "its line")
    assert serving.is_alive()
    stop.set()
    serving.join()

    os.close(ended)
    assert not watch.has_ended
