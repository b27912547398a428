"""The command line: which commands there are, and what each can be told."""

import argparse
import re
import time
from pathlib import Path
from typing import TypeAlias

from common import buildinfo
from common import settings as values
from services.corectl.moments import read_moment

MATCH_HELP = """\
MATCH says which crashes; several are alternatives. It is a pid (4711), the path of an executable
(/usr/bin/tmm), the id of a record or the start of one (at least 4 digits), the name of a core's
file (core.….gz), the name of a process (tmm) or of a pod (web-0, shop/web-0), or a namespace
(shop/)."""
MOMENT_HELP = "a date, a date and time, or how long ago (2h)"
STATUS_HELP = """\
Exit status: 0 all is well; 1 something is not, and each fault is told on standard error, with what
to do; 3 supervisord does not answer. This is the container's health check."""
CHECK_HELP = """\
Exit status: 0 where at least one way works, and nothing is wrong with the one that is in use; else
1. Each fault is told with what to do."""
PREPARE_HELP = """\
file    core_pattern is a file in COREMON_CRASH_DIR: works with every kernel
socket  the kernel hands cores to crashagent itself: Linux 6.16 or later
pipe    the kernel starts corectl for every crash
auto    socket where the kernel has it and crashagent listens there, else file

A socket where nobody listens loses every core, so it is not set without --force; with --if-asked it
is, and said, for the init container comes before crashagent.
Exit status: 0 it is set, or nobody asked for it; 1 it is not, or SELinux keeps containers out."""

FETCH_HELP = """\
What comes in is FILE.part until all of it is there and its checksum is right. A fetch that ended
before leaves it, and the same command goes on from there; to begin anew, remove it."""
CNEINSTANCE_HELP = """\
What is read of a CNEInstance (apiVersion k8s.f5.com/v1 or k8s.f5net.com/v1):

  spec.coreCollection.enabled        true, or there is nothing to install
  spec.platformType                  generic, other, ocp, robin, socket or auto, as in the chart
  spec.storageClassName              of the volume for cores, where hostPath is false
  spec.certificate.clusterIssuer     cert-manager's issuer of the certificates for gRPC
  spec.advanced.coremon.hostPath     true: cores stay on each node; false: on a shared volume
  spec.advanced.coremon.env          settings, as name and value, or other variables, also with
                                     valueFrom; COREMOND_OVERRIDE_CORE_PATTERN: "true" has each
                                     node's core_pattern set

The least that collects cores on each node:

  apiVersion: k8s.f5.com/v1
  kind: CNEInstance
  metadata: {name: sample}
  spec:
    coreCollection: {enabled: true}
    advanced:
      coremon:
        hostPath: true
        env:
        - {name: COREMOND_OVERRIDE_CORE_PATTERN, value: "true"}

What has no counterpart, and what is passed over, is said in comments before the values.
Exit status: 0 the values are on standard output; 1 it is no CNEInstance, or something in it is
wrong; 3 it collects no cores, so that there are no values, and nothing is to be installed."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="corectl",
        description="See, check and take out the cores that coremond has collected.",
        epilog="Settings come from the environment, as the programs' own do.",
        allow_abbrev=False,
    )
    parser.add_argument("--env", metavar="FILE", type=Path, help="lay this file's settings over it")
    parser.add_argument("--version", action="version", version=buildinfo.describe("corectl"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_reading_commands(commands)
    _add_acting_commands(commands)
    _add_host_commands(commands)
    _add_cluster_commands(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: _Commands, name: str, help_text: str, epilog: str = ""
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=help_text,
        description=help_text[:1].upper() + help_text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--env", metavar="FILE", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return command


def _add_reading_commands(commands: _Commands) -> None:
    status = _add(
        commands, "status", "tell whether the programs, sockets and disks are well", STATUS_HELP
    )
    _add_json(status)

    listing = _add(commands, "list", "list crashes, one a line, oldest first", MATCH_HELP)
    _add_selection(listing)
    _add_order(listing)
    listing.add_argument("--new", action="store_true", help="those alone that nobody acknowledged")
    listing.add_argument("-q", "--quiet", action="store_true", help="leave the titles out")
    _add_json(listing)

    info = _add(
        commands, "info", "tell everything known of a crash; the newest by default", MATCH_HELP
    )
    _add_selection(info)
    _add_order(info)
    _add_json(info)

    verify = _add(
        commands, "verify", "check stored cores against their checksums; all by default", MATCH_HELP
    )
    _add_selection(verify)
    _add_json(verify)

    watch = _add(commands, "watch", "tell what becomes of cores as it happens, until Ctrl-C")
    watch.add_argument("-q", "--quiet", action="store_true", help="tell events only")
    _add_json(watch, "one JSON document a line for each event")


def _add_acting_commands(commands: _Commands) -> None:
    dump = _add(commands, "dump", "unpack the newest core that matches", MATCH_HELP)
    _add_selection(dump)
    dump.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it here, sparsely")
    dump.add_argument("-f", "--force", action="store_true", help="replace FILE if it is there")

    ack = _add(commands, "ack", "acknowledge crashes: they are no longer new", MATCH_HELP)
    _add_selection(ack)
    ack.add_argument("--all", action="store_true", help="all there are, if no MATCH is given")

    submit = _add(commands, "submit", "hand coremond a file of the crash directory now")
    submit.add_argument("file", metavar="FILE", help="a core that nobody has told coremond of")

    fetch = _add(
        commands, "fetch", "fetch a packed core from qkview-collect, or the rest of one", FETCH_HELP
    )
    fetch.add_argument("id", metavar="ID", type=_id, help="the record's id: 12 hex digits")
    fetch.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write it here; by default its own name"
    )
    fetch.add_argument("-f", "--force", action="store_true", help="replace FILE if it is there")
    fetch.add_argument("--address", metavar="HOST:PORT", type=_address, help="by default this host")
    fetch.add_argument("--tls-dir", metavar="DIR", type=Path, help="tls.crt, tls.key and ca.crt")
    fetch.add_argument("--server-name", metavar="NAME", help="the name in the server's certificate")


def _add_host_commands(commands: _Commands) -> None:
    host = _add(commands, "host", "see to it that the kernel of this host hands its cores over")
    actions = host.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = _add(actions, "check", "tell by which ways crashes will arrive, or why not", CHECK_HELP)
    _add_json(check)

    prepare = _add(actions, "prepare", "set core_pattern, and keep what it was", PREPARE_HELP)
    prepare.add_argument("--mode", choices=("file", "socket", "pipe", "auto"), default="auto")
    prepare.add_argument(
        "--if-asked", action="store_true", help="only if COREMOND_OVERRIDE_CORE_PATTERN is true"
    )
    prepare.add_argument(
        "-f", "--force", action="store_true", help="set a socket where nobody listens yet, too"
    )

    _add(actions, "restore", "give the host back what prepare found")

    doctor = _add(actions, "doctor", "crash a tiny program, and follow it to its stored core")
    doctor.add_argument(
        "--timeout", metavar="TIME", type=_duration, default=15.0, help="by default 15s"
    )

    intake = _add(commands, "intake", "take a core from the kernel, as its pipe helper")
    intake.add_argument("words", metavar="WORD", nargs="*", help="what prepare --mode pipe writes")


def _add_cluster_commands(commands: _Commands) -> None:
    instance = _add(
        commands,
        "cneinstance",
        "write the values of the chart that a CNEInstance comes to",
        CNEINSTANCE_HELP,
    )
    instance.add_argument("file", metavar="FILE", help="its YAML, also among others; - reads stdin")
    instance.add_argument("--name", metavar="NAME", help="which, where there are several")


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("match", metavar="MATCH", nargs="*", help="which crashes; see below")
    command.add_argument(
        "-S", "--since", metavar="WHEN", type=_moment, help=f"not before {MOMENT_HELP}"
    )
    command.add_argument("-U", "--until", metavar="WHEN", type=_moment, help="not after it")
    command.add_argument(
        "-n", dest="number", metavar="N", type=_number, help="at most N, the newest"
    )
    command.add_argument("-1", dest="number", action="store_const", const=1, help="the newest only")


def _add_order(command: argparse.ArgumentParser) -> None:
    command.add_argument("-r", "--reverse", action="store_true", help="newest first")


def _add_json(command: argparse.ArgumentParser, help_text: str = "as one JSON document") -> None:
    command.add_argument("--json", action="store_true", help=help_text)


def _moment(text: str) -> int:
    try:
        return read_moment(text, now=time.time_ns())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    try:
        return values.positive(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected how many crashes at most: 1, 2, 3 or more"
        ) from None


def _duration(text: str) -> float:
    try:
        return values.duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _address(text: str) -> str:
    try:
        return values.address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{12}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 12 hexadecimal digits")
    return text
