"""Which records a client asks for, and how one is summed up for it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from common.corestore import read_record
from common.files import opened_directory
from common.naming import PREFIX, RECORD_SUFFIX, short_id
from common.qkview_pb2 import CoreSummary, ListCoresRequest
from common.record import CrashRecord

_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)


def is_id(text: str) -> bool:
    """Say whether *text* can be the id of a record."""
    return _ID.fullmatch(text) is not None


def find_record(directory: Path, wanted: str) -> CrashRecord | None:
    """Read the record with the id *wanted*; None where *directory* has none.

    An id is compared with those of the names that are there, and is never a part of a path.
    """
    try:
        with opened_directory(directory) as opened:
            for name in os.listdir(opened):
                if _id_of(name) == wanted:
                    return read_record(opened, name)
    except FileNotFoundError:
        pass  # no directory yet, or the record was removed since it was listed
    return None


def _id_of(name: str) -> str:
    if not (name.startswith(PREFIX) and name.endswith(RECORD_SUFFIX)):
        return ""
    return short_id(os.fsencode(name.removesuffix(RECORD_SUFFIX)).decode("utf-8", "replace"))


def choose_records(records: Iterable[CrashRecord], request: ListCoresRequest) -> list[CrashRecord]:
    """Pick the records that *request* asks for, in their order; with a limit, the last of them."""
    chosen = [record for record in records if _is_asked_for(record, request)]
    return chosen[-request.limit :]  # all of them where the limit is 0


def _is_asked_for(record: CrashRecord, request: ListCoresRequest) -> bool:
    last = max(record.crashed_at, record.last_crashed_at)
    return (
        (not request.process or record.process == request.process)
        and (not request.pod or record.pod == request.pod)
        and (not request.since or last >= request.since)
        and (not request.until or record.crashed_at <= request.until)
    )


def summary_of(record: CrashRecord) -> CoreSummary:
    """Sum *record* up."""
    return CoreSummary(
        id=record.id,
        name=record.name,
        state=record.state,
        reason=record.reason,
        crashed_at=record.crashed_at,
        pid=record.pid,
        uid=record.uid,
        gid=record.gid,
        signal=record.signal,
        process=record.process,
        comm=record.comm,
        exe=record.exe,
        namespace=record.namespace,
        pod=record.pod,
        container=record.container,
        node=record.node,
        size=record.size,
        packed=record.packed,
        crc32=record.crc32,
        sha256=record.sha256,
        truncated=record.truncated,
        count=record.count,
    )


def why_not_kept(record: CrashRecord) -> str:
    """Say in words why the core of *record* is not there; empty where it should be."""
    if record.state == "stored":
        return ""
    what = "was removed" if record.state == "removed" else "was never stored"
    return f"the core {what}: {record.reason}" if record.reason else f"the core {what}"
