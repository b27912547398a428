"""Which records an operator's words mean."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import CollectorError
from common.naming import PREFIX, RECORD_SUFFIX, is_number
from common.record import CrashRecord

_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_ID_START = re.compile(r"[0-9a-f]{4,11}", re.ASCII)

_Records = Sequence[CrashRecord]


class AmbiguousError(CollectorError):
    """The start of an id fits more than one record. Nothing was done with any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What an operator asks for; nothing said means all."""

    matches: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    number: int | None = None
    """At most so many, the newest."""


def choose(records: _Records, selection: Selection) -> list[CrashRecord]:
    """Pick what *selection* means from *records*, in their order."""
    chosen = [record for record in records if _is_within(record, selection)]
    if selection.matches:
        ids = {found.id for text in selection.matches for found in _matching(chosen, text)}
        chosen = [record for record in chosen if record.id in ids]
    return chosen if selection.number is None else chosen[-selection.number :]


def _is_within(record: CrashRecord, selection: Selection) -> bool:
    last = max(record.crashed_at, record.last_crashed_at)
    return (selection.since is None or last >= selection.since) and (
        selection.until is None or record.crashed_at <= selection.until
    )


def _matching(records: _Records, text: str) -> _Records:
    """Give the records that one word means: see the help of MATCH."""
    if is_number(text):
        pid = int(text)
        return _where(records, lambda record: pid in {record.pid, record.host_pid})
    files = os.path.basename(text)
    named = _where(records, lambda r: files in {r.name, r.name + RECORD_SUFFIX, r.core, r.checksum})
    if named or files.startswith(PREFIX):
        return named
    if "/" in text.removesuffix("/"):
        exe = os.path.abspath(text)
        return _where(
            records,
            lambda record: record.exe in {text, exe} or text == f"{record.namespace}/{record.pod}",
        )
    if _ID.fullmatch(text):
        return _where(records, lambda record: record.id == text)
    processes = _where(records, lambda record: text in {record.comm, record.process})
    pods = _where(records, lambda record: text in {record.pod, f"{record.namespace}/"})
    return processes or pods or _by_start_of_id(records, text)


def _where(records: _Records, is_meant: Callable[[CrashRecord], bool]) -> _Records:
    return [record for record in records if is_meant(record)]


def _by_start_of_id(records: _Records, text: str) -> _Records:
    if not _ID_START.fullmatch(text):
        return []
    found = _where(records, lambda record: record.id.startswith(text))
    if len(found) > 1:
        raise AmbiguousError(f"{text} is the start of {len(found)} ids: give more of it")
    return found
