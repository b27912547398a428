"""Read the command line and the settings, and run the one command."""

import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module

from common.errors import CollectorError, ConfigError
from common.settings import environment
from services.corectl.parser import make_parser
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, safe

_INTERRUPTED = 128 + signal.SIGINT
_NOBODY_READS = 128 + signal.SIGPIPE

_Command = Callable[[CorectlSettings, Namespace], int]


class _Complaints(logging.Handler):
    """Tells what common/ logs the way an operator's command does."""

    def emit(self, record: logging.LogRecord) -> None:
        facts = getattr(record, "facts", {}).values()
        complain(": ".join((record.getMessage(), *(safe(fact) for fact in facts))))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; the result is its exit status."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.getLogger().handlers[:] = [_Complaints()]
    args = make_parser().parse_args(arguments)
    try:
        status = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python flushes at its end would meet the same closed pipe, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _run(args: Namespace) -> int:
    try:
        return _command(args.command)(_settings(args), args)
    except ConfigError as error:
        for problem in error.problems:
            complain(safe(problem))
        return os.EX_CONFIG
    except CollectorError as error:
        complain(safe(str(error)))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "" if error.filename is None else f"{safe(os.fsdecode(error.filename))}: "
        complain(f"{where}{error.strerror or error}")
    return 1


def _settings(args: Namespace) -> CorectlSettings:
    """Read the settings, or raise `ConfigError` with every mistake, of the file's lines, too."""
    env, problems = environment(args.env)
    try:
        settings = CorectlSettings.from_env(env)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _command(name: str) -> _Command:
    """Find what runs the command *name*; only its module is imported, so that each starts fast."""
    module = "list_cores" if name == "list" else name
    command: _Command = import_module(f"services.corectl.{module}").run
    return command
