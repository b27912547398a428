"""The secret that tells the owner of the run directory from other users of the host.

Where there are no certificates, qkview-collect listens on 127.0.0.1, which every local user and
every pod on the host's network can reach. Who can read the run directory (mode 0700) may have the
cores.
"""

import os
import secrets
from pathlib import Path

from common.errors import SourceError
from common.files import opened_directory, read_limited, write_durably

HEADER = "authorization"
_FILE = "qkview.token"
_LIMIT = 256


def make_passphrase(run_dir: Path) -> str:
    """Make a new secret, and leave it in *run_dir* for whoever may read there."""
    passphrase = secrets.token_hex(32)
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opened_directory(run_dir) as directory:
        write_durably(directory, _FILE, passphrase.encode())
    return passphrase


def read_passphrase(run_dir: Path) -> str:
    """Read the secret in *run_dir*; empty where there is none, or not for us."""
    try:
        with opened_directory(run_dir) as directory:
            return read_limited(directory, _FILE, _LIMIT, owner=os.geteuid()).decode("ascii")
    except (OSError, SourceError, UnicodeDecodeError):
        return ""


def header_of(passphrase: str) -> tuple[str, str]:
    """Give the metadata that shows the secret, as a key and a value (RFC 6750)."""
    return (HEADER, f"Bearer {passphrase}")
