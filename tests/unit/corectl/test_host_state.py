from pathlib import Path

import pytest

from common.errors import CollectorError, MessageError, SourceError
from services.corectl import host_state
from services.corectl.host_state import Prepared, plan
from services.corectl.sysctl import SETTINGS, Sysctls

HOST = {"core_pattern": "|/apport", "core_pipe_limit": "10", "suid_dumpable": "2"}
FILE = {"core_pattern": "/var/crash/core.%e.%p.%h.%t"}
PIPE = {"core_pattern": "|/corectl intake", "core_pipe_limit": "16"}


def test_the_first_prepare_keeps_what_it_finds() -> None:
    state, to_write = plan(None, HOST, PIPE)

    assert state.saved == HOST
    assert to_write == PIPE
    assert state.written == {"core_pattern": ["|/corectl intake"], "core_pipe_limit": ["16"]}


def test_a_second_prepare_keeps_what_the_first_found() -> None:
    first, _ = plan(None, HOST, FILE)

    second, _ = plan(first, HOST | FILE, PIPE)

    assert second.saved == HOST
    assert second.is_ours("core_pattern", FILE["core_pattern"])
    assert second.is_ours("core_pattern", PIPE["core_pattern"])


def test_what_another_mode_does_not_need_is_put_back() -> None:
    first, _ = plan(None, HOST, PIPE)

    _, to_write = plan(first, HOST | PIPE, FILE)

    assert to_write == FILE | {"core_pipe_limit": "10"}


def test_a_prepare_that_was_killed_before_it_wrote_is_made_up_for() -> None:
    killed, _ = plan(None, HOST, PIPE)

    state, to_write = plan(killed, HOST, PIPE)

    assert (state.saved, to_write) == (HOST, PIPE)


def test_what_somebody_else_has_set_since_is_what_is_put_back() -> None:
    first, _ = plan(None, HOST, PIPE)
    theirs = HOST | PIPE | {"core_pattern": "|/theirs"}

    state, _ = plan(first, theirs, FILE)

    assert state.saved == {**HOST, "core_pattern": "|/theirs"}
    assert not state.is_ours("core_pattern", PIPE["core_pattern"])


def test_what_was_saved_reads_back(tmp_path: Path) -> None:
    state = Prepared(saved=HOST, written={"core_pattern": ["x"]}, made_directory="/var/crash")

    host_state.save(tmp_path / "run", state)

    assert host_state.load(tmp_path / "run") == state
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / host_state.NAME).stat().st_mode & 0o777 == 0o600


def test_nothing_is_read_where_nothing_was_saved(tmp_path: Path) -> None:
    assert host_state.load(tmp_path) is None
    assert host_state.load(tmp_path / "none") is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version":1}', b'{"version":9,"saved":{}}', b"\xff"]
)
def test_a_state_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / host_state.NAME).write_bytes(content)

    with pytest.raises(MessageError, match=r"host\.json"):
        host_state.load(tmp_path)


def test_a_state_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "there").write_text('{"version":1,"saved":{}}')
    (tmp_path / host_state.NAME).symlink_to(tmp_path / "there")

    with pytest.raises(SourceError):
        host_state.load(tmp_path)


def test_a_setting_is_read_without_its_line_end_and_written_whole(tmp_path: Path) -> None:
    for path in SETTINGS.values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("0\n")
    sysctls = Sysctls(tmp_path)

    sysctls.write("core_pattern", " \udcff ")

    assert sysctls.read() == {
        "core_pattern": " \udcff ",
        "core_pipe_limit": "0",
        "suid_dumpable": "0",
    }


def test_a_setting_that_the_kernel_does_not_keep_is_told(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "core_pattern").symlink_to("/dev/null")

    with pytest.raises(CollectorError, match="was set to core, but reads"):
        Sysctls(tmp_path).write("core_pattern", "core")


def test_a_setting_that_cannot_be_written_tells_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match="it takes root, and in a container privileged"):
        Sysctls(tmp_path).write("core_pattern", "core")
