"""``corectl watch``: what coremond does, as it does it."""

import os
import signal
from argparse import Namespace
from pathlib import Path

import zmq

from common.item import CoreEvent
from common.workqueue import EventListener, events_endpoint
from services.corectl.knock import knock_unix
from services.corectl.moments import show_moment
from services.corectl.settings import CorectlSettings
from services.corectl.show import json_of, safe, say, show_number

_WAIT = 60.0
_PERIOD = 0.5
"""Seconds until it is looked again whether coremond is there."""
_KNOCK_TIMEOUT = 2.0


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Print events until Ctrl-C."""
    endpoint = events_endpoint(settings.run_dir)
    tell = _ignore if args.quiet else say
    # A socket of ZeroMQ's that is interrupted while it is made is waited for without an end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with zmq.Context() as context, EventListener(context, endpoint) as events:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            tell(f"Watching {endpoint} (Ctrl-C ends it).")
            is_there = _answers(endpoint)
            if not is_there:
                tell("Nobody answers there yet: is coremond running? Waiting until it does.")
            while True:
                event = events.next(_WAIT if is_there else _PERIOD)
                if not is_there and (event is not None or _answers(endpoint)):
                    is_there = True
                    tell("coremond answers.")
                if event is not None:
                    print(json_of(event) if args.json else line_of(event), flush=True)
        except KeyboardInterrupt:
            return os.EX_OK


def _ignore(_: str) -> None:
    pass


def _answers(endpoint: str) -> bool:
    try:
        knock_unix(Path(endpoint.removeprefix("ipc://")), _KNOCK_TIMEOUT)
    except OSError:
        return False
    return True


def line_of(event: CoreEvent) -> str:
    """Write *event* on one line."""
    where = "/".join(filter(None, (event.pod, event.container, event.process)))
    words = [
        show_moment(event.at),
        f"{event.kind:<7}",
        event.id or "-" * 12,
        f"{where}[{show_number(event.pid)}]",
        event.core,
    ]
    if event.reason:
        words.append(f"({event.reason})")
    return safe(" ".join(words))
