"""The settings that the chart takes in coremon.env, and how the programs read each."""

import re
from collections.abc import Callable

from common.effort import io_priority, niceness
from common.packing.registry import codec_name
from common.settings import (
    boolean,
    count,
    duration,
    floor,
    names,
    path,
    positive,
    size,
    socket_path,
    threads,
)

OVERRIDE = "COREMOND_OVERRIDE_CORE_PATTERN"
_PATTERN_LIMIT = 127


def _more_than_none(text: str) -> float:
    seconds = duration(text)
    if seconds == 0:
        raise ValueError("expected more than 0")
    return seconds


def _cluster(text: str) -> object:
    if text not in {"auto", "off"} and not text.startswith("/"):
        raise ValueError("expected auto, off, or the absolute path of a kubeconfig")
    return text if text in {"auto", "off"} else path(text)


def _encoding(text: str) -> object:
    try:
        return text if text == "raw" else codec_name(text)
    except ValueError as error:
        raise ValueError(f"{error}, raw") from None


def _socket_or_off(text: str) -> object:
    return text if text == "off" else socket_path(text)


def _source_pattern(text: str) -> str:
    for letter in re.findall(r"(?s)%(.?)", text):
        if letter not in set("%pPiIugsdtcCefEh"):
            raise ValueError(f"expected one of %% and %pPiIugsdtcCefEh, got %{letter}")
    if "/" in text or "\0" in text or text.startswith((".", "|", "@")):
        raise ValueError("expected the name of a file, as in core.%e.%p.%h.%t")
    if len(text.encode(errors="surrogateescape")) > _PATTERN_LIMIT:
        raise ValueError(f"expected at most {_PATTERN_LIMIT} bytes")
    if re.fullmatch("(%[efEh])*", text):
        raise ValueError("expected some text or a number, for else every name is a core's")
    return text


READERS: dict[str, Callable[[str], object]] = {
    OVERRIDE: boolean,
    "COREMON_CODEC": codec_name,
    "COREMON_CORES_INTERVAL": _more_than_none,
    "COREMON_CORES_MAX_FILES": count,
    "COREMON_DELETE_FOREIGN_SRC": boolean,
    "COREMON_DELETE_SRC": boolean,
    "COREMON_DENY": names,
    "COREMON_EVENTS": boolean,
    "COREMON_IO_PRIORITY": io_priority,
    "COREMON_KEEP_FREE": floor,
    "COREMON_KUBERNETES": _cluster,
    "COREMON_LIST_PODS": boolean,
    "COREMON_LOG_LINES": count,
    "COREMON_LOG_SIZE": size,
    "COREMON_MAX_CORE": size,
    "COREMON_MAX_USE": size,
    "COREMON_METRICS_WORKLOADS": count,
    "COREMON_NICE": niceness,
    "COREMON_POD_ANNOTATIONS": names,
    "COREMON_POD_LABELS": names,
    "COREMON_RECORD_RETENTION": duration,
    "COREMON_RETENTION": duration,
    "COREMON_RETENTION_INTERVAL": duration,
    "COREMON_ROTATE": boolean,
    "COREMON_SCAN_INTERVAL": _more_than_none,
    "COREMON_SOURCE_PATTERN": _source_pattern,
    "COREMON_WORKERS": threads,
    "CRASHAGENT_IDLE_TIMEOUT": _more_than_none,
    "CRASHAGENT_KERNEL_SOCKET": _socket_or_off,
    "CRASHAGENT_MAX_INTAKES": positive,
    "CRASHAGENT_RESIDENT": boolean,
    "CRASHAGENT_SPOOL": _encoding,
    "CRASHAGENT_SYSTEMD_SOCKET": _socket_or_off,
    "CRASHAGENT_TIMEOUT": _more_than_none,
}


def problem_of(name: str, text: str) -> str:
    """Say why the programs would not take *text* for the setting *name*; empty if they would."""
    read = READERS.get(name)
    # Empty is as good as unset to the programs, but the chart asks for a yes or a no.
    if read is None or (not text and name != OVERRIDE):
        return ""
    try:
        read(text)
    except ValueError as error:
        return f"{name}={text!r}: {error}"
    return ""
