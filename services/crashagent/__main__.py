"""Start crashagent: everything is built here, and handed to whoever uses it."""

import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Lock, Thread

import zmq

from common import daemon
from common.daemon import Stop
from common.effort import Effort
from common.errors import ConfigError, SourceError
from common.item import CrashItem
from common.log import Logger
from common.packing.crew import Crew
from common.workqueue import ItemSender, items_endpoint
from services.crashagent import keeper
from services.crashagent.apport import STOP_GRACE, ApportServer
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
        Crew(settings.effort.threads, settings.effort.calm) as crew,
        closing(_spool(settings, hostname, crew)) as spool,
        zmq.Context() as context,
        ItemSender(context, items_endpoint(settings.run_dir)) as items,
    ):
        sending = Lock()

        def tell(item: CrashItem) -> None:
            with sending:
                items.send(item)

        recovering = Thread(
            target=_recover, args=(spool.recover(), tell, settings.effort, stop), daemon=True
        )
        recovering.start()
        server = ApportServer(
            listener,
            spool,
            limits,
            max_intakes=settings.max_intakes,
            tell=tell,
            calm=settings.effort.calm,
        )
        log.info("listen and serve", addr=settings.apport_socket)
        server.serve(stop)
        recovering.join(STOP_GRACE)


def _recover(
    left: Iterator[CrashItem], tell: Callable[[CrashItem], None], effort: Effort, stop: Stop
) -> None:
    """Finish what an earlier crashagent left; what is not done at the end is so at the next."""
    effort.calm()
    for item in left:
        tell(item)
        if stop.is_set():
            return


def _allow_descriptors() -> None:
    """Take as many descriptors as may be had: each crash that waits holds one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listener(settings: CrashagentSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return inherited_listener(settings.listen_fd)
    return open_listener(settings.apport_socket)


def _spool(settings: CrashagentSettings, hostname: str, crew: Crew) -> Spool:
    try:
        return Spool(settings.crash_dir, hostname, settings.spool, crew)
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
