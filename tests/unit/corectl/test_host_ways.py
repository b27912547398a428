from dataclasses import replace
from typing import Any

import pytest

from common.corepattern import read_pattern
from services.corectl.host_check import faults_of, is_well
from services.corectl.host_facts import Directory, HostFacts, Socket
from services.corectl.host_ways import WAYS, Way, WayName, judge, pattern_fault, way_in_use

FILE = "/var/crash/core.%e.%p.%h.%t"
SOCKET = "@@/run/coremond/kernel.sock"
PIPE = "|/opt/coremond/bin/corectl intake -P%P -- %E"
APPORT = "|/usr/share/apport/apport -p%p -s%s -c%c -d%d -P%P -u%u -g%g -F%F -- %E"
SYSTEMD = "|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h %d %F"
IN_USE: dict[str, WayName] = {
    FILE: "file",
    APPORT: "apport",
    SOCKET: "kernel-socket",
    SYSTEMD: "systemd",
    PIPE: "pipe",
}

CRASH_DIR = Directory(path="/var/crash", mode=0o1777, is_for_all=True, is_sticky=True)
APPORT_SOCKET = Socket(path="/run/apport.socket")
KERNEL_SOCKET = Socket(path="/run/coremond/kernel.sock")
GONE = "No such file or directory"


def seen(pattern: str, **facts: Any) -> HostFacts:
    """See a host on which all is well, but for *facts*."""
    well = {
        "pipe_limit": 16,
        "suid_dumpable": 2,
        "release": "6.18.1-generic",
        "core_modes": ("file", "pipe", "socket"),
        "rlimit": ("unlimited", "unlimited"),
        "crash_dir": CRASH_DIR,
        "apport_socket": APPORT_SOCKET,
        "kernel_socket": KERNEL_SOCKET,
        "items_socket": Socket(path="/run/coremond/items.sock"),
        "systemd_cores": Directory(path="/var/lib/systemd/coredump", mode=0o755),
        "sees_host_pids": True,
        "is_host_mounts": True,
    }
    return HostFacts(pattern=read_pattern(pattern), **{**well, **facts})


def used(facts: HostFacts) -> Way:
    """Give the way that is in use."""
    [way] = [way for way in judge(facts) if way.is_in_use]
    return way


@pytest.mark.parametrize("pattern", IN_USE)
def test_a_way_that_is_in_use_and_well_is_the_only_one_that_works(pattern: str) -> None:
    facts = seen(pattern)

    ways = judge(facts)

    assert [way.name for way in ways] == [*WAYS]
    assert [way.name for way in ways if way.works] == [IN_USE[pattern]]
    assert faults_of(facts, ways) == []
    assert is_well(facts, ways)


@pytest.mark.parametrize("pattern", IN_USE)
def test_every_other_way_says_why_nothing_comes_by_it(pattern: str) -> None:
    others = [way for way in judge(seen(pattern)) if not way.is_in_use]

    assert len(others) == len(WAYS) - 1
    for way in others:
        [fault] = way.faults
        assert fault.startswith("core_pattern leads to ")
        assert "; " in fault


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "core_pattern is empty"),
        ("|/bin/false", "throws every core away (|/bin/false)"),
        ("|/usr/libexec/abrt-hook-ccpp %s", "to ABRT"),
        ("|/wsl-capture-crash %t", "to wsl-capture-crash, which is not known here"),
        ("@/run/other", "to the socket /run/other, which is not ours"),
    ],
)
def test_a_pattern_that_leads_elsewhere_is_a_fault_with_the_remedy(pattern: str, said: str) -> None:
    facts = seen(pattern)

    fault = pattern_fault(facts)

    assert way_in_use(facts) is None
    assert said in fault
    assert "corectl host prepare --mode auto" in fault
    assert faults_of(facts, judge(facts)) == [fault]
    assert not is_well(facts, judge(facts))


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("core", {}, "is no absolute path", "prepare --mode file"),
    ("/tmp/core.%p", {}, "cores go to /tmp, and not to /var/crash", "COREMON_CRASH_DIR"),
    ("/var/%h/core", {}, "cores go to /var/%h/core", "prepare --mode file"),
    ("/var/crash/%e.core", {}, "names begin with core.", "prepare --mode file"),
    (FILE, {"crash_dir": Directory(path="/var/crash", problem=GONE)}, GONE, "prepare makes it"),
    (
        FILE,
        {"crash_dir": replace(CRASH_DIR, is_for_all=False, mode=0o755)},
        "has mode 0755",
        "chmod 1777 /var/crash",
    ),
    (FILE, {"rlimit": ("0", "0")}, "hard RLIMIT_CORE of PID 1 is 0", "raise it"),
    (FILE, {"selinux": "enforcing"}, "it has no label", "chcon -Rt container_file_t /var/crash"),
    (FILE, {"strange_paths": ("/var/crash",)}, "is not the host's own", "mount the host's there"),
    (APPORT, {"handler": GONE}, "Apport is not there", "install it"),
    (
        APPORT,
        {"apport_socket": replace(APPORT_SOCKET, problem="Connection refused")},
        "crashagent does not answer at /run/apport.socket (Connection refused)",
        "start the bundle",
    ),
    (SOCKET, {"release": "6.1.0"}, "Linux 6.1.0 takes @@/run", "prepare --mode file"),
    (SOCKET, {"core_modes": ("file", "pipe")}, "for the name of a file", "prepare --mode file"),
    (SOCKET, {"release": "6.16.3"}, "knows no @@", "prepare --mode socket"),
    ("@@/x/kernel.sock", {}, "crashagent's socket is /run/coremond", "CRASHAGENT_KERNEL_SOCKET"),
    (
        SOCKET,
        {"kernel_socket": replace(KERNEL_SOCKET, problem=GONE)},
        "crashagent does not listen",
        "start the bundle",
    ),
    (
        SOCKET,
        {"kernel_socket": replace(KERNEL_SOCKET, is_private=False)},
        "everybody can connect",
        "chmod 0600",
    ),
    (SOCKET, {"strange_paths": ("/run/coremond",)}, "is not the host's own", "mount the host's"),
    (SYSTEMD, {"handler": GONE}, "systemd-coredump is not there", "install it"),
    (SYSTEMD, {"systemd_storage": "journal"}, "Storage=journal", "set Storage=external"),
    (
        SYSTEMD,
        {"systemd_cores": Directory(path="/var/lib/systemd/coredump", problem=GONE)},
        GONE,
        "mount the host's there",
    ),
    (
        SYSTEMD,
        {"systemd_socket": Socket(path="/run/systemd/coredump", problem=GONE)},
        "crashagent does not listen at /run/systemd/coredump",
        "start the bundle",
    ),
    (
        SYSTEMD,
        {"systemd_socket": Socket(path="/run/systemd/coredump", is_private=False)},
        "everybody can connect",
        "chmod 0600",
    ),
    (
        "@@/run/systemd/coredumpd/kernel",
        {"systemd_socket": Socket(path="/run/systemd/coredump")},
        "hands none on to /run/systemd/coredump",
        "COREMON_SYSTEMD_DIR",
    ),
    (SYSTEMD, {"systemd_cores": None}, "does not take cores", "COREMON_SYSTEMD_DIR=/var"),
    (
        APPORT,
        {"apport_reports": Directory(path="/var/crash", problem=GONE)},
        GONE,
        "mount the host's there",
    ),
    (PIPE, {"handler": GONE}, "cannot start /opt/coremond/bin/corectl", "install corectl"),
]


@pytest.mark.parametrize(("pattern", "facts", "said", "remedy"), FAULTS)
def test_what_keeps_crashes_away_is_told_with_the_remedy(
    pattern: str, facts: dict[str, Any], said: str, remedy: str
) -> None:
    host = seen(pattern, **facts)

    [fault] = used(host).faults

    assert said in fault
    assert remedy in fault
    assert not is_well(host, judge(host))


NOTES: list[tuple[str, dict[str, Any], str]] = [
    (FILE, {"rlimit": ("0", "unlimited")}, "soft RLIMIT_CORE of PID 1 is 0"),
    (FILE, {"crash_dir": replace(CRASH_DIR, is_sticky=False)}, "is not sticky"),
    ("/var/crash/core", {}, "every core has the same name"),
    (FILE, {"suid_dumpable": 0}, "setuid programs leave no core"),
    (FILE, {"items_socket": Socket(path="/i", problem=GONE)}, "coremond does not answer"),
    (FILE, {"apparmor": True}, "AppArmor is on"),
    (FILE, {}, "a container needs the host's /var/crash"),
    (APPORT, {"pipe_limit": 0}, "core_pipe_limit is 0"),
    (APPORT, {}, "those of the host itself it keeps"),
    (APPORT, {"apport_reports": CRASH_DIR}, "are taken from its reports in /var/crash"),
    (
        APPORT,
        {"apport_reports": CRASH_DIR, "apport_socket": replace(APPORT_SOCKET, problem=GONE)},
        "crashagent does not answer",
    ),
    ("/var/crash/%e.core", {"source_pattern": "%e.core"}, "a container needs"),
    ("@/run/coremond/kernel.sock", {"pipe_limit": 0}, "core_pipe_limit is 0"),
    (PIPE, {"pipe_limit": 0}, "core_pipe_limit is 0"),
    (
        PIPE,
        {"apport_socket": replace(APPORT_SOCKET, problem=GONE)},
        "cores go to /var/crash",
    ),
    (PIPE, {"sees_host_pids": False}, "hostPID: true"),
    (FILE, {"sees_host_pids": False, "is_host_mounts": False}, "cannot be told from here"),
]


@pytest.mark.parametrize(("pattern", "facts", "said"), NOTES)
def test_what_only_costs_something_is_a_note(
    pattern: str, facts: dict[str, Any], said: str
) -> None:
    host = seen(pattern, **facts)

    way = used(host)

    assert said in "\n".join(way.notes)
    assert way.works


def test_a_pipe_needs_the_crash_directory_where_crashagent_is_away() -> None:
    away = replace(APPORT_SOCKET, problem=GONE)
    nowhere = Directory(path="/var/crash", problem=GONE)

    assert used(seen(PIPE, crash_dir=nowhere)).works
    assert not used(seen(PIPE, crash_dir=nowhere, apport_socket=away)).works


def test_where_we_take_systemds_place_its_own_store_does_not_matter() -> None:
    ours = Socket(path="/run/systemd/coredump")
    facts = seen(SYSTEMD, systemd_socket=ours, systemd_cores=None, systemd_storage="none")

    assert used(facts).works


def test_a_label_that_containers_may_write_to_is_no_fault() -> None:
    labelled = replace(CRASH_DIR, label="system_u:object_r:container_file_t:s0")

    assert used(seen(FILE, crash_dir=labelled, selinux="enforcing")).works
    assert used(seen(FILE, selinux="permissive")).works


def test_a_pid_after_the_name_tells_cores_apart() -> None:
    notes = used(seen("/var/crash/core", uses_pid=True)).notes

    assert not any("same name" in note for note in notes)


def test_an_old_kernel_is_not_told_to_use_the_socket() -> None:
    ways = {way.name: way for way in judge(seen(FILE, release="5.15.0", core_modes=()))}

    assert ways["kernel-socket"].faults == ("Linux 5.15.0 cannot: it needs 6.16 or later",)


@pytest.mark.parametrize(
    ("release", "modes", "has_sockets", "asks_first"),
    [
        ("5.15.0-91-generic", (), False, False),
        ("6.15.9", (), False, False),
        ("6.16", ("file", "pipe", "socket"), True, False),
        ("6.17.2-arch1", ("file", "pipe", "socket"), True, True),
        ("7.0-rc1", (), True, True),
        ("6.18.1", ("file", "pipe"), False, False),
        ("", (), False, False),
    ],
)
def test_what_the_kernel_can_do_is_read_from_its_release(
    release: str, modes: tuple[str, ...], has_sockets: bool, asks_first: bool
) -> None:
    facts = seen(FILE, release=release, core_modes=modes)

    assert (facts.has_sockets, facts.asks_first) == (has_sockets, asks_first)


def test_a_hostile_pattern_reaches_no_terminal_as_it_is() -> None:
    fault = pattern_fault(seen("|/\x1b[31mred"))

    assert "\x1b" not in fault
