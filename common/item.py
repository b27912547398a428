"""What travels between the programs: a crash on its way, and what became of a core."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import msgspec

from common.errors import MessageError

ITEM_VERSION = b"crash/1"
EVENT_VERSION = b"core/1"
MESSAGE_LIMIT = 256 * 1024
"""Bytes of a message's body; a longer one is refused."""

CodecName = Literal["gzip", "zstd", "lz4"]
"""How a core can be packed."""
Encoding = Literal["raw", "gzip", "zstd", "lz4"]
Arrival = Literal["file", "apport", "kernel-socket", "systemd", "apport-report", "pipe"]
Pid = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EventKind = Literal["stored", "held", "removed", "failed", "hold", "release"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Crash:
    r"""All that is known of a crash, whoever saw it; what nobody saw is None or empty.

    Every text comes from the crashed process and is hostile. Bytes that are no UTF-8 stand in it
    as ``\xHH``. Moments are nanoseconds since the epoch.
    """

    arrived: Arrival = "file"
    pid: Pid | None = None
    """The pid in the process's own pid namespace (``%p`` in core(5))."""
    host_pid: Pid | None = None
    """The pid as the collector sees it."""
    tid: Pid | None = None
    """The thread that crashed, in the process's own pid namespace."""
    uid: int | None = None
    gid: int | None = None
    signal: int | None = None
    comm: str = ""
    exe: str = ""
    cmdline: str = ""
    hostname: str = ""
    cgroup: str = ""
    container_id: str = ""
    started_at: Moment | None = None
    rlimit: int | None = None
    """The soft RLIMIT_CORE in bytes; None is unknown or unlimited."""
    dumpable: int | None = None
    """prctl(2) PR_GET_DUMPABLE at the crash: 0, 1 or 2."""
    crashed_at: Moment = 0
    capture: str = ""
    """How intake read the memory: ``resident``, only the pages that were there, or ``stream``, all
    that came, with the reason behind a colon; empty where it was not intake that did."""
    truncated: bool = False
    truncated_why: str = ""
    details: dict[str, str] | None = None
    """Whatever else was told, under the names that its teller has for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What packing a core gave."""

    size: int
    """Bytes of the core, holes included."""
    data: int
    """Bytes of it in blocks that were not all zeros."""
    packed: int
    """Bytes of the file it is packed in."""
    crc32: int
    """CRC-32 of that file."""
    cut: str = ""
    """Why the core went on, and the packing did not; empty if it is whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashItem(Crash):
    """One crash, and where its core is right now."""

    path: str
    """The absolute path of the core, a file in the crash directory."""
    encoding: Encoding = "raw"
    """How whoever wrote it there has packed it."""
    packed: Packed | None = None
    """What that gave, where it is packed."""
    count: Annotated[int, msgspec.Meta(ge=1, lt=2**32)] = 1
    """How many crashes it stands for; more than 1 only where they were turned away."""
    turned_away: str = ""
    """Why no core was taken; empty if one was."""
    held_until: Moment = 0
    """Until when that is so."""

    def to_wire(self) -> list[bytes]:
        """Write the item as the two frames of a message: version, JSON."""
        return [ITEM_VERSION, to_json(self)]

    @classmethod
    def from_wire(cls, frames: list[bytes]) -> Self:
        """Read what `to_wire` wrote, or raise `MessageError` saying what differs."""
        match frames:
            case [version, body] if version == ITEM_VERSION:
                return cls.from_json(body)
            case [version, *_]:
                raise MessageError(
                    f"expected {ITEM_VERSION!r} and a body, got {version[:32]!r} "
                    f"and {len(frames) - 1} more frames"
                )
            case _:
                raise MessageError("an empty message")

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read an item's JSON, or raise `MessageError` saying what differs."""
        if len(body) > MESSAGE_LIMIT:
            raise MessageError(f"a body of {len(body)} bytes; at most {MESSAGE_LIMIT} are read")
        try:
            item = msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"unreadable body: {error}") from error
        if not item.path.startswith("/") or "\0" in item.path:
            raise MessageError(f"expected an absolute path, got {item.path[:256]!r}")
        return item


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreEvent:
    """What became of a core, told to whoever listens."""

    kind: EventKind
    id: str
    """The id of the crash's record; empty where there is none (``failed``)."""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    process: str = ""
    pid: int | None = None
    core: str = ""
    """The path of the core, or of the source where no core was stored."""
    reason: str = ""
    at: int = 0
    until: int = 0
    """When a ``hold`` ends: from then on cores of the process are taken again."""

    def to_wire(self) -> list[bytes]:
        """Write the event as the three frames of a message: kind (the topic), version, JSON."""
        return [self.kind.encode(), EVENT_VERSION, to_json(self)]

    @classmethod
    def from_wire(cls, frames: list[bytes]) -> Self:
        """Read what `to_wire` wrote, or raise `MessageError` saying what differs."""
        match frames:
            case [_, version, body] if version == EVENT_VERSION and len(body) <= MESSAGE_LIMIT:
                pass
            case _:
                raise MessageError(f"expected a kind, {EVENT_VERSION!r} and a body")
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"unreadable body: {error}") from error


def to_json(value: object) -> bytes:
    """Write a dataclass of this project as JSON, UTF-8, on one line."""
    return msgspec.json.encode(value)


def clean(raw: bytes, limit: int = 4096) -> str:
    r"""Show at most *limit* hostile bytes as text, with ``\xHH`` for what is no UTF-8."""
    return raw[:limit].decode("utf-8", "backslashreplace")
