"""What `corectl host prepare` found and wrote, so that it can be put back.

It stands in COREMON_RUN_DIR: a reboot loses that, and the kernel's settings with it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from common.errors import MessageError
from common.files import opened_directory, read_limited, remove, write_durably
from common.item import to_json

NAME = "host.json"
VERSION = 1
_LIMIT = 64 * 1024
_DIR_MODE = 0o700


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The kernel's settings by their names: what they were, and all that we wrote since."""

    version: int = VERSION
    saved: dict[str, str]
    written: dict[str, list[str]] = field(default_factory=dict)
    made_directory: str = ""
    """The crash directory, where it was not there before."""

    def is_ours(self, name: str, value: str) -> bool:
        """Say whether *value* is one that we gave the setting *name*."""
        return value in self.written.get(name, ())


def plan(
    earlier: Prepared | None, now: Mapping[str, str], wanted: Mapping[str, str]
) -> tuple[Prepared, dict[str, str]]:
    """Give what is to be kept in mind, and what is to be written, where *wanted* is to be.

    *now* is what the settings are. What the *earlier* prepare found stays what is put back, unless
    somebody else has changed core_pattern since. What it wrote and is not wanted any more is put
    back.
    """
    base = _base(earlier, now)
    to_write = {
        name: base.saved[name]
        for name, value in now.items()
        if name not in wanted and base.is_ours(name, value)
    } | dict(wanted)
    written = {name: [*values] for name, values in base.written.items()}
    for name, value in wanted.items():
        if not base.is_ours(name, value):
            written.setdefault(name, []).append(value)
    return replace(base, written=written), to_write


def _base(earlier: Prepared | None, now: Mapping[str, str]) -> Prepared:
    if earlier is None:
        return Prepared(saved=dict(now))
    pattern = now["core_pattern"]
    if earlier.is_ours("core_pattern", pattern) or pattern == earlier.saved["core_pattern"]:
        return earlier
    saved = {
        name: earlier.saved[name] if earlier.is_ours(name, value) else value
        for name, value in now.items()
    }
    return replace(earlier, saved=saved, written={})


def load(directory: Path) -> Prepared | None:
    """Read what an earlier prepare left in *directory*; None if there is nothing."""
    try:
        with opened_directory(directory) as opened:
            data = read_limited(opened, NAME, _LIMIT, owner=os.geteuid())
        state = msgspec.json.decode(data, type=Prepared)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(
            f"{directory / NAME} is not what prepare wrote ({error}); remove it, and set "
            "/proc/sys/kernel/core_pattern by hand"
        ) from error
    if state.version != VERSION:
        raise MessageError(f"{directory / NAME} has version {state.version}, not {VERSION}")
    return state


def save(directory: Path, state: Prepared) -> None:
    """Write *state* durably, before anything of it is done."""
    directory.mkdir(_DIR_MODE, parents=True, exist_ok=True)
    with opened_directory(directory) as opened:
        write_durably(opened, NAME, to_json(state))
        os.fsync(opened)


def forget(directory: Path) -> None:
    """Remove what `save` wrote."""
    with opened_directory(directory) as opened:
        remove(opened, NAME)
