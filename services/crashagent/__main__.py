"""Start crashagent: everything is built here, and handed to whoever uses it."""

import os
import resource
import socket
import sys
from contextlib import closing
from threading import Lock

import zmq

from common import daemon
from common.daemon import Stop
from common.errors import ConfigError, SourceError
from common.item import CrashItem
from common.log import Logger
from common.workqueue import ItemSender, items_endpoint
from services.crashagent import keeper
from services.crashagent.apport import ApportServer
from services.crashagent.listener import inherited_listener, open_listener
from services.crashagent.receive import Limits
from services.crashagent.settings import CrashagentSettings
from services.crashagent.spool import Spool

log = Logger()


def serve(settings: CrashagentSettings, stop: Stop) -> None:
    """Take crashes in until *stop*."""
    _allow_descriptors()
    hostname = settings.pod_name
    if not hostname:
        log.info("POD_NAME is not set; defaulting to hostname")
        hostname = socket.gethostname()
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = Limits(
        idle_timeout=settings.idle_timeout,
        timeout=settings.timeout,
        disk=settings.disk,
    )
    with (
        _listener(settings) as listener,
        closing(_spool(settings, hostname)) as spool,
        zmq.Context() as context,
        ItemSender(context, items_endpoint(settings.run_dir)) as items,
    ):
        sending = Lock()

        def tell(item: CrashItem) -> None:
            with sending:
                items.send(item)

        for item in spool.recover():
            tell(item)
        server = ApportServer(listener, spool, limits, max_intakes=settings.max_intakes, tell=tell)
        log.info("listen and serve", addr=settings.apport_socket)
        server.serve(stop)


def _allow_descriptors() -> None:
    """Take as many descriptors as may be had: each crash that waits holds one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listener(settings: CrashagentSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return inherited_listener(settings.listen_fd)
    return open_listener(settings.apport_socket)


def _spool(settings: CrashagentSettings, hostname: str) -> Spool:
    try:
        return Spool(settings.crash_dir, hostname)
    except (OSError, SourceError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"COREMON_CRASH_DIR={settings.crash_dir}: {reason}"]) from error


def main() -> int:
    """Run crashagent; the result is its exit status."""
    if "CRASHAGENT_LISTEN_FD" in os.environ:  # without it, there is nowhere to hand crashes on to
        keeper.start()
    return daemon.run(
        "crashagent",
        CrashagentSettings.from_env,
        serve,
        proc="crashagent",
        missing_levels_are_said=False,
    )


if __name__ == "__main__":
    sys.exit(main())
