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
from common.settings import EnvReader, count, directory_name, duration, positive, socket_path


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashagentSettings(Places):
    """The settings, as they stand in the environment."""

    apport_socket: Path = Path("/run/apport.socket")
    """CRASHAGENT_APPORT_SOCKET: where Apport on the host forwards a container's crashes to."""

    listen_fd: int | None = None
    """CRASHAGENT_LISTEN_FD: the descriptor of that socket, already listening, where the bundle
    holds it so that no crash is refused while crashagent restarts."""

    pod_name: str = ""
    """POD_NAME: the host name of crashes whose own cannot be seen; the host's own if unset."""

    max_intakes: int = 16
    """CRASHAGENT_MAX_INTAKES: so many cores come in at once; further ones are held waiting."""

    idle_timeout: float = 30.0
    """CRASHAGENT_IDLE_TIMEOUT: a sender that says nothing for so long is taken for dead."""

    timeout: float = 600.0
    """CRASHAGENT_TIMEOUT: the longest that one core may take to come in."""

    spool: Encoding = "gzip"
    """CRASHAGENT_SPOOL: how cores that come in are written: `gzip`, `zstd`, `lz4` or `raw`; as
    COREMON_CODEC says if unset. What differs from that is packed anew by coremond."""

    effort: Effort = field(default_factory=Effort)

    disk: DiskLimits = field(default_factory=DiskLimits)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from *env*, or raise `ConfigError` with every mistake."""
        reader, default = EnvReader(env), cls()
        settings = cls(
            **read_places(reader),
            apport_socket=reader.read(
                "CRASHAGENT_APPORT_SOCKET", socket_path, default.apport_socket
            ),
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


def _encoding(text: str) -> Encoding:
    """Read how something is packed, or that it is not."""
    if text == "raw":
        return "raw"
    try:
        return codec_name(text)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(CODECS)}, raw") from None
