"""The shell every program runs in: settings, logging, signals, exit status."""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from common import log as log_lines
from common.errors import ConfigError
from common.levels import LevelsFile
from common.log import Logger

log = Logger()

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


class Stop:
    """A request to stop, which can be asked for, waited for, and polled as a file."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_set = False

    def set(self) -> None:
        """Ask for the stop."""
        self._is_set = True
        with suppress(BlockingIOError):  # full: it was asked for often enough
            os.write(self._writing, b"\0")

    def set_at(self, *numbers: signal.Signals) -> None:
        """Have the signals of these *numbers* ask for it; only the main thread may call this.

        The kernel may hand a signal to any thread. What Python does about it waits for the main
        thread, which may be waiting itself; so the signal is written where `fileno` is read.
        Source: signal(7), and set_wakeup_fd() of Python's signal module.
        """
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def is_set(self) -> bool:
        """Say whether the stop was asked for."""
        if not self._is_set:
            asked = select.poll()
            asked.register(self._reading, select.POLLIN)
            self._is_set = bool(asked.poll(0))
        return self._is_set

    def fileno(self) -> int:
        """Give a descriptor that is readable once the stop was asked for."""
        return self._reading


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however that comes about.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def leave_no_core() -> None:
    """Have the kernel write no core of this process, nor let others look into it.

    A collector that crashed would collect itself, and what it holds is other people's memory.
    Source: prctl(2), PR_SET_DUMPABLE.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _explain_arguments(program: str) -> None:
    """Show how the program is used, for it takes no arguments; exits."""
    import argparse  # only where there is somebody to read it

    argparse.ArgumentParser(
        prog=program,
        description="A program of the coremond bundle. It takes no arguments: its settings come "
        "from the environment, and coremond-bundle starts it together with the others.",
    ).parse_args()


class Settings(Protocol):
    """What the shell itself needs to know."""

    @property
    def levels_file(self) -> Path:
        """Where the levels file is."""
        ...


S = TypeVar("S", bound=Settings)


def run(
    program: str,
    load: Callable[[], S],
    serve: Callable[[S, Stop], None],
    *,
    proc: str = "",
    names_itself_late: bool = False,
    missing_levels_are_said: bool = True,
) -> int:
    """Load settings, then call *serve* until it returns or a signal sets its stop.

    *proc* is the program's name in its lines; with *names_itself_late* only in those after the
    levels file was read. The result is the exit status: 78 (EX_CONFIG) when the settings need a
    person, 70 (EX_SOFTWARE) for a bug, 0 when it was asked to stop.
    """
    if len(sys.argv) > 1:
        _explain_arguments(program)
    if "SUPERVISOR_ENABLED" in os.environ:  # supervisord sets it for its programs
        end_with_parent()
    leave_no_core()
    log_lines.configure(proc="" if names_itself_late else proc)
    try:
        settings = load()
    except ConfigError as error:
        for problem in error.problems:
            log.critical("bad setting", reason=problem, effect=f"{program} does not start")
        return os.EX_CONFIG

    stop = Stop()
    stop.set_at(signal.SIGTERM, signal.SIGINT)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when someone opens a file we hold a lease on

    levels = LevelsFile(settings.levels_file, program, missing_is_said=missing_levels_are_said)
    levels.start()
    if proc:
        log_lines.name_program(proc)
    try:
        serve(settings, stop)
    except ConfigError as error:
        for problem in error.problems:
            log.critical("bad setting", reason=problem, effect=f"{program} does not start")
        return os.EX_CONFIG
    except Exception as error:
        log.exception("unexpected error", reason=repr(error), effect=f"{program} starts afresh")
        return os.EX_SOFTWARE
    finally:
        levels.stop()
    log.debug("stopped")
    return os.EX_OK
