"""``corectl watch``: what coremond does, as it does it."""

import os
from argparse import Namespace

import zmq

from common.item import CoreEvent
from common.workqueue import EventListener, events_endpoint
from services.corectl.moments import show_moment
from services.corectl.settings import CorectlSettings
from services.corectl.show import json_of, safe, say, show_number

_WAIT = 60.0


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Print events until Ctrl-C."""
    endpoint = events_endpoint(settings.run_dir)
    with zmq.Context() as context, EventListener(context, endpoint) as events:
        if not args.quiet:
            say(f"Watching {endpoint} (Ctrl-C ends it).")
        try:
            while True:
                event = events.next(_WAIT)
                if event is not None:
                    print(json_of(event) if args.json else line_of(event), flush=True)
        except KeyboardInterrupt:
            return os.EX_OK


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
