import socket
from pathlib import Path

import pytest

from services.corectl.host_facts import look, look_at_directory, look_at_socket
from services.corectl.settings import CorectlSettings

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    unlimited            bytes
"""


class Host:
    """Owns a folder with the /proc, /sys and /etc of a host, and what corectl is told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.crash_dir = root / "crash"
        self.crash_dir.mkdir(mode=0o755)
        self.run_dir = root / "run"
        self.run_dir.mkdir(mode=0o700)
        self.write("proc/sys/kernel/core_pattern", "core\n")

    def write(self, path: str, text: str) -> Path:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        return self.root / path

    @property
    def settings(self) -> CorectlSettings:
        return CorectlSettings.from_env(
            {
                "COREMON_CRASH_DIR": str(self.crash_dir),
                "COREMON_RUN_DIR": str(self.run_dir),
                "CRASHAGENT_APPORT_SOCKET": str(self.root / "apport.socket"),
            }
        )


@pytest.fixture
def host(home: Path) -> Host:
    return Host(home)


def test_the_kernels_settings_are_read(host: Host) -> None:
    host.write("proc/sys/kernel/core_pattern", "/c/core.%p\n")
    host.write("proc/sys/kernel/core_uses_pid", "1\n")
    host.write("proc/sys/kernel/core_pipe_limit", "16\n")
    host.write("proc/sys/kernel/osrelease", "6.18.1\n")
    host.write("proc/sys/kernel/core_modes", "file\npipe\nsocket\n")
    host.write("proc/sys/fs/suid_dumpable", "2\n")
    host.write("proc/1/limits", LIMITS)

    facts = look(host.settings, host.root)

    assert (facts.pattern.text, facts.uses_pid) == ("/c/core.%p", True)
    assert (facts.pipe_limit, facts.suid_dumpable) == (16, 2)
    assert (facts.release, facts.core_modes) == ("6.18.1", ("file", "pipe", "socket"))
    assert facts.rlimit == ("0", "unlimited")


def test_what_cannot_be_seen_is_unknown(host: Host) -> None:
    facts = look(host.settings, host.root)

    assert (facts.pipe_limit, facts.suid_dumpable, facts.rlimit) == (None, None, None)
    assert (facts.sees_host_pids, facts.is_host_mounts) == (None, None)
    assert (facts.selinux, facts.apparmor, facts.uses_pid) == ("", False, False)
    assert facts.crash_dir.problem == ""
    assert facts.apport_socket.problem == "No such file or directory"


def test_who_may_write_in_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for mode, is_for_all, is_sticky in ((0o1777, True, True), (0o777, True, False), (0o755, 0, 0)):
        tmp_path.chmod(mode)

        found = look_at_directory(tmp_path)

        assert (found.is_for_all, found.is_sticky) == (is_for_all, is_sticky)
        assert (found.mode, found.problem) == (mode, "")
    assert look_at_directory(tmp_path / "file").problem == "it is no directory"
    assert look_at_directory(tmp_path / "none").problem == "No such file or directory"


def test_whether_somebody_answers_is_told(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(home / "s"))
        refused = look_at_socket(home / "s")
        door.listen()

        assert look_at_socket(home / "s").problem == ""
    assert refused.problem == "Connection refused"


def test_the_kernels_socket_is_seen_without_a_connection(host: Host) -> None:
    path = host.run_dir / "kernel.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        door.setblocking(False)
        host.write("proc/net/unix", f"0: 00000002 00000000 00010000 0001 01 123 {path}\n")

        facts = look(host.settings, host.root)

        with pytest.raises(BlockingIOError):
            door.accept()
    assert (facts.kernel_socket.problem, facts.kernel_socket.is_private) == ("", True)


def test_a_socket_in_systemds_place_is_seen_without_a_connection(host: Host) -> None:
    path = host.root / "coredump"
    settings = CorectlSettings.from_env({"CRASHAGENT_SYSTEMD_SOCKET": str(path)})
    gone = look(settings, host.root).systemd_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(path))
        door.listen()
        host.write("proc/net/unix", f"0: 00000002 00000000 00010000 0005 01 123 {path}\n")
        there = look(settings, host.root).systemd_socket

    assert gone is not None
    assert there is not None
    assert (gone.problem, there.problem) == ("No such file or directory", "")


def test_a_socket_that_others_may_connect_to_is_told(host: Host) -> None:
    path = host.run_dir / "kernel.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        path.chmod(0o666)
        host.run_dir.chmod(0o755)
        host.write("proc/net/unix", f"0: 00000002 00000000 00010000 0001 01 123 {path}\n")

        assert not look(host.settings, host.root).kernel_socket.is_private


def test_a_kernels_socket_that_is_off_is_no_socket(host: Host) -> None:
    settings = CorectlSettings.from_env({"CRASHAGENT_KERNEL_SOCKET": "off"})

    assert look(settings, host.root).kernel_socket.problem == "CRASHAGENT_KERNEL_SOCKET is off"


@pytest.mark.parametrize(("text", "said"), [("1", "enforcing"), ("0", "permissive")])
def test_selinux_is_seen(host: Host, text: str, said: str) -> None:
    host.write("sys/fs/selinux/enforce", text)

    assert look(host.settings, host.root).selinux == said


def test_apparmor_is_seen(host: Host) -> None:
    host.write("sys/module/apparmor/parameters/enabled", "Y\n")

    assert look(host.settings, host.root).apparmor


def test_the_last_storage_of_systemd_coredump_counts(host: Host) -> None:
    host.write("etc/systemd/coredump.conf", "[Coredump]\n#Storage=none\nStorage=none\n")
    host.write("usr/lib/systemd/coredump.conf.d/10-x.conf", "Storage=none\n")
    host.write("etc/systemd/coredump.conf.d/10-x.conf", "Storage = Journal\n")

    assert look(host.settings, host.root).systemd_storage == "journal"


def test_the_directories_of_others_are_looked_at_where_they_are_taken_from(host: Host) -> None:
    taken = CorectlSettings.from_env(
        {"COREMON_SYSTEMD_DIR": str(host.root / "none"), "COREMON_APPORT_REPORTS": str(host.root)}
    )

    without, facts = look(host.settings, host.root), look(taken, host.root)

    assert (without.systemd_cores, without.apport_reports) == (None, None)
    assert facts.systemd_cores is not None
    assert facts.apport_reports is not None
    assert facts.systemd_cores.problem == "No such file or directory"
    assert facts.apport_reports.problem == ""


def test_the_mounts_are_the_hosts_where_pid_1_has_the_same(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = host.write("proc/self/ns/pid", "")
    mounts = host.write("proc/self/ns/mnt", "")
    monkeypatch.setattr("services.corectl.host_facts._INITIAL_PID_NAMESPACE", pids.stat().st_ino)
    (host.root / "proc/1/ns").mkdir(parents=True)
    (host.root / "proc/1/ns/mnt").hardlink_to(mounts)
    same = look(host.settings, host.root)
    (host.root / "proc/1/ns/mnt").unlink()
    host.write("proc/1/ns/mnt", "")
    other = look(host.settings, host.root)

    assert (same.sees_host_pids, same.is_host_mounts, same.strange_paths) == (True, True, ())
    assert (other.sees_host_pids, other.is_host_mounts) == (True, False)
    assert other.strange_paths == (str(host.crash_dir), str(host.run_dir))


def test_a_pid_1_of_a_container_tells_nothing_of_the_host(host: Host) -> None:
    for name in ("self/ns/pid", "self/ns/mnt", "1/ns/mnt"):
        host.write(f"proc/{name}", "")

    facts = look(host.settings, host.root)

    assert (facts.sees_host_pids, facts.is_host_mounts) == (False, False)
    assert facts.strange_paths == ()


def test_a_handler_that_cannot_be_run_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write("proc/sys/kernel/core_pattern", "|/usr/share/apport/apport %p\n")
    mounts = host.write("proc/self/ns/mnt", "")
    monkeypatch.setattr(
        "services.corectl.host_facts._INITIAL_MOUNT_NAMESPACE", mounts.stat().st_ino
    )
    gone = look(host.settings, host.root).handler
    program = host.write("usr/share/apport/apport", "")
    plain = look(host.settings, host.root).handler
    program.chmod(0o755)

    assert look(host.settings, host.root).handler == ""
    assert (gone, plain) == ("No such file or directory", "it is no program")
