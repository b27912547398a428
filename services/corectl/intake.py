"""``corectl intake``: hand a core on to crashagent, as the kernel's pipe helper.

The kernel runs it as root with an empty environment, the core on standard input and nothing else
open. Whatever is wrong with the words or the settings, the core goes on: to crashagent, and where
that cannot be reached, into the crash directory, where coremond finds it.
"""

import os
import socket
import struct
from array import array

from services.corectl.intake_words import Facts, read_words

ENV_FILE = "/etc/coremond/coremond.env"
"""Read where the line names no other."""
DEFAULTS = {"CRASHAGENT_APPORT_SOCKET": "/run/apport.socket", "COREMON_CRASH_DIR": "/var/crash"}
"""What counts without that file; the settings of the programs are not imported for it."""

GREETING = b"coremond/1 "
MESSAGE_LIMIT = 4096
"""Bytes that crashagent reads of a message."""
PATIENCE = 2
"""Seconds that crashagent may take to accept."""
STDIN = 0


def take_in(words: list[str]) -> int:
    """Hand the core on standard input on; *words* say what the kernel knows of the crash."""
    try:
        _occupy_standard_descriptors()
        facts, settings = _understand(words)
    except Exception:  # whatever it is, it must not cost the core
        facts, settings = {}, DEFAULTS
    if os.isatty(STDIN):
        return _fail("the kernel runs this: see corectl host prepare --mode pipe", os.EX_USAGE)
    try:
        _send(settings["CRASHAGENT_APPORT_SOCKET"], message_of(facts))
    except Exception as error:
        why = f"crashagent cannot be reached ({error})"
    else:
        return os.EX_OK
    try:
        from services.corectl.intake_file import keep  # what it needs takes time to import

        keep(facts, settings)
    except Exception as error:
        return _fail(f"a core is lost: {why}, and it cannot be left as a file ({error!r})", 1)
    return os.EX_OK


def _understand(words: list[str]) -> tuple[Facts, dict[str, str]]:
    facts, env_file = read_words(words)
    _drop_pid_of_another(facts)
    return facts, read_settings(env_file)


def run(_: object, args: object) -> int:
    """Hand a core on where the operator's command line was read first."""
    given = vars(args)
    env_file = ["--env", str(given["env"])] if given["env"] else []
    return take_in([*env_file, *given["words"]])


def _occupy_standard_descriptors() -> None:
    """Open what is closed of them, so that no file of ours is taken for the standard error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(descriptor)


def read_settings(env_file: str = "") -> dict[str, str]:
    """Read the settings from *env_file*, or else from `ENV_FILE`; one that is wrong is not there.

    A file that sets none of them is not taken apart, for what does that is slow to import.
    """
    try:
        with open(env_file or ENV_FILE, encoding="utf-8") as file:
            lines = [line for line in file if not line.lstrip().startswith("#")]
    except (OSError, ValueError):
        return DEFAULTS
    if not any(line.strip() for line in lines):
        return DEFAULTS
    from pathlib import Path

    from common.errors import ConfigError
    from common.settings import read_env_file

    try:
        return DEFAULTS | {k: v for k, v in read_env_file(Path(env_file or ENV_FILE)).items() if v}
    except ConfigError:
        return DEFAULTS


def _drop_pid_of_another(facts: Facts) -> None:
    """Forget the process's pid if the kernel's own descriptor of it says that it is another's."""
    pidfd, pid = facts.pop("pidfd", None), facts.get("host_pid")
    if pidfd is None or pid is None:
        return
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return
    if any(words[0] == "Pid:" and words[1] != str(pid) for words in lines if len(words) == 2):
        del facts["host_pid"]


def message_of(facts: Facts) -> bytes:
    """Write the message to crashagent; a name too long for it is left to what /proc says."""
    for left_out in ((), ("exe",), ("exe", "hostname")):
        message = GREETING + _json({k: v for k, v in facts.items() if k not in left_out})
        if len(message) <= MESSAGE_LIMIT:
            break
    return message


def _json(facts: Facts) -> bytes:
    import json

    shown = {name: _text(v) if isinstance(v, str) else v for name, v in facts.items()}
    return json.dumps(shown).encode("ascii")


def _text(value: str) -> str:
    r"""Show the bytes of a hostile name as text, with ``\xHH`` for what is no UTF-8."""
    return os.fsencode(value).decode("utf-8", "backslashreplace")


def _send(path: str, message: bytes) -> None:
    """Send *message* with standard input, as Apport does; nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # With a timeout of Python's, a full backlog would be an error at once.
        patience = struct.pack("@ll", PATIENCE, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        connection.connect(path)
        rights = array("i", [STDIN])
        connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        connection.shutdown(socket.SHUT_RDWR)


def _fail(text: str, status: int) -> int:
    """Tell it where somebody may read it: the terminal, or else the kernel's log."""
    line = f"corectl intake: {text}".encode("ascii", "backslashreplace")[:900] + b"\n"
    try:
        target = 2 if os.isatty(2) else os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        target = 2
    os.write(target, line)
    return status
