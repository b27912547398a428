"""Real certificates, made by the openssl command."""

import subprocess
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Authority:
    """Owns a certificate authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        self._openssl("-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")

    def issue(self, directory: Path, name: str, organisation: str = "") -> Path:
        """Put into *directory* what a Kubernetes TLS secret would hold for *name*."""
        directory.mkdir(parents=True, exist_ok=True)
        subject = f"/O={organisation}/CN={name}" if organisation else f"/CN={name}"
        self._openssl(
            *("-subj", subject, "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{name}"),
            *("-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt")),
        )
        (directory / "ca.crt").write_bytes((self._directory / "ca.crt").read_bytes())
        return directory

    def _openssl(self, *words: str) -> None:
        command = ["openssl", "req", "-x509", *_NEW_KEY, *words]
        subprocess.run(command, cwd=self._directory, check=True, capture_output=True)
