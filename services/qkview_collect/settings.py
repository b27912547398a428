"""What qkview-collect can be told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from common.places import Places, read_places
from common.settings import EnvReader, address_or_off, path
from common.settings import address as address_of


@dataclass(frozen=True, kw_only=True, slots=True)
class QkviewSettings(Places):
    """The settings, as they stand in the environment."""

    address: str = "0.0.0.0:19891"
    """QKVIEW_ADDRESS: where cores are handed out, over mutual TLS; without certificates the host
    is 127.0.0.1 whatever this says. With port 0 the system chooses one, and the log says which."""

    tls_dir: Path = Path("/etc/coremond/tls")
    """QKVIEW_TLS_DIR: tls.crt, tls.key and ca.crt, as a Kubernetes TLS secret holds them; they are
    read again when they change."""

    metrics_address: str | None = "127.0.0.1:19892"
    """COREMON_METRICS_ADDRESS: where `/metrics`, `/healthz` and `/readyz` of all three programs are
    served, over plain HTTP; `off`: nowhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from *env*, or raise `ConfigError` with every mistake."""
        reader, default = EnvReader(env), cls()
        settings = cls(
            **read_places(reader),
            address=reader.read("QKVIEW_ADDRESS", address_of, default.address),
            tls_dir=reader.read("QKVIEW_TLS_DIR", path, default.tls_dir),
            metrics_address=reader.read(
                "COREMON_METRICS_ADDRESS", address_or_off, default.metrics_address
            ),
        )
        reader.finish()
        return settings
