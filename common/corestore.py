"""The directory of stored cores, as everyone may read it: records, cores, checksums."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from common.cpus import available_cpus
from common.errors import CollectorError, CorruptError, SourceError
from common.files import open_regular, opened_directory, read_limited
from common.log import Logger
from common.naming import PREFIX, RECORD_SUFFIX
from common.packing.restoring import unpacked
from common.packing.sums import sums_of
from common.record import RECORD_LIMIT, CrashRecord

log = Logger()


def read_records(directory: Path) -> list[CrashRecord]:
    """Read every crash record in *directory*, oldest crash first.

    One that cannot be read is logged and passed over. A missing directory holds none.
    """
    try:
        with opened_directory(directory) as opened:
            return sorted(_records(opened), key=lambda record: (record.crashed_at, record.name))
    except FileNotFoundError:
        return []


def _records(directory: int) -> Iterator[CrashRecord]:
    for name in os.listdir(directory):
        if not (name.startswith(PREFIX) and name.endswith(RECORD_SUFFIX)):
            continue
        try:
            yield read_record(directory, name)
        except FileNotFoundError:
            continue  # removed since it was listed
        except CollectorError as error:
            log.warning(
                "crash record unreadable", file=name, reason=str(error), effect="it is passed over"
            )


def read_record(directory: int, name: str) -> CrashRecord:
    """Read the record in the file *name* of the open *directory*."""
    record = CrashRecord.from_json(read_limited(directory, name, RECORD_LIMIT))
    if name != record.name + RECORD_SUFFIX:
        raise SourceError(f"it says it is the record of {record.name!r}")
    return record


def open_core(directory: Path, record: CrashRecord) -> int:
    """Open the stored core of *record* for reading; a missing one is a FileNotFoundError."""
    with opened_directory(directory) as opened:
        return open_regular(opened, record.core)


def checksum_line(record: CrashRecord) -> str:
    """Write the line of the ``.crc`` file: SFV, as ``rhash --check`` and ``cksfv`` read it."""
    return f"{record.core} {record.crc32}\n"


def verify(directory: Path, record: CrashRecord) -> None:
    """Read the stored core of *record* whole: checksum file, CRC-32, and content.

    Raises `CorruptError` that says what is wrong; a missing file is a FileNotFoundError.
    """
    with opened_directory(directory) as opened:
        line = read_limited(opened, record.checksum, 4096).decode("ascii", "replace")
        core = open_regular(opened, record.core)
    try:
        found = re.fullmatch(r"(\S+) ([0-9A-Fa-f]{8})\n?", line)
        if not found or found[1] != record.core or found[2].lower() != record.crc32:
            raise CorruptError(f"the .crc file says {line.strip()!r}, not {record.crc32}")
        sums = sums_of(core)
        if sums.size != record.packed:
            raise CorruptError(f"{sums.size} bytes, not {record.packed}")
        if f"{sums.crc32:08x}" != record.crc32:
            raise CorruptError(f"its CRC-32 is {sums.crc32:08x}, not {record.crc32}")
        if sums.sha256 != record.sha256:
            raise CorruptError(f"its SHA-256 is {sums.sha256}, not {record.sha256}")
        content = sum(len(block) for block in unpacked(core, workers=available_cpus()))
        if content != record.size:
            raise CorruptError(f"it unpacks to {content} bytes, not {record.size}")
    finally:
        os.close(core)
