import os
import socket
import stat
from pathlib import Path

import pytest

from common.errors import ConfigError
from services.crashagent.listener import inherited_listener, open_listener


def test_only_the_owner_can_hand_a_crash_in(tmp_path: Path) -> None:
    with open_listener(tmp_path / "apport.socket"):
        mode = (tmp_path / "apport.socket").stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_umask_is_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with open_listener(tmp_path / "apport.socket"):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_directory_that_is_made_for_the_socket_can_be_entered(tmp_path: Path) -> None:
    with open_listener(tmp_path / "made" / "apport.socket"):
        mode = (tmp_path / "made").stat().st_mode

    assert stat.S_IMODE(mode) & 0o700 == 0o700


def test_what_a_dead_listener_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "apport.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with open_listener(path), socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(path))

        assert sender.getpeername() == str(path)


def test_a_living_listener_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "apport.socket"
    with open_listener(path) as living:
        with pytest.raises(ConfigError, match=r"cannot listen at .*: another program listens"):
            open_listener(path)

        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect(str(path))
            living.accept()[0].close()


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "apport.socket"
    path.write_text("precious")

    with pytest.raises(ConfigError, match="in use"):
        open_listener(path)

    assert path.read_text() == "precious"


def test_a_listener_that_the_bundle_holds_is_taken_over(tmp_path: Path) -> None:
    with open_listener(tmp_path / "apport.socket") as held:
        descriptor = os.dup(held.fileno())
        os.set_inheritable(descriptor, True)

        with inherited_listener("CRASHAGENT_LISTEN_FD", descriptor) as listener:
            assert listener.getsockname() == str(tmp_path / "apport.socket")
            assert not os.get_inheritable(descriptor)


def test_a_descriptor_that_is_no_socket_is_a_mistake() -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(ConfigError, match="CRASHAGENT_LISTEN_FD"):
            inherited_listener("CRASHAGENT_LISTEN_FD", null)
    finally:
        os.close(null)


def test_a_socket_that_does_not_listen_is_a_mistake() -> None:
    with (
        socket.socket(socket.AF_UNIX) as silent,
        pytest.raises(ConfigError, match="expected a listening Unix socket"),
    ):
        inherited_listener("CRASHAGENT_LISTEN_FD", os.dup(silent.fileno()))
