"""The crash record: everything known of one crash, as it stands beside its core."""

import os
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import msgspec

from common.errors import MessageError
from common.item import CodecName, Crash
from common.naming import CHECKSUM_SUFFIX, CORE_SUFFIXES, encode_name
from common.pod import ContainerKind

RECORD_VERSION = 1
RECORD_LIMIT = 4 * 2**20
"""Bytes of a record file; a longer one is not ours."""

_BLOCK = 4096
"""Bytes that disks give to files at once."""

SourceKey = tuple[str, int, int, int]
ContainerKey = tuple[str, str, str, int | None, bool]
State = Literal["stored", "held", "removed"]
IdentityBy = Literal["container-id", "pod-uid", "hostname", "core-environ", "guess"]
ContainerBy = Literal["container-id", "directory", "only-one", "core-environ", "process", "guess"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """How the pod of a crash was found, which is how sure it is, the surest first.

    The id of the process's container; the uid of its pod, in its cgroup or in the name of the
    directory that the core was left in; the host name, which one pod has; the environment in the
    core, which the host name does not gainsay; or what is likeliest of what does not fit together.
    """

    by: IdentityBy
    container_by: ContainerBy = "guess"
    """The same of the container: its id, the directory the core was left in, the only one that ran,
    what the core's environment claims, the program that it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PodFacts:
    """What was known of the pod, and of the container that crashed, at the crash.

    What the API alone tells is empty where it could not be asked.
    """

    uid: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    """The workload that made the pod: of a ReplicaSet's pod the Deployment."""
    qos: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    """Those that were asked for."""
    container_kind: ContainerKind | None = None
    image: str = ""
    image_id: str = ""
    restart_count: int | None = None
    limits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The file a crash was read from: enough to know it again after a restart."""

    name: str
    """The file's name in the crash directory, percent-encoded where it is not plain."""
    device: int
    inode: int
    size: int
    changed_at: int
    """The file's mtime, nanoseconds."""

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> Self:
        """Describe the file *name*, so that it is known again."""
        return cls(
            name=encode_name(name),
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            changed_at=status.st_mtime_ns,
        )

    @property
    def key(self) -> SourceKey:
        """What the file is known again by; devices are numbered anew when a node restarts."""
        return (self.name, self.inode, self.size, self.changed_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashRecord(Crash):
    """What stays of a crash. Sizes are bytes, moments nanoseconds since the epoch."""

    version: int = RECORD_VERSION
    id: str
    name: str
    """What the crash's files are called, without their suffixes: ``<name>.gz`` is the core."""
    state: State
    """``stored``: the core is there. ``held``: it was not kept. ``removed``: it was, once."""
    reason: str = ""
    """Why the core is not there."""
    node: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    process: str = ""
    workload: str = ""
    """The pod's name without its generated suffix; with the container and the process, and the
    namespace, the key that limits are counted by."""
    identity: Identity
    kubernetes: PodFacts | None = None
    """What is known of the pod; None where none was found."""
    log: str = ""
    """The file name of the end of the container's log; empty where there is none."""
    log_size: int = 0
    elf: bool = True
    codec: CodecName = "gzip"
    """How the core is packed."""
    size: int = 0
    """The core as the process left it, holes included."""
    data: int = 0
    """Of that, what was neither a hole nor a block of zeros."""
    packed: int = 0
    """The stored file."""
    ratio: float = 0.0
    """size / packed."""
    crc32: str = ""
    """CRC-32 of the stored file, 8 hex digits, as in its .crc."""
    sha256: str = ""
    """SHA-256 of the stored file."""
    detected_at: int = 0
    stored_at: int | None = None
    removed_at: int | None = None
    acknowledged_at: int | None = None
    """When an operator said that he knows of it; None again once a further crash is counted."""
    convert_seconds: float | None = None
    owner: int | None = None
    """The user who owned the source: whatever else is said of a crash, the kernel says this."""
    window: int = 0
    """Which core of its limit's window this is, from 1; 0 where no limit was set."""
    count: int = 1
    """How many crashes this record stands for; more than 1 only where cores were held."""
    last_crashed_at: int = 0
    """The newest of them."""
    sources: tuple[Source, ...] = ()
    """The files that were taken in; of crashes counted later, as long as they are on disk."""

    @property
    def core(self) -> str:
        """The file name of the core."""
        return self.name + CORE_SUFFIXES[self.codec]

    @property
    def occupied(self) -> int:
        """Bytes that its four files take up on the disk, in blocks, as far as its sizes tell."""
        core, log_end = (-(-size // _BLOCK) * _BLOCK for size in (self.packed, self.log_size))
        return core + log_end + 2 * _BLOCK

    @property
    def checksum(self) -> str:
        """The file name of the core's checksum."""
        return self.core + CHECKSUM_SUFFIX

    @property
    def container_key(self) -> ContainerKey:
        """The container that it was of; what another user made up, or is a guess, is not."""
        is_guess = self.identity.by == "guess"
        return self.namespace, self.workload, self.container, self.owner, is_guess

    @property
    def is_new(self) -> bool:
        """Whether an operator has still to acknowledge it; what was removed asks for nobody."""
        return self.acknowledged_at is None and self.state != "removed"

    def to_json(self) -> bytes:
        """Write the record as indented JSON that ends in a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what `to_json` wrote, or raise `MessageError` saying what differs."""
        try:
            record = msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"not a crash record: {error}") from error
        if record.version > RECORD_VERSION:
            raise MessageError(
                f"a crash record of version {record.version}; this program reads {RECORD_VERSION}"
            )
        return record


def facts_of(crash: Crash) -> dict[str, Any]:
    """Give the facts a record shares with the item it came from, by name."""
    return {each.name: getattr(crash, each.name) for each in fields(Crash)}
