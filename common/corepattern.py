"""What a line of /proc/sys/kernel/core_pattern does with a core, and whose line it is.

Source: core(5); Linux, fs/coredump.c; the lines of canonical/apport, systemd/systemd and abrt/abrt
in every version, as far as they differ.
"""

import os
import re
from dataclasses import dataclass
from typing import Literal

PATTERN_LIMIT = 127
"""Bytes a core_pattern may have: the kernel's buffer has 128."""
FILE_TEMPLATE = "core.%e.%p.%h.%t"
"""What a file of ours is called: the names that coremond reads the most from."""
INTAKE_WORDS = "intake -P%P -p%p -i%i -u%u -g%g -s%s -t%t -c%c -d%d -F%F -h%h -- %E"
"""What the kernel tells corectl; what the crashed process chooses comes last."""
PIPE_LIMIT = 16
"""core_pipe_limit for our pipe: with 0, the process may be gone before it is looked at."""
SYSTEMD_SOCKET = "/run/systemd/coredumpd/kernel"

Form = Literal["none", "file", "pipe", "socket", "request-socket"]
"""How the kernel hands a core over; ``request-socket`` (``@@``) is asked first."""
Handler = Literal["coremond", "apport", "systemd-coredump", "abrt", "discard", "file", "unknown"]

_APPORT = {
    (): "before 0.1",
    ("%p", "%s", "%c"): "0.0.1 to 2.12",
    ("%p", "%s", "%c", "%P"): "2.13 to 2.20.7",
    ("%p", "%s", "%c", "%d", "%P"): "2.20.8 to 2.20.11",
    ("%p", "%s", "%c", "%d", "%P", "%E"): "2.20.11, updated",
    ("%p", "%s", "%c", "%d", "%P", "%u", "%g", "%E"): "2.21 to 2.32",
    ("%p", "%s", "%c", "%d", "%P", "%u", "%g", "%F", "%E"): "2.33 or later",
}
_SYSTEMD = {
    ("%p", "%u", "%g", "%s", "%t", "%e"): "215 to 228",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%e"): "229 to 238",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%h", "%e"): "239 to 242",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%h"): "243 to 256",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%h", "%d"): "243 to 256, updated",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%h", "%d", "%F"): "257 to 260",
    ("%P", "%u", "%g", "%s", "%t", "%c", "%h", "%d", "%F", "%I"): "261 or later",
}
_DISCARDING = {"false", "true", ":"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CorePattern:
    """A line, understood as far as it can be."""

    text: str
    form: Form
    handler: Handler
    target: str = ""
    """The program of a pipe, the path of a socket, the template of a file."""
    version: str = ""
    """Which versions of the handler write such a line; empty where that is not known."""

    @property
    def name(self) -> str:
        """What an operator would call the handler."""
        match self.handler, self.form:
            case "unknown", "pipe":
                return os.path.basename(self.target) or "no program"
            case "unknown", _:
                return self.target
            case _:
                return self.handler

    @property
    def directory(self) -> str:
        """The directory of a file pattern; empty where it depends on the crash."""
        folder = os.path.dirname(self.target) if self.form == "file" else ""
        if not folder.startswith("/") or "%" in folder.replace("%%", ""):
            return ""
        return os.path.normpath(folder.replace("%%", "%"))

    @property
    def is_core_name(self) -> bool:
        """Say whether coremond takes a file of this pattern for a core, by its name."""
        name = os.path.basename(self.target)
        return self.form == "file" and (name == "core" or name.startswith("core."))


def read_pattern(text: str) -> CorePattern:
    """Understand the line *text*; what nobody knows is ``unknown``. Never raises."""
    text = text.rstrip("\n")
    if not text:
        return CorePattern(text=text, form="none", handler="discard")
    if text.startswith("|"):
        return _read_pipe(text)
    if text.startswith("@"):
        form: Form = "request-socket" if text.startswith("@@") else "socket"
        path = text.lstrip("@")
        if path == SYSTEMD_SOCKET:
            return CorePattern(
                text=text,
                form=form,
                handler="systemd-coredump",
                target=path,
                version="262 or later",
            )
        is_ours = os.path.basename(path) == "kernel.sock" and "systemd" not in path
        return CorePattern(
            text=text, form=form, handler="coremond" if is_ours else "unknown", target=path
        )
    is_ours = os.path.basename(text) == FILE_TEMPLATE and text.startswith("/")
    return CorePattern(
        text=text, form="file", handler="coremond" if is_ours else "file", target=text
    )


def _read_pipe(text: str) -> CorePattern:
    program, *words = text[1:].split() or [""]
    handler, version = _handler_of(os.path.basename(program), words)
    return CorePattern(text=text, form="pipe", handler=handler, target=program, version=version)


def _handler_of(name: str, words: list[str]) -> tuple[Handler, str]:
    said = tuple(re.findall(r"%[A-Za-z]", " ".join(words)))
    if "intake" in words and (name == "corectl" or "services.corectl" in words):
        return "coremond", ""
    if name == "apport":
        return "apport", _APPORT.get(said, "")
    if name == "systemd-coredump":
        return "systemd-coredump", _SYSTEMD.get(said, "")
    if name.startswith("abrt-"):
        return "abrt", ""
    return ("discard" if name in _DISCARDING else "unknown"), ""


def file_pattern(directory: str) -> str:
    """Write the pattern that leaves cores in *directory*."""
    return f"{directory.rstrip('/')}/".replace("%", "%%") + FILE_TEMPLATE


def socket_pattern(path: str, *, asks_first: bool) -> str:
    """Write the pattern that hands cores to the socket *path*; the kernel takes it as it is."""
    return f"{'@@' if asks_first else '@'}{path}"


def pipe_pattern(program: str, env_file: str = "") -> str:
    """Write the pattern that hands cores to *program*, corectl; without *env_file* if too long."""
    plain = f"|{program} {INTAKE_WORDS}".replace(program, program.replace("%", "%%"), 1)
    if not env_file:
        return plain
    option = f" --env {env_file.replace('%', '%%')}"
    longer = plain.replace(" intake", f" intake{option}", 1)
    return longer if len(os.fsencode(longer)) <= PATTERN_LIMIT else plain


def problem_of(pattern: str) -> str:
    """Say why the kernel would not take *pattern* as it is meant; empty if it would."""
    size = len(os.fsencode(pattern))
    if size > PATTERN_LIMIT:
        return f"it has {size} bytes, and a core_pattern may have {PATTERN_LIMIT}: {pattern}"
    if "\n" in pattern or "\0" in pattern:
        return "it has a line break in it"
    if pattern.startswith("@"):
        path = pattern.lstrip("@")
        if " " in path or ".." in path.split("/"):
            return f"the kernel refuses a socket's path with a space or .. in it: {path}"
    return ""
