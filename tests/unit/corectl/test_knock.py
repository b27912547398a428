import socket
from pathlib import Path

import pytest

from services.corectl.knock import is_listed, look_unix

LINE = "000000002ef5b479: 00000002 00000000 {flags} 0001 01 {inode:5} {path}\n"


def table(folder: Path, *paths: Path | str, flags: str = "00010000") -> Path:
    lines = [LINE.format(flags=flags, inode=7, path=path) for path in paths]
    (folder / "unix").write_text("Num       RefCount Protocol Flags    Type St Inode Path\n")
    with (folder / "unix").open("a") as file:
        file.writelines(lines)
    return folder / "unix"


@pytest.mark.parametrize("name", ["kernel.sock", "a b  c", "a/x"])
def test_who_listens_is_in_the_kernels_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    assert is_listed(path, table(tmp_path, "/other", path))
    assert not is_listed(path, table(tmp_path, path, flags="00000000"))
    assert not is_listed(path, table(tmp_path, f"{path}x"))
    assert not is_listed(path, tmp_path / "none")


def test_a_directory_has_the_sockets_that_it_has_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")

    sockets = table(tmp_path, tmp_path / "link" / "s")

    assert is_listed(tmp_path / "run" / "s", sockets)


def test_the_kernels_own_table_is_understood(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s"))
        bound = is_listed(tmp_path / "s")
        door.listen()

        assert (bound, is_listed(tmp_path / "s")) == (False, True)


def test_a_socket_that_nobody_listens_at_is_told(tmp_path: Path) -> None:
    path, beside = tmp_path / "kernel.sock", tmp_path / "apport.sock"
    sockets = table(tmp_path, beside)
    with pytest.raises(FileNotFoundError):
        look_unix(path, beside, 1, sockets)
    path.touch()

    with pytest.raises(ConnectionRefusedError):
        look_unix(path, beside, 1, sockets)


def test_a_table_of_another_network_namespace_tells_nothing(tmp_path: Path) -> None:
    path, beside = tmp_path / "kernel.sock", tmp_path / "apport.sock"
    path.touch()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(beside))
        door.listen()

        assert not look_unix(path, beside, 20, table(tmp_path, "/other"))
