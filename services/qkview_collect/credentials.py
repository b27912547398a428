"""The server's half of mutual TLS, with certificates that are taken up as they are renewed."""

import os
from pathlib import Path

import grpc

from common.certificates import FILES, Certificates, read_certificates
from common.errors import ConfigError
from common.log import Logger

log = Logger()

_Signature = list[tuple[int, int, int]]


def load_credentials(directory: Path) -> grpc.ServerCredentials | None:
    """Load what *directory* holds; None if it holds nothing, and `ConfigError` if it is broken."""
    signature = _signature(directory)
    certificates = read_certificates(directory)
    if certificates is None:
        return None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates),
        Renewal(directory, signature).fetch,  # type: ignore[arg-type]  # None is "no change"
        require_client_authentication=True,
    )


class Renewal:
    """Looks whether the files have changed, whenever a client connects."""

    def __init__(self, directory: Path, seen: _Signature) -> None:
        self._directory = directory
        self._seen = seen

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Give the new certificates if there are good ones, else None: the last good ones stay."""
        signature = _signature(self._directory)
        if signature == self._seen:
            return None
        self._seen = signature
        try:
            certificates = read_certificates(self._directory)
        except ConfigError as error:
            self._say("; ".join(error.problems))
            return None
        if certificates is None:
            self._say(f"none of {', '.join(FILES)} is there")
            return None
        log.info("certificates renewed", dir=self._directory)
        return _configuration(certificates)

    def _say(self, reason: str) -> None:
        log.error(
            "certificates unreadable",
            dir=self._directory,
            reason=reason,
            effect="the last good ones stay in use",
        )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.authority
    )


def _signature(directory: Path) -> _Signature:
    found = []
    for name in FILES:
        try:
            status = os.stat(directory / name)
        except OSError:
            continue
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found
