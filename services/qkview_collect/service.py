"""What the server answers: each call of `coremond.qkview.v1.Qkview`."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import BoundedSemaphore
from typing import NoReturn, Protocol

import grpc

from common.corestore import open_core, read_records
from common.errors import CollectorError
from common.log import Logger
from common.qkview_pb2 import (
    CoreChunk,
    CoreHead,
    CoreSummary,
    FetchCoreRequest,
    GetRecordReply,
    GetRecordRequest,
    ListCoresRequest,
)
from common.qkview_pb2_grpc import QkviewServicer
from common.record import CrashRecord
from services.qkview_collect.cores import (
    choose_records,
    find_record,
    is_id,
    summary_of,
    why_not_kept,
)
from services.qkview_collect.measures import Measures

CHUNK = 256 * 1024
"""Bytes of a core in one message."""
STREAMS = 4
"""So many streams at once; each holds a thread, and some threads stay free for short calls."""

log = Logger()


class StopSign(Protocol):
    """What tells a stream that the program is about to end."""

    def is_set(self) -> bool:
        """Say whether the stop was asked for."""
        ...


class QkviewService(QkviewServicer):
    """Answers out of the directory of stored cores, which it reads anew for each call."""

    def __init__(self, store_dir: Path, stop: StopSign, measures: Measures) -> None:
        self._store_dir = store_dir
        self._stop = stop
        self._measures = measures
        self._streams = BoundedSemaphore(STREAMS)

    def ListCores(  # noqa: N802  # the name is the protocol's
        self, request: ListCoresRequest, context: grpc.ServicerContext
    ) -> Iterator[CoreSummary]:
        """Tell the crashes on record, oldest first."""
        self._measures.called("ListCores")
        self._take_stream(context)
        records = self._read(context)
        yield from map(summary_of, choose_records(records, request))

    def GetRecord(  # noqa: N802
        self, request: GetRecordRequest, context: grpc.ServicerContext
    ) -> GetRecordReply:
        """Give everything known of one crash."""
        self._measures.called("GetRecord")
        return GetRecordReply(json=self._find(request.id, context).to_json())

    def FetchCore(  # noqa: N802
        self, request: FetchCoreRequest, context: grpc.ServicerContext
    ) -> Iterator[CoreChunk]:
        """Give the packed core of one crash, from an offset on."""
        self._measures.called("FetchCore")
        self._take_stream(context)
        record = self._find(request.id, context)
        core = self._open(record, context)
        try:
            if not 0 <= request.offset <= record.packed:
                text = f"offset {request.offset} of a core of {record.packed} bytes"
                context.abort(grpc.StatusCode.OUT_OF_RANGE, text)
            log.info("core handed out", core=record.core, offset=request.offset, **_who(context))
            yield from self._stream(core, record, request.offset, context)
        finally:
            os.close(core)

    def _stream(
        self, core: int, record: CrashRecord, offset: int, context: grpc.ServicerContext
    ) -> Iterator[CoreChunk]:
        is_whole = False
        try:
            yield CoreChunk(head=_head_of(record))
            for data in _chunks(core, offset, record.packed):
                if self._stop.is_set():
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
                yield CoreChunk(data=data)
                self._measures.handed_out(len(data))
            is_whole = True
        finally:
            self._measures.ended(is_whole=is_whole)

    def _take_stream(self, context: grpc.ServicerContext) -> None:
        """Claim one of the streams until the call ends, however it ends."""
        if not self._streams.acquire(blocking=False):
            text = f"{STREAMS} streams are under way already; try again"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        if not context.add_callback(self._streams.release):
            self._streams.release()
            context.abort(grpc.StatusCode.CANCELLED, "the call has ended")

    def _read(self, context: grpc.ServicerContext) -> list[CrashRecord]:
        try:
            return read_records(self._store_dir)
        except OSError as error:
            _fail(context, "the records", error)

    def _find(self, wanted: str, context: grpc.ServicerContext) -> CrashRecord:
        if not is_id(wanted):
            text = "an id is 12 hexadecimal digits, in lower case"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        try:
            record = find_record(self._store_dir, wanted)
        except (OSError, CollectorError) as error:
            _fail(context, f"the record {wanted}", error)
        if record is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no record {wanted}")
        return record

    def _open(self, record: CrashRecord, context: grpc.ServicerContext) -> int:
        why = why_not_kept(record)
        if why:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
        try:
            core = open_core(self._store_dir, record)
        except FileNotFoundError:
            text = "the core is recorded as stored, but its file is gone"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        except (OSError, CollectorError) as error:
            _fail(context, f"the core {record.id}", error)
        size = os.fstat(core).st_size
        if size != record.packed:
            os.close(core)
            text = f"the core's file has {size} bytes, not the {record.packed} that were stored"
            context.abort(grpc.StatusCode.DATA_LOSS, text)
        return core


def _chunks(core: int, offset: int, size: int) -> Iterator[bytes]:
    """Read the open *core* from *offset* up to *size*; a file that shrinks ends sooner."""
    while offset < size and (data := os.pread(core, min(CHUNK, size - offset), offset)):
        yield data
        offset += len(data)


def _head_of(record: CrashRecord) -> CoreHead:
    return CoreHead(name=record.core, size=record.packed, crc32=record.crc32, sha256=record.sha256)


def _who(context: grpc.ServicerContext) -> dict[str, object]:
    names: Iterable[bytes] = context.auth_context().get("x509_common_name", ())  # type: ignore[assignment]  # a list
    return {"peer": context.peer(), "client": b", ".join(names)}


def _fail(context: grpc.ServicerContext, what: str, error: Exception) -> NoReturn:
    """End the call for a fault of ours, told to the log in full and to the client in short."""
    log.error("call failed", what=what, reason=str(error), effect="the client is told so")
    context.abort(grpc.StatusCode.INTERNAL, f"{what} cannot be read; the server's log has more")
