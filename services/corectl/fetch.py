"""``corectl fetch``: a packed core from qkview-collect, here or elsewhere."""

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

# gRPC's own C++ log would only repeat, in its way, what is said here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from common.qkview_pb2 import CoreChunk, CoreHead, FetchCoreRequest, GetRecordRequest
from common.qkview_pb2_grpc import QkviewStub
from common.record import CrashRecord
from services.corectl.client import FetchError, is_past_the_end, open_channel, words_of
from services.corectl.partfile import PartFile, part_file
from services.corectl.progress import Progress, showing_progress
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe, say, show_size

_TIMEOUT = 10.0


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Fetch one core, going on where an earlier fetch ended."""
    with open_channel(settings, args.address, args.tls_dir, args.server_name) as channel:
        stub = QkviewStub(channel)  # type: ignore[no-untyped-call]
        try:
            target = args.output or _own_name(stub, args.id)
            with part_file(target, force=args.force) as part:
                _fetch(stub, args.id, part)
        except grpc.RpcError as error:
            complain(safe(words_of(error)))
            return 1
        except FetchError as error:
            complain(safe(str(error)))
            return 1
    print(safe(str(target)))
    return os.EX_OK


def _own_name(stub: QkviewStub, wanted: str) -> Path:
    """Ask for the name that the core has there, which is not taken for a path."""
    reply = stub.GetRecord(GetRecordRequest(id=wanted), timeout=_TIMEOUT)
    name = CrashRecord.from_json(reply.json).core
    if "/" in name or name.startswith("."):
        raise FetchError(f"its name there, {name!r}, is no file name; say --output")
    return Path(name)


def _fetch(stub: QkviewStub, wanted: str, part: PartFile) -> None:
    start = part.size
    if start:
        say(f"Going on after {show_size(start)} in {safe(str(part.part))}.")
    try:
        stream = stub.FetchCore(FetchCoreRequest(id=wanted, offset=start))
        head = next(stream, CoreChunk()).head
        with showing_progress(head.size) as show:
            _receive(stream, head, part, show)
    except grpc.RpcError as error:
        if part.size == 0 or is_past_the_end(error):
            part.discard()  # nothing in it, or more than the core has: it is of another one
        raise
    check(part, head)
    part.publish()


def _receive(stream: Iterator[CoreChunk], head: CoreHead, part: PartFile, show: Progress) -> None:
    done = part.size
    for chunk in stream:
        done += len(chunk.data)
        if done > head.size:
            part.discard()
            raise FetchError(f"more than the {head.size} bytes came that were announced")
        part.add(chunk.data)
        show(done)


def check(part: PartFile, head: CoreHead) -> None:
    """Raise `FetchError` unless the file is what *head* says of it."""
    if part.size < head.size:
        raise FetchError(f"{part.size} of {head.size} bytes came; fetch again to go on")
    found = part.checksum()
    if found != head.crc32:
        part.discard()
        raise FetchError(f"the CRC-32 is {found}, not {head.crc32}; fetch it anew")
