"""Apport's crash reports, ``<executable>.<uid>.crash``, each with a core and facts in it.

The executable's slashes are ``_``. A report has mode 0 while Apport writes it. Its siblings, which
end in ``.upload``, ``.uploaded`` and ``.hanging``, say what became of it, and are not ours. Anyone
may write a report: none of its values is a path or a name to us. Sources: Apport, data/apport,
process_crash(); apport/report.py, add_proc_info(); doc/data-format.tex.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress

from common.errors import CorruptError
from common.item import Crash
from common.log import Logger
from common.naming import MOST_PID
from common.packing.incoming import format_of
from common.packing.report import read_report
from common.settings import NANOSECONDS
from services.coremond.kinds import OpenSource, Told

log = Logger()

_NAME = re.compile(r"_.*\.\d{1,10}\.(crash|upload|uploaded|hanging)", re.ASCII | re.DOTALL)
_DETAILS = (
    *("Uname", "DistroRelease", "Architecture", "Package", "SourcePackage", "InterpreterPath"),
    *("ProcCwd", "ProcAttrCurrent", "CrashCounter"),
)
"""What a report says beside the facts of every crash, and a record keeps."""
_MOST_TEXT, _MOST_DETAIL = 4096, 512
_MOST_SIGNAL = 64
_ESCAPED = re.compile(r"\\([n\\])")  # all that the kernel escapes in the Name of a status


def is_apports(name: str) -> bool:
    """Say whether a file of this *name* is one of Apport's: a report, or a sibling of one."""
    return _NAME.fullmatch(name) is not None


class ApportReports:
    """The directory with the reports, ``/var/crash``, in which every user may write."""

    is_linked = False
    is_hidden = True
    may_grow = True  # Apport's windows add what they find out later

    def is_source(self, name: str) -> bool:
        """Take the reports, and nothing that lies beside them."""
        match = _NAME.fullmatch(name)
        return match is not None and match[1] == "crash"

    def tell(self, source: OpenSource) -> Told:
        """Tell what stands in the report; where no core can be had of it, say so."""
        if format_of(source.descriptor) != "apport-report":
            return Told(seen=Crash(arrived="apport-report"), lack="it is no report of Apport's")
        report = _read(source.name, source.descriptor)
        facts = facts_of(report, source.status.st_mtime_ns)
        return Told(seen=facts, lack=source.core.damage)


def _read(name: str, descriptor: int) -> dict[str, str]:
    try:
        return read_report(descriptor)
    except CorruptError as error:
        log.warning(
            "apport report unreadable",
            file=name,
            reason=str(error),
            effect="the crash is recorded without what it says; its core is taken",
        )
        return {}


def facts_of(report: Mapping[str, str], written_at: int) -> Crash:
    """Give the facts of the crash that *report* tells of; it was written at *written_at* (ns)."""
    status = _fields(report.get("ProcStatus", ""))
    pids = [_number(pid, MOST_PID) for pid in status.get("NSpid", "").split()]
    details = {key: report[key][:_MOST_DETAIL] for key in _DETAILS if report.get(key)}
    return Crash(
        arrived="apport-report",
        pid=pids[-1] if pids else None,
        host_pid=_number(status.get("Pid", ""), MOST_PID),
        uid=_number(_first_word(status.get("Uid", "")), MOST_PID),
        gid=_number(_first_word(status.get("Gid", "")), MOST_PID),
        signal=_number(report.get("Signal", ""), _MOST_SIGNAL),
        comm=_ESCAPED.sub(_unescape, status.get("Name", ""))[:_MOST_TEXT],
        exe=report.get("ExecutablePath", "")[:_MOST_TEXT],
        cmdline=report.get("ProcCmdline", "")[:_MOST_TEXT],
        crashed_at=_moment(report.get("Date", ""), written_at),
        details=details or None,
    )


def _fields(status: str) -> dict[str, str]:
    """Read the lines of a /proc/<pid>/status; the first of a name counts."""
    fields: dict[str, str] = {}
    for line in status.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name, value.strip("\t "))
    return fields


def _first_word(text: str) -> str:
    return text.partition("\t")[0]


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else "\\"


def _number(text: str, most: int) -> int | None:
    is_plain = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_plain and int(text) <= most else None


def _moment(date: str, written_at: int) -> int:
    """Read a report's date, which is local time; it cannot be later than the report itself."""
    with suppress(ValueError, OverflowError):
        moment = int(time.mktime(time.strptime(date, "%a %b %d %H:%M:%S %Y"))) * NANOSECONDS
        if 0 < moment <= written_at:
            return moment
    return max(0, written_at)
