"""The levels file: how much each program says, read again whenever it changes."""

import logging
import os
from pathlib import Path
from threading import Event, Thread

from common.log import Logger

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
FILE_LIMIT = 64 * 1024
"""Bytes of a levels file that are read."""

_PERIOD = 1.0
_FIRST_LOOK = 0.2

_Signature = tuple[int, int, int, int] | None

log = Logger()


def parse(text: str, program: str) -> int:
    """Give *program*'s level (a `logging` number) out of a levels file's *text*.

    The file is a YAML mapping of program names, and ``default``, to level names. Raises
    `ValueError` that says what is wrong with it.
    """
    import yaml  # only where there is a file to read: it costs 2 MB

    try:
        levels = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if levels is None:
        levels = {}
    if not isinstance(levels, dict):
        raise ValueError("expected a mapping such as 'default: info'")
    for name, level in levels.items():
        if not isinstance(level, str) or level not in LEVELS:
            raise ValueError(f"{name}: expected one of {', '.join(LEVELS)}, not {level!r}")
    return LEVELS[str(levels.get(program, levels.get("default", "info")))]


class LevelsFile:
    """Owns the thread that keeps this program's level as the file says.

    The file is looked at once a second by its path, so a rename over it or a ConfigMap's symlink
    swap is seen as well as a write, and on any file system. A missing or broken file is one line
    for each change; the last good level stays.
    """

    def __init__(self, path: Path, program: str, *, missing_is_said: bool = True) -> None:
        self._path = path
        self._program = program
        self._missing_is_said = missing_is_said
        self._seen: _Signature = None
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="levels", daemon=True)

    def start(self) -> None:
        """Read the file, then watch it until `stop`."""
        self._seen = self._signature()
        self._load()
        self._thread.start()

    def stop(self) -> None:
        """End the watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._stop.wait(_FIRST_LOOK):
            return
        if self._signature() is None and self._missing_is_said:
            log.error("no such file or directory", path=self._path)
        while not self._stop.wait(_PERIOD):
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                self._load()

    def _signature(self) -> _Signature:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _load(self) -> None:
        try:
            with self._path.open("rb") as file:
                text = file.read(FILE_LIMIT).decode()
            level = parse(text, self._program)
        except FileNotFoundError as error:
            if self._missing_is_said:
                self._say(f"open {self._path}: {_lower_first(error)}")
        except OSError as error:
            self._say(f"open {self._path}: {_lower_first(error)}")
        except ValueError as error:
            self._say(str(error))
        else:
            logging.getLogger().setLevel(level)

    def _say(self, reason: str) -> None:
        text = f"failed to read levels file {self._path}: {reason}"
        log.error(text)


def _lower_first(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
