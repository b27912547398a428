"""An ordinary crash, and a store of real packed cores, so that a test states what differs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.corestore import checksum_line
from common.files import write_all
from common.naming import RECORD_SUFFIX, CoreName, short_id
from common.packing.crew import Crew
from common.packing.packer import pack
from common.packing.registry import CODECS
from common.packing.sources import FileSource
from common.packing.sparse import PAGE
from common.packing.sums import sums_of
from common.record import CrashRecord, Identity

CRASHED_AT = 1_742_738_615_173_108_860


def crash(**facts: Any) -> CrashRecord:
    """Make the record of an ordinary crash, with *facts* that are its own."""
    ordinary: dict[str, Any] = {
        "pid": 9,
        "host_pid": 4711,
        "tid": 10,
        "uid": 1000,
        "gid": 100,
        "signal": 11,
        "comm": "observer",
        "exe": "/usr/bin/observer",
        "cmdline": "observer --all",
        "pod": "f5-observer-0",
        "container": "f5-observer",
        "process": "observer",
        "workload": "f5-observer",
        "crashed_at": CRASHED_AT,
        "state": "stored",
        "identity": Identity(by="container-id"),
    }
    known = {**ordinary, **facts}
    name = CoreName(
        pod=known["pod"],
        container=known["container"],
        process=known["process"],
        pid=known["pid"] or 0,
        crashed_at=known["crashed_at"],
    )
    return CrashRecord(**{"name": str(name), "id": short_id(str(name)), **known})


def core_of(size: int) -> bytes:
    """Make content that does not pack, with a page of zeros before it."""
    return bytes(PAGE) + os.urandom(size)


class Store:
    """A directory of stored cores, written as coremond writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes = b"a core", **facts: Any) -> CrashRecord:
        """Store a crash whose core is *content*; a core that is not kept gets a record only."""
        record = crash(**facts)
        if record.state == "stored":
            record = self._pack(record, content)
            (self.directory / record.checksum).write_text(checksum_line(record))
        self.path(record, RECORD_SUFFIX).write_bytes(record.to_json())
        return record

    def path(self, record: CrashRecord, suffix: str = ".gz") -> Path:
        """Say where one of the crash's files is."""
        return self.directory / (record.name + suffix)

    def _pack(self, record: CrashRecord, content: bytes) -> CrashRecord:
        source = os.memfd_create("core")
        target = os.open(self.directory / record.core, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(source, content)
            with Crew(1) as crew:
                packed = pack(FileSource(source), target, CODECS[record.codec], crew)
            sums = sums_of(target)
        finally:
            os.close(source)
            os.close(target)
        return replace(
            record,
            size=packed.size,
            data=packed.data,
            packed=packed.packed,
            crc32=f"{packed.crc32:08x}",
            sha256=sums.sha256,
        )
