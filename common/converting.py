"""Which cores are being converted, and how far: told in a file while it lasts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from common.errors import CollectorError, MessageError
from common.files import opened_directory, read_limited
from common.item import to_json

FILE = "converting.json"
"""Its name, in the run directory."""
STALE_AFTER = 10.0
"""Seconds after which what the file tells is no longer so: coremond writes it each second."""
_LIMIT = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Converting:
    """One core on its way into the store."""

    source: str
    core: str
    """The file name it will have."""
    done: int
    """Bytes so far."""
    size: int
    """Bytes there are; 0 where nobody knows."""
    percent: int | None = None
    """How much of it is done; None where nobody knows."""
    since: float
    """When it began, seconds since the epoch."""
    at: float
    """When this was so."""


def write_converting(run_dir: Path, conversions: Sequence[Converting]) -> None:
    """Tell of *conversions*, in place of what was told before."""
    path = run_dir / FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(to_json(conversions))
    os.replace(temporary, path)


def read_converting(run_dir: Path, now: float) -> Sequence[Converting]:
    """Read what is told, and is so at *now* (seconds since the epoch); nothing where nobody tells.

    Raises `MessageError` where the file is not what it should be.
    """
    try:
        with opened_directory(run_dir) as directory:
            text = read_limited(directory, FILE, _LIMIT)
        told = msgspec.json.decode(text, type=list[Converting])
    except FileNotFoundError:
        return []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, CollectorError) as error:
        raise MessageError(f"{FILE} cannot be read: {error}") from error
    return [one for one in told if now - one.at < STALE_AFTER]
