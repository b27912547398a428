"""What corectl can be told from outside: where the programs have their things."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from common.places import Places, read_places
from common.settings import EnvReader, path, socket_path
from common.settings import address as address_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CorectlSettings(Places):
    """The settings, as they stand in the environment; the programs read the same variables."""

    apport_socket: Path = Path("/run/apport.socket")
    """CRASHAGENT_APPORT_SOCKET: where crashagent listens."""

    qkview_address: str = "0.0.0.0:19891"
    """QKVIEW_ADDRESS: where qkview-collect listens."""

    qkview_tls_dir: Path = Path("/etc/coremond/tls")
    """QKVIEW_TLS_DIR: tls.crt, tls.key and ca.crt to show to qkview-collect."""

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisord answers."""
        return self.run_dir / "supervisor.sock"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from *env*, or raise `ConfigError` with every mistake."""
        reader, default = EnvReader(env), cls()
        settings = cls(
            **read_places(reader),
            apport_socket=reader.read(
                "CRASHAGENT_APPORT_SOCKET", socket_path, default.apport_socket
            ),
            qkview_address=reader.read("QKVIEW_ADDRESS", address_of, default.qkview_address),
            qkview_tls_dir=reader.read("QKVIEW_TLS_DIR", path, default.qkview_tls_dir),
        )
        reader.finish()
        return settings
