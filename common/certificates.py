"""The certificates of mutual TLS, in a directory as Kubernetes mounts a TLS secret."""

import errno
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError

CHAIN_FILE, KEY_FILE, AUTHORITY_FILE = "tls.crt", "tls.key", "ca.crt"
FILES = (CHAIN_FILE, KEY_FILE, AUTHORITY_FILE)

_FILE_LIMIT = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificates:
    """Who we are, and whose word we take for who the others are. All is PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    authority: bytes


def read_certificates(directory: Path) -> Certificates | None:
    """Read and check the three files of *directory*; None if none of them is there.

    Raises `ConfigError` with every mistake where they are no whole, matching set.
    """
    found: dict[str, bytes] = {}
    missing, problems = [], []
    for name in FILES:
        try:
            found[name] = _read(directory / name)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                missing.append(f"{directory / name}: missing, though others of {FILES} are there")
            else:
                problems.append(f"{directory / name}: cannot be read: {error.strerror}")
    if len(missing) == len(FILES):
        return None
    problems = missing + problems or _mistakes(directory, found[AUTHORITY_FILE])
    if problems:
        raise ConfigError(problems)
    return Certificates(
        chain=found[CHAIN_FILE], key=found[KEY_FILE], authority=found[AUTHORITY_FILE]
    )


def _read(path: Path) -> bytes:
    # Without O_NONBLOCK, a FIFO in a file's place would hold the start up for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(_FILE_LIMIT)


def _mistakes(directory: Path, authority: bytes) -> list[str]:
    """Have OpenSSL read the files, for gRPC takes anything and refuses every client later."""
    problems = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Given a password, though a wrong one, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(directory / CHAIN_FILE, directory / KEY_FILE, password=bytes)
    except (OSError, ValueError) as error:
        problems.append(f"{directory}: {CHAIN_FILE} and {KEY_FILE} are no pair: {_words(error)}")
    try:
        context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
    except (OSError, ValueError) as error:
        problems.append(f"{directory / AUTHORITY_FILE}: no certificate: {_words(error)}")
    return problems


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason).replace("_", " ").lower()
