"""``corectl host prepare`` and ``restore``: point core_pattern at us, and put it back."""

import os
import shutil
import stat
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common import corepattern
from common.corepattern import PIPE_LIMIT
from common.errors import CollectorError
from common.files import opened_directory
from services.corectl import host_state
from services.corectl.host_facts import HostFacts, look
from services.corectl.host_state import Prepared
from services.corectl.intake import read_settings
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe
from services.corectl.sysctl import Sysctls

_FOR_ALL = 0o1777
_LABEL = "container_file_t"


def prepare(settings: CorectlSettings, args: Namespace) -> int:
    """Keep what the settings are, make the crash directory, and set core_pattern."""
    if args.if_asked and not settings.override_core_pattern:
        print("COREMOND_OVERRIDE_CORE_PATTERN is not true: core_pattern stays as it is")
        return os.EX_OK
    facts, sysctls = look(settings), Sysctls()
    mode = _choose(facts) if args.mode == "auto" else args.mode
    wanted = _WANTED[mode](settings, facts, args.env)
    problem = corepattern.problem_of(wanted["core_pattern"])
    if problem:
        raise CollectorError(f"core_pattern cannot be set: {problem}")
    silence = facts.kernel_socket.problem if mode == "socket" else ""
    # The init container comes before crashagent, which opens the socket in a moment.
    if silence and not (args.force or args.if_asked):
        raise CollectorError(
            f"nobody listens at {facts.kernel_socket.path} ({silence}), so every core would be "
            "lost; start the bundle first, or set it all the same by --force"
        )

    state, to_write = host_state.plan(host_state.load(settings.run_dir), sysctls.read(), wanted)
    if not settings.crash_dir.exists():
        state = replace(state, made_directory=str(settings.crash_dir))
    host_state.save(settings.run_dir, state)
    is_well = _prepare_directory(settings.crash_dir, facts, is_for_all=mode == "file")
    for name, value in to_write.items():
        sysctls.write(name, value)
        print(f"{name} is {safe(value)}")
    print(f"What was there is kept in {settings.run_dir / host_state.NAME}: corectl host restore")
    if silence:
        complain(
            f"nobody listens at {facts.kernel_socket.path} yet ({silence}): until crashagent does, "
            "every core is lost; corectl host check says when all is well"
        )
    return os.EX_OK if is_well else 1


def restore(settings: CorectlSettings, _: Namespace) -> int:
    """Put back what prepare found, where nobody has changed it since."""
    state, sysctls = host_state.load(settings.run_dir), Sysctls()
    if state is None:
        print("There is nothing to restore: prepare has set nothing since the host started")
        return os.EX_OK
    # The pattern first, and the limit of its pipe after it.
    for name, value in sysctls.read().items():
        if state.is_ours(name, value):
            sysctls.write(name, state.saved[name])
            print(f"{name} is {safe(state.saved[name])} again")
        elif name in state.written and value != state.saved[name]:
            print(f"{name} is {safe(value)}, which somebody else has set since: it stays")
    _remove_directory(state)
    host_state.forget(settings.run_dir)
    return os.EX_OK


def _choose(facts: HostFacts) -> str:
    is_there = facts.has_sockets and not facts.kernel_socket.problem
    return "socket" if is_there else "file"


def _file(settings: CorectlSettings, _: HostFacts, __: Path | None) -> dict[str, str]:
    return {"core_pattern": corepattern.file_pattern(str(settings.crash_dir))}


def _socket(settings: CorectlSettings, facts: HostFacts, _: Path | None) -> dict[str, str]:
    if not facts.has_sockets:
        raise CollectorError(
            f"Linux {facts.release} has no coredump socket: it takes 6.16 or later; use --mode file"
        )
    if settings.kernel_socket is None:
        raise CollectorError("CRASHAGENT_KERNEL_SOCKET is off: set it, or use --mode file")
    path = str(settings.kernel_socket)
    if facts.asks_first:
        return {"core_pattern": corepattern.socket_pattern(path, asks_first=True)}
    pattern = corepattern.socket_pattern(path, asks_first=False)
    return {"core_pattern": pattern, "core_pipe_limit": str(PIPE_LIMIT)}  # so that it waits for us


def _pipe(settings: CorectlSettings, _: HostFacts, env_file: Path | None) -> dict[str, str]:
    program, given = _corectl(), os.path.abspath(env_file) if env_file else ""
    if any(space in program + given for space in " \t\n"):
        raise CollectorError(f"the kernel would split this at its spaces: {program} {given}")
    pattern = corepattern.pipe_pattern(program, given)
    read = given if given and " --env " in pattern else ""
    _refuse_other_settings(settings, read_settings(read), dropped=given if not read else "")
    return {"core_pattern": pattern, "core_pipe_limit": str(PIPE_LIMIT)}


_WANTED: dict[str, Callable[[CorectlSettings, HostFacts, Path | None], dict[str, str]]] = {
    "file": _file,
    "socket": _socket,
    "pipe": _pipe,
}


def _corectl() -> str:
    """Find the path of what runs us."""
    own = Path(sys.argv[0]).absolute()
    return str(own if own.name == "corectl" else Path(sys.executable).with_name("corectl"))


def _refuse_other_settings(
    settings: CorectlSettings, read: dict[str, str], *, dropped: str
) -> None:
    """Refuse what the helper would not know: the kernel gives it no environment."""
    ours = {
        "CRASHAGENT_APPORT_SOCKET": settings.apport_socket,
        "COREMON_CRASH_DIR": settings.crash_dir,
    }
    for name, value in ours.items():
        if Path(read[name]) != value:
            why = f"there is no room for --env {dropped}" if dropped else "it has no environment"
            raise CollectorError(
                f"the kernel's helper would take {name} for {read[name]}, and not {value}: {why}; "
                "set it in /etc/coremond/coremond.env, or in a file of a shorter path and --env"
            )


def _prepare_directory(path: Path, facts: HostFacts, *, is_for_all: bool) -> bool:
    """Make the crash directory as cores need it; say whether SELinux lets containers write."""
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with opened_directory(path) as directory:
        mode = stat.S_IMODE(os.fstat(directory).st_mode)
        if (is_new or is_for_all) and mode & _FOR_ALL != _FOR_ALL:
            os.fchmod(directory, mode | _FOR_ALL)
            print(f"{path} has mode {mode | _FOR_ALL:04o}")
    return not facts.selinux or label(path)


def label(path: Path) -> bool:
    """Give *path* and what is in it the label that containers may write to; say whether it has."""
    chcon = shutil.which("chcon")
    if chcon is None:
        complain(f"SELinux is on, and chcon is not there: chcon -Rt {_LABEL} {path} on the host")
        return False
    done = subprocess.run(
        [chcon, "-Rt", _LABEL, "--", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        complain(f"chcon -Rt {_LABEL} {path}: {safe(done.stderr.strip())}")
        return False
    print(f"{path} has the SELinux type {_LABEL}")
    return True


def _remove_directory(state: Prepared) -> None:
    """Remove the crash directory where prepare made it, and nothing is in it."""
    if not state.made_directory:
        return
    try:
        os.rmdir(state.made_directory)
    except OSError:
        return
    print(f"{state.made_directory} is removed: it was empty")
