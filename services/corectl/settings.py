"""What corectl can be told from outside: where the programs have their things."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from common.corepattern import FILE_TEMPLATE
from common.places import Places, read_places
from common.settings import EnvReader, address_or_off, boolean, path, socket_path
from common.settings import address as address_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CorectlSettings(Places):
    """The settings, as they stand in the environment; the programs read the same variables."""

    apport_socket: Path = Path("/run/apport.socket")
    """CRASHAGENT_APPORT_SOCKET: where crashagent listens."""

    kernel_socket: Path | None = Path("/run/coremond/kernel.sock")
    """CRASHAGENT_KERNEL_SOCKET: where crashagent takes cores from the kernel itself; in
    COREMON_RUN_DIR if unset; `off` for none."""

    source_pattern: str = FILE_TEMPLATE
    """COREMON_SOURCE_PATTERN: what the kernel calls cores in the crash directory."""

    systemd_dir: Path | None = None
    """COREMON_SYSTEMD_DIR: where systemd-coredump stores cores, if they are taken; or `off`."""

    apport_reports: Path | None = None
    """COREMON_APPORT_REPORTS: where Apport writes its reports, if they are taken; or `off`."""

    systemd_socket: Path | None = None
    """CRASHAGENT_SYSTEMD_SOCKET: where crashagent takes cores from systemd-coredump; or `off`."""

    override_core_pattern: bool = False
    """COREMOND_OVERRIDE_CORE_PATTERN: whether the init container may set core_pattern."""

    qkview_address: str = "0.0.0.0:19891"
    """QKVIEW_ADDRESS: where qkview-collect listens."""

    qkview_tls_dir: Path = Path("/etc/coremond/tls")
    """QKVIEW_TLS_DIR: tls.crt, tls.key and ca.crt to show to qkview-collect."""

    metrics_address: str | None = "127.0.0.1:19892"
    """COREMON_METRICS_ADDRESS: where qkview-collect serves metrics and readiness; or `off`."""

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisord answers."""
        return self.run_dir / "supervisor.sock"

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
                "CRASHAGENT_KERNEL_SOCKET", _or_off(socket_path), places["run_dir"] / "kernel.sock"
            ),
            source_pattern=reader.read("COREMON_SOURCE_PATTERN", str, default.source_pattern),
            systemd_dir=reader.read("COREMON_SYSTEMD_DIR", _or_off(path), default.systemd_dir),
            systemd_socket=reader.read(
                "CRASHAGENT_SYSTEMD_SOCKET", _or_off(socket_path), default.systemd_socket
            ),
            apport_reports=reader.read(
                "COREMON_APPORT_REPORTS", _or_off(path), default.apport_reports
            ),
            override_core_pattern=reader.read(
                "COREMOND_OVERRIDE_CORE_PATTERN", boolean, default.override_core_pattern
            ),
            qkview_address=reader.read("QKVIEW_ADDRESS", address_of, default.qkview_address),
            qkview_tls_dir=reader.read("QKVIEW_TLS_DIR", path, default.qkview_tls_dir),
            metrics_address=reader.read(
                "COREMON_METRICS_ADDRESS", address_or_off, default.metrics_address
            ),
        )
        reader.finish()
        return settings


def _or_off(parse: Callable[[str], Path]) -> Callable[[str], Path | None]:
    return lambda text: None if text == "off" else parse(text)
