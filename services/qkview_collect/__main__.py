"""Start qkview-collect: everything is built here, and handed to whoever uses it."""

import os
import select
import sys
from contextlib import ExitStack

# gRPC's own C++ log has a format of its own; what it would say is said in ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from common import daemon
from common.certificates import FILES
from common.daemon import Stop
from common.log import Logger
from common.passphrase import make_passphrase
from services.qkview_collect.credentials import load_credentials
from services.qkview_collect.measures import Measures
from services.qkview_collect.metrics_port import MetricsPort
from services.qkview_collect.overview import Overview
from services.qkview_collect.pages import Pages
from services.qkview_collect.server import on_loopback, running_server
from services.qkview_collect.service import QkviewService
from services.qkview_collect.settings import QkviewSettings

log = Logger()


def serve(settings: QkviewSettings, stop: Stop) -> None:
    """Hand cores out until *stop*."""
    address, credentials = settings.address, load_credentials(settings.tls_dir)
    passphrase = ""
    if credentials is None:
        address, passphrase = on_loopback(address), make_passphrase(settings.run_dir)
        log.warning(
            "no certificates",
            reason=f"none of {', '.join(FILES)} is in {settings.tls_dir}",
            effect=f"cores are handed out without TLS, on this host only, at {address}, to who may "
            f"read {settings.run_dir}",
        )
    measures = Measures()
    service = QkviewService(settings.store_dir, stop, measures)
    with ExitStack() as stack:
        bound = stack.enter_context(running_server(service, address, credentials, passphrase))
        log.info("grpc server is starting up", address=bound)
        if settings.metrics_address:
            pages = Pages(Overview(settings.run_dir, measures.registry).look)
            stack.enter_context(MetricsPort(settings.metrics_address, pages.answer))
        select.select([stop], [], [])


def main() -> int:
    """Run qkview-collect; the result is its exit status."""
    return daemon.run(
        "qkview-collect", QkviewSettings.from_env, serve, proc="qkd", names_itself_late=True
    )


if __name__ == "__main__":
    sys.exit(main())
