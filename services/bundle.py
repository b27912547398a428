"""Start the bundle: hold the sockets that crashes arrive at, then become supervisord.

The process that this starts in stays the same, so that in a container supervisord is PID 1. The
listening sockets stay open in it, whatever happens to crashagent: see `crashagent.listener`.
"""

import argparse
import configparser
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from common import buildinfo
from common.errors import ConfigError
from common.places import read_places
from common.settings import EnvReader, environment
from services.coremond.settings import CoremondSettings
from services.crashagent.listener import open_listener
from services.crashagent.settings import CrashagentSettings
from services.qkview_collect.settings import QkviewSettings

CONFIGURATION = Path(__file__).with_name("supervisord.conf")
"""A link to conf/supervisord.conf; what is installed has the file itself there."""

_PREFIXES = ("COREMON_", "CRASHAGENT_", "QKVIEW_")

INHERITED_FROM = 256
"""The first descriptor that supervisord leaves to its programs: its ``minfds``."""


def main() -> int:
    """Start the bundle; does not return unless something is wrong."""
    options = _parser().parse_args()
    try:
        env, problems = environment(options.env)
        # All mistakes of all programs are shown before one of them starts.
        problems += [*_mistakes(env), *_faults_of(options.configuration)]
        for name in _unknown(env):
            _say(f"{name}: there is no such setting; it is ignored")
        if problems:
            raise ConfigError(problems)
        hold_sockets(env)
    except ConfigError as error:
        for problem in error.problems:
            _say(problem)
        return os.EX_CONFIG
    _make_output_reopenable()
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(options.configuration)]
    return os.execve(sys.executable, command, env)  # noqa: S606  # a list, and no shell


def _say(text: str) -> None:
    print(f"coremond-bundle: {text}", file=sys.stderr)  # noqa: T201  # there is no log yet


def _unknown(env: dict[str, str]) -> list[str]:
    """Name the variables that look like settings and are none, once all programs have read theirs.

    Kubernetes sets some that look so for its services.
    """
    return sorted(
        name
        for name in env
        if name.startswith(_PREFIXES) and name not in EnvReader.known and "_SERVICE_" not in name
    )


def _make_output_reopenable() -> None:
    """Put a pipe between supervisord and a standard output that is a socket (systemd's journal).

    supervisord opens its standard output once more by name, which cannot be done with a socket.
    """
    if not stat.S_ISSOCK(os.fstat(1).st_mode):
        return
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        subprocess.Popen(["cat"], stdin=pipe, start_new_session=True)
    os.dup2(writing, 1)
    os.close(writing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coremond-bundle",
        description="Run coremond, crashagent and qkview-collect under supervisord, in the "
        "foreground. Ctrl-C or SIGTERM stops all three.",
    )
    parser.add_argument(
        "--env", type=Path, metavar="FILE", help="settings, as NAME=value lines: conf/coremond.env"
    )
    parser.add_argument(
        "-c",
        "--configuration",
        type=Path,
        default=CONFIGURATION,
        metavar="FILE",
        help="the configuration of supervisord (default: the one that comes with it, %(default)s)",
    )
    parser.add_argument(
        "--version", action="version", version=buildinfo.describe("coremond-bundle")
    )
    return parser


def _mistakes(env: dict[str, str]) -> list[str]:
    """Read the settings of every program, and give all that is wrong with them."""
    problems: list[str] = []
    for load in (CoremondSettings.from_env, CrashagentSettings.from_env, QkviewSettings.from_env):
        try:
            load(env)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems


def _faults_of(configuration: Path) -> Iterator[str]:
    """Say why supervisord would not start with *configuration*, as far as that can be told."""
    found = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    try:
        # Without O_NONBLOCK, a FIFO that nobody writes to would be waited for.
        with open(os.open(configuration, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            found.read_file(file, source=str(configuration))
    except (OSError, UnicodeDecodeError) as error:
        yield f"-c {configuration}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
    except configparser.Error as error:
        yield f"-c {configuration}: {' '.join(str(error).split())}"
    else:
        if not found.has_section("supervisord"):
            yield f"-c {configuration}: expected supervisord's configuration: no [supervisord]"


def hold_sockets(env: dict[str, str]) -> None:
    """Open crashagent's sockets and leave them to the programs, told of in *env*."""
    reader = EnvReader(env)
    run_dir = read_places(reader)["run_dir"]
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"COREMON_RUN_DIR={run_dir}: {error.strerror}"]) from error
    env["COREMON_RUN_DIR"] = str(run_dir)
    settings = CrashagentSettings.from_env(env)
    _hold_socket(env, "CRASHAGENT_LISTEN_FD", settings.apport_socket)
    if settings.kernel_socket:
        _hold_socket(env, "CRASHAGENT_KERNEL_FD", settings.kernel_socket)
    if settings.systemd_socket:
        path = settings.systemd_socket
        _hold_socket(env, "CRASHAGENT_SYSTEMD_FD", path, socket.SOCK_SEQPACKET)


def _hold_socket(
    env: dict[str, str], name: str, path: Path, kind: int = socket.SOCK_STREAM
) -> None:
    listener = open_listener(path, kind)
    held = fcntl.fcntl(listener.detach(), fcntl.F_DUPFD, INHERITED_FROM)
    os.set_inheritable(held, True)
    env[name] = str(held)


if __name__ == "__main__":
    sys.exit(main())
