"""By which ways crashes will arrive, and why not by the others, from what was seen of the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from common.corepattern import PIPE_LIMIT, CorePattern
from services.corectl.host_facts import Directory, HostFacts, Socket
from services.corectl.show import safe

WayName = Literal["file", "apport", "kernel-socket", "systemd", "pipe"]
WAYS: tuple[WayName, ...] = ("file", "apport", "kernel-socket", "systemd", "pipe")

_PREPARE = "corectl host prepare --mode"
_START = "start the bundle; corectl status says what is wrong with it"
_MAKE = "corectl host prepare makes it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way in."""

    name: WayName
    is_in_use: bool
    """core_pattern leads there."""
    faults: Sequence[str] = ()
    """Why crashes will not arrive, or not all of them, each with what to do."""
    notes: Sequence[str] = ()
    """What else is good to know."""

    @property
    def works(self) -> bool:
        """Say whether crashes will arrive."""
        return self.is_in_use and not self.faults


def judge(facts: HostFacts) -> list[Way]:
    """Judge every way."""
    used = way_in_use(facts)
    return [_judge_one(name, facts) if name == used else _unused(name, facts) for name in WAYS]


def way_in_use(facts: HostFacts) -> WayName | None:
    """Say which way core_pattern leads; None where it leads nowhere that we are."""
    pattern = facts.pattern
    match pattern.form, pattern.handler:
        case (("socket" | "request-socket"), _) if pattern.target == facts.kernel_socket.path:
            return "kernel-socket"
        case (("socket" | "request-socket"), "coremond"):
            return "kernel-socket"
        case _, "apport":
            return "apport"
        case _, "systemd-coredump":
            return "systemd"
        case "pipe", "coremond":
            return "pipe"
        case "file", _:
            return "file"
    return None


def pattern_fault(facts: HostFacts) -> str:
    """Say what is wrong with a core_pattern that leads nowhere that we are; empty if it does."""
    if way_in_use(facts):
        return ""
    pattern = facts.pattern
    match pattern.form, pattern.handler:
        case "none", _:
            said = "core_pattern is empty, so no core is written"
        case _, "discard":
            said = f"core_pattern throws every core away ({pattern.text})"
        case _, "abrt":
            said = "core_pattern hands cores to ABRT, which keeps them to itself"
        case "pipe", _:
            said = f"core_pattern hands cores to {pattern.name}, which is not known here"
        case _:
            said = f"core_pattern hands cores to the socket {pattern.target}, which is not ours"
    return f"{safe(said)}; {_PREPARE} auto sets it, and restore puts this back"


def _unused(name: WayName, facts: HostFacts) -> Way:
    """Say why nothing comes by a way that core_pattern does not lead to."""
    why = f"core_pattern leads {_whither(facts.pattern)}"
    match name:
        case "file" | "pipe":
            why += f"; {_PREPARE} {name} sets it"
        case "kernel-socket" if facts.has_sockets:
            why += f"; {_PREPARE} socket sets it"
        case "kernel-socket":
            why = f"Linux {facts.release} cannot: it needs 6.16 or later"
        case "apport":
            why += "; it is Apport that sets its own: systemctl start apport"
        case "systemd":
            why += "; it is systemd that sets its own: sysctl --system"
    return Way(name=name, is_in_use=False, faults=(why,))


def _whither(pattern: CorePattern) -> str:
    match pattern.form:
        case "file":
            return "to a file"
        case "pipe":
            return f"to {safe(pattern.name)}"
        case "none":
            return "nowhere"
        case _:
            return f"to the socket {safe(pattern.target)}"


def _judge_one(name: WayName, facts: HostFacts) -> Way:
    faults, notes = {
        "file": (_file_faults, _file_notes),
        "apport": (_apport_faults, _apport_notes),
        "kernel-socket": (_socket_faults, _socket_notes),
        "systemd": (_systemd_faults, _no_notes),
        "pipe": (_pipe_faults, _pipe_notes),
    }[name]
    return Way(
        name=name,
        is_in_use=True,
        faults=tuple(safe(fault) for fault in (*faults(facts), *_path_faults(name, facts))),
        notes=tuple(safe(note) for note in (*notes(facts), *_namespace_notes(name, facts))),
    )


# File


def _file_faults(facts: HostFacts) -> Iterator[str]:
    pattern, folder = facts.pattern, facts.crash_dir
    remedy = f"{_PREPARE} file sets it to {folder.path}"
    if not pattern.target.startswith("/"):
        yield (
            "core_pattern is no absolute path: cores go to the working directory of what "
            f"crashes; {remedy}"
        )
    elif pattern.directory != folder.path:
        yield (
            f"cores go to {pattern.directory or pattern.target}, and not to {folder.path}; "
            f"{remedy}, or set COREMON_CRASH_DIR"
        )
    elif not pattern.is_core_name and not pattern.target.endswith(f"/{facts.source_pattern}"):
        yield (
            f"coremond takes files for cores whose names begin with core.; {remedy}, or set "
            "COREMON_SOURCE_PATTERN to its last part"
        )
    yield from _directory_faults(folder)
    if not folder.problem and not folder.is_for_all:
        yield (
            f"{folder.path} has mode {folder.mode:04o}: programs of other users than root cannot "
            f"leave cores there; chmod 1777 {folder.path}"
        )
    if facts.rlimit and facts.rlimit[1] == "0":
        yield (
            "the hard RLIMIT_CORE of PID 1 is 0, so nothing may write a core; raise it "
            "(systemd: DefaultLimitCORE=infinity), or use --mode pipe, which does not heed it"
        )
    if facts.selinux == "enforcing" and "container_file_t" not in folder.label:
        yield (
            f"SELinux keeps containers from writing to {folder.path} "
            f"({folder.label or 'it has no label'}); chcon -Rt container_file_t {folder.path}"
        )


def _directory_faults(folder: Directory) -> Iterator[str]:
    if folder.problem:
        yield f"{folder.path}: {folder.problem}; {_MAKE}"


def _file_notes(facts: HostFacts) -> Iterator[str]:
    if facts.rlimit and facts.rlimit[0] == "0" != facts.rlimit[1]:
        yield (
            "the soft RLIMIT_CORE of PID 1 is 0: what inherits it leaves no core; raise it "
            "(ulimit -c unlimited; systemd: LimitCORE=infinity)"
        )
    if not facts.crash_dir.problem and facts.crash_dir.is_for_all and not facts.crash_dir.is_sticky:
        yield (
            f"{facts.crash_dir.path} is not sticky: users can remove each other's cores; "
            f"chmod 1777 {facts.crash_dir.path}"
        )
    if facts.pattern.target and "%" not in facts.pattern.target and not facts.uses_pid:
        yield "every core has the same name: a new one replaces one that is still to be stored"
    if facts.suid_dumpable == 0:
        yield "setuid programs leave no core: fs.suid_dumpable is 0; 2 lets root have them"
    if facts.items_socket.problem:
        yield (
            f"coremond does not answer ({facts.items_socket.problem}): cores wait in "
            f"{facts.crash_dir.path}; {_START}"
        )
    if facts.apparmor:
        yield "AppArmor is on: a confined program writes a core only where its profile lets it"
    yield f"a container needs the host's {facts.crash_dir.path} mounted there"


# Apport


def _apport_faults(facts: HostFacts) -> Iterator[str]:
    if facts.handler:
        yield (
            f"Apport is not there: {facts.pattern.target}: {facts.handler}; install it, or "
            f"{_PREPARE} file"
        )
    if facts.apport_reports and facts.apport_reports.problem:
        yield _missing(facts.apport_reports)
    if facts.apport_socket.problem and not facts.apport_reports:
        yield _apport_silence(facts)


def _apport_silence(facts: HostFacts) -> str:
    door = facts.apport_socket
    return f"crashagent does not answer at {door.path} ({door.problem}); {_START}"


def _missing(folder: Directory) -> str:
    return f"{folder.path}: {folder.problem}; mount the host's there"


def _apport_notes(facts: HostFacts) -> Iterator[str]:
    yield (
        "Apport forwards the crashes of containers that have crashagent's socket at "
        "/run/apport.socket"
    )
    if facts.apport_reports:
        yield f"those of the host itself are taken from its reports in {facts.apport_reports.path}"
        if facts.apport_socket.problem:
            yield _apport_silence(facts)
    else:
        yield "those of the host itself it keeps: set COREMON_APPORT_REPORTS to have them too"
    if facts.pipe_limit == 0:
        yield (
            "kernel.core_pipe_limit is 0: a process may be gone before it is looked at; "
            "10 is what Apport sets"
        )


# The kernel's socket


def _socket_faults(facts: HostFacts) -> Iterator[str]:
    door, pattern = facts.kernel_socket, facts.pattern
    if not facts.has_sockets:
        yield (
            f"Linux {facts.release} takes {pattern.text} for the name of a file: it needs 6.16 or "
            f"later; {_PREPARE} file"
        )
    elif pattern.form == "request-socket" and not facts.asks_first:
        yield f"Linux {facts.release} knows no @@; {_PREPARE} socket writes what it knows"
    if pattern.target != door.path:
        yield (
            f"core_pattern names {pattern.target}, and crashagent's socket is {door.path}; "
            f"{_PREPARE} socket sets it, or set CRASHAGENT_KERNEL_SOCKET"
        )
    if door.problem:
        yield f"crashagent does not listen at {door.path} ({door.problem}); {_START}"
    elif not door.is_private:
        yield (
            f"everybody can connect to {door.path}, and claim to be the kernel; "
            "chmod 0600 it, in a directory of mode 0700"
        )


def _socket_notes(facts: HostFacts) -> Iterator[str]:
    if facts.pattern.form == "socket" and facts.pipe_limit == 0:
        yield "kernel.core_pipe_limit is 0: a process may be gone before it is looked at"


# systemd-coredump


def _systemd_faults(facts: HostFacts) -> Iterator[str]:
    if facts.handler:
        yield (
            f"systemd-coredump is not there: {facts.pattern.target}: {facts.handler}; install it, "
            f"or {_PREPARE} auto"
        )
    if facts.systemd_socket:
        yield from _systemd_socket_faults(facts, facts.systemd_socket)
        return
    if facts.systemd_storage != "external":
        yield (
            f"coredump.conf says Storage={facts.systemd_storage}: systemd-coredump leaves no core; "
            f"set Storage=external, or {_PREPARE} auto"
        )
    if facts.systemd_cores is None:
        yield (
            "coremond does not take cores from systemd-coredump; set "
            f"COREMON_SYSTEMD_DIR=/var/lib/systemd/coredump, or {_PREPARE} auto"
        )
    elif facts.systemd_cores.problem:
        yield _missing(facts.systemd_cores)


def _systemd_socket_faults(facts: HostFacts, door: Socket) -> Iterator[str]:
    if facts.pattern.form != "pipe":
        yield (
            f"this systemd-coredump takes cores at {facts.pattern.target}, and hands none on to "
            f"{door.path}; set COREMON_SYSTEMD_DIR instead, or {_PREPARE} auto"
        )
    if door.problem:
        yield f"crashagent does not listen at {door.path} ({door.problem}); {_START}"
    elif not door.is_private:
        yield f"everybody can connect to {door.path}, and claim to be the host; chmod 0600 it"


def _no_notes(_: HostFacts) -> Iterator[str]:
    yield from ()


# Pipe


def _pipe_faults(facts: HostFacts) -> Iterator[str]:
    if facts.handler:
        yield (
            f"the kernel cannot start {facts.pattern.target}: {facts.handler}; install corectl "
            f"on the host, or {_PREPARE} file"
        )
    if facts.apport_socket.problem:
        yield from _directory_faults(facts.crash_dir)


def _pipe_notes(facts: HostFacts) -> Iterator[str]:
    if facts.apport_socket.problem:
        yield (
            f"crashagent does not answer at {facts.apport_socket.path} "
            f"({facts.apport_socket.problem}): cores go to {facts.crash_dir.path}; {_START}"
        )
    if facts.pipe_limit == 0:
        yield (
            "kernel.core_pipe_limit is 0: a process may be gone before it is looked at; "
            f"sysctl kernel.core_pipe_limit={PIPE_LIMIT}"
        )


# Namespaces


def _path_faults(name: WayName, facts: HostFacts) -> Iterator[str]:
    if name not in {"file", "kernel-socket"}:
        return
    for path in facts.strange_paths:
        if (path == facts.crash_dir.path) == (name == "file"):
            yield f"{path} is not the host's own; mount the host's there"


def _namespace_notes(name: WayName, facts: HostFacts) -> Iterator[str]:
    if facts.sees_host_pids is False and name in {"apport", "pipe", "kernel-socket"}:
        yield (
            "the host's processes cannot be seen from here, so that less is known of a crash; "
            "set hostPID: true"
        )
    if facts.is_host_mounts is False and not facts.sees_host_pids and name != "apport":
        yield "whether paths are the host's own cannot be told from here; hostPID: true lets it"
