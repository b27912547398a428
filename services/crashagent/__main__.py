"""Start crashagent: everything is built here, and handed to whoever uses it."""

import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Protocol

import zmq

from common import daemon
from common.daemon import Stop
from common.effort import Effort
from common.errors import ConfigError, SourceError
from common.holds import HoldsFile
from common.identity import Identifier
from common.item import CrashItem
from common.kubelet import KubeletLogs
from common.log import Logger
from common.monitor import State, monitored
from common.packing.crew import Crew
from common.workqueue import ItemSender, items_endpoint
from services.crashagent.apport import ApportServer
from services.crashagent.intakes import Intakes
from services.crashagent.keeper import KeeperWatch
from services.crashagent.keeper import start as start_keeper
from services.crashagent.kernel import KernelServer
from services.crashagent.listener import inherited_listener, open_listener
from services.crashagent.measures import Measures
from services.crashagent.receive import Limits
from services.crashagent.settings import CrashagentSettings
from services.crashagent.spool import Spool
from services.crashagent.systemd import SystemdServer
from services.crashagent.turned_away import TurnedAway
from services.crashagent.wellbeing import faults_of

log = Logger()

_RECOVERY_GRACE = 5.0
"""Seconds that the core which is being taken up has, once crashagent is asked to stop."""


def serve(settings: CrashagentSettings, stop: Stop, *, keeper: int | None = None) -> None:
    """Take crashes in until *stop*, or until the *keeper* has ended."""
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
        resident=settings.resident,
    )
    sending, measures = Lock(), Measures()

    def tell(item: CrashItem) -> None:
        with sending:
            items.send(item)

    def tell_again(item: CrashItem) -> None:
        measures.recovered(item)
        tell(item)

    kubelet = KubeletLogs(settings.kubelet_logs) if settings.kubelet_logs else None
    identifier = Identifier(settings.node, kubelet=kubelet)
    with (
        ExitStack() as stack,
        Crew(settings.effort.threads, settings.effort.calm) as crew,
        closing(_spool(settings, hostname, crew)) as spool,
        zmq.Context() as context,
        ItemSender(context, items_endpoint(settings.run_dir)) as items,
        closing(
            TurnedAway(HoldsFile(settings.run_dir), identifier, spool, tell, measures)
        ) as turned_away,
    ):
        intakes = Intakes(
            spool.finish,
            limits,
            most=settings.max_intakes,
            tell=tell,
            measures=measures,
            calm=settings.effort.calm,
        )
        apport = stack.enter_context(_apport_listener(settings))
        servers: list[Server] = [
            ApportServer(
                apport, spool, intakes, turned_away, measures, idle_timeout=settings.idle_timeout
            )
        ]
        if settings.kernel_socket:
            kernel = stack.enter_context(
                _listener("CRASHAGENT_KERNEL_FD", settings.kernel_fd, settings.kernel_socket)
            )
            servers.append(KernelServer(kernel, spool, intakes, turned_away, measures))
            log.debug("the kernel may connect", addr=settings.kernel_socket)
        if settings.systemd_socket:
            systemd = stack.enter_context(
                _listener(
                    "CRASHAGENT_SYSTEMD_FD",
                    settings.systemd_fd,
                    settings.systemd_socket,
                    socket.SOCK_SEQPACKET,
                )
            )
            servers.append(
                SystemdServer(
                    systemd,
                    spool,
                    intakes,
                    turned_away,
                    measures,
                    idle_timeout=settings.idle_timeout,
                )
            )
            log.debug("systemd-coredump may connect", addr=settings.systemd_socket)
        watch = KeeperWatch(keeper) if keeper is not None else None
        recovering = Thread(
            target=_recover,
            args=(spool.recover(stop.is_set), tell_again, settings.effort, stop),
            daemon=True,
        )
        recovering.start()
        log.info("listen and serve", addr=settings.apport_socket)
        with monitored(
            settings.run_dir,
            "crashagent",
            measures.registry,
            lambda: State(faults=tuple(faults_of(settings))),
        ):
            _serve_all([*servers, *([watch] if watch else [])], stop)
        intakes.stop()
        recovering.join(_RECOVERY_GRACE)
    if watch and watch.has_ended:
        raise SystemExit(os.EX_TEMPFAIL)


class Server(Protocol):
    """One way in, or another thing that goes on all the time."""

    def serve(self, stop: Stop) -> None:
        """Go on until *stop*."""
        ...


def _serve_all(servers: list[Server], stop: Stop) -> None:
    """Have each serve in a thread of its own; where one fails, all stop, and that is raised."""

    def serve(server: Server) -> None:
        try:
            server.serve(stop)
        finally:
            stop.set()

    with ThreadPoolExecutor(len(servers), "serve") as threads:
        list(threads.map(serve, servers))


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


def _apport_listener(settings: CrashagentSettings) -> socket.socket:
    return _listener("CRASHAGENT_LISTEN_FD", settings.listen_fd, settings.apport_socket)


def _listener(
    name: str, inherited: int | None, path: Path, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """Take over the *inherited* socket, which the setting *name* tells of, or listen at *path*."""
    return open_listener(path, kind) if inherited is None else inherited_listener(name, inherited)


def _spool(settings: CrashagentSettings, hostname: str, crew: Crew) -> Spool:
    try:
        return Spool(settings.crash_dir, hostname, settings.spool, crew)
    except (OSError, SourceError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"COREMON_CRASH_DIR={settings.crash_dir}: {reason}"]) from error


def main() -> int:
    """Run crashagent; the result is its exit status."""
    # Without that socket, there is nowhere to hand crashes on to.
    keeper = start_keeper() if "CRASHAGENT_LISTEN_FD" in os.environ else None
    return daemon.run(
        "crashagent",
        CrashagentSettings.from_env,
        partial(serve, keeper=keeper),
        proc="crashagent",
        missing_levels_are_said=False,
    )


if __name__ == "__main__":
    sys.exit(main())
