"""What crashagent can be told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from common.disk import DiskLimits, read_disk_limits
from common.effort import Effort, read_effort
from common.item import Encoding
from common.packing.registry import CODECS, codec_name, read_codec
from common.places import Places, read_places
from common.settings import (
    EnvReader,
    boolean,
    count,
    directory_name,
    duration,
    positive,
    socket_path,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashagentSettings(Places):
    """The settings, as they stand in the environment."""

    apport_socket: Path = Path("/run/apport.socket")
    """CRASHAGENT_APPORT_SOCKET: where Apport on the host forwards a container's crashes to."""

    kernel_socket: Path | None = Path("/run/coremond/kernel.sock")
    """CRASHAGENT_KERNEL_SOCKET: where the kernel itself hands crashes in, with a core_pattern of
    `@@` and this path (Linux 6.17; `@` in 6.16); in COREMON_RUN_DIR by default; `off` for none."""

    systemd_socket: Path | None = None
    """CRASHAGENT_SYSTEMD_SOCKET: where systemd-coredump's helper, or a host that forwards into
    containers (CoredumpReceive=), hands crashes in: `/run/systemd/coredump`; `off` for none, as on
    every host where systemd-coredump.socket itself listens there."""

    listen_fd: int | None = None
    """CRASHAGENT_LISTEN_FD: the descriptor of the Apport socket, already listening, where the
    bundle holds it so that no crash is refused while crashagent restarts."""

    kernel_fd: int | None = None
    """CRASHAGENT_KERNEL_FD: the same for the kernel's socket."""

    systemd_fd: int | None = None
    """CRASHAGENT_SYSTEMD_FD: the same for systemd-coredump's."""

    pod_name: str = ""
    """POD_NAME: the host name of crashes whose own cannot be seen; the host's own if unset."""

    max_intakes: int = 16
    """CRASHAGENT_MAX_INTAKES: so many cores come in at once; further ones are held waiting."""

    idle_timeout: float = 30.0
    """CRASHAGENT_IDLE_TIMEOUT: a sender that says nothing for so long is taken for dead."""

    timeout: float = 600.0
    """CRASHAGENT_TIMEOUT: the longest that one core may take to come in."""

    resident: bool = True
    """CRASHAGENT_RESIDENT: read the memory of a crashed process from the process itself, as far as
    it is there, so that it is let go sooner; false: read all that the kernel sends."""

    spool: Encoding = "gzip"
    """CRASHAGENT_SPOOL: how cores that come in are written: `gzip`, `zstd`, `lz4` or `raw`; as
    COREMON_CODEC says if unset. What differs from that is packed anew by coremond."""

    effort: Effort = field(default_factory=Effort)

    disk: DiskLimits = field(default_factory=DiskLimits)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from *env*, or raise `ConfigError` with every mistake."""
        reader, default = EnvReader(env), cls()
        places = read_places(reader)
        settings = cls(
            **places,
            apport_socket=reader.read(
                "CRASHAGENT_APPORT_SOCKET", socket_path, default.apport_socket
            ),
            kernel_socket=reader.read(
                "CRASHAGENT_KERNEL_SOCKET", _socket_or_off, places["run_dir"] / "kernel.sock"
            ),
            kernel_fd=reader.read("CRASHAGENT_KERNEL_FD", count, default.kernel_fd),
            systemd_socket=reader.read(
                "CRASHAGENT_SYSTEMD_SOCKET", _socket_or_off, default.systemd_socket
            ),
            systemd_fd=reader.read("CRASHAGENT_SYSTEMD_FD", count, default.systemd_fd),
            resident=reader.read("CRASHAGENT_RESIDENT", boolean, default.resident),
            listen_fd=reader.read("CRASHAGENT_LISTEN_FD", count, default.listen_fd),
            pod_name=reader.read("POD_NAME", directory_name, default.pod_name),
            max_intakes=reader.read("CRASHAGENT_MAX_INTAKES", positive, default.max_intakes),
            idle_timeout=reader.read("CRASHAGENT_IDLE_TIMEOUT", duration, default.idle_timeout),
            timeout=reader.read("CRASHAGENT_TIMEOUT", duration, default.timeout),
            spool=reader.read("CRASHAGENT_SPOOL", _encoding, read_codec(reader)),
            effort=read_effort(reader),
            disk=read_disk_limits(reader),
        )
        reader.require(settings.idle_timeout > 0, "CRASHAGENT_IDLE_TIMEOUT: expected more than 0")
        reader.require(settings.timeout > 0, "CRASHAGENT_TIMEOUT: expected more than 0")
        reader.finish()
        return settings


def _socket_or_off(text: str) -> Path | None:
    """Read the path of a socket; None for ``off``."""
    return None if text == "off" else socket_path(text)


def _encoding(text: str) -> Encoding:
    """Read how something is packed, or that it is not."""
    if text == "raw":
        return "raw"
    try:
        return codec_name(text)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(CODECS)}, raw") from None
