"""Start coremond: everything is built here, and handed to whoever uses it."""

import sys
import time
from contextlib import closing

import zmq

from common import buildinfo, daemon
from common.daemon import Stop
from common.errors import ConfigError
from common.log import Logger
from common.packing.crew import Crew
from common.workqueue import EventSender, ItemReceiver, events_endpoint, items_endpoint
from services.coremond.convert import Converter
from services.coremond.directories import open_directories
from services.coremond.holds import Holds
from services.coremond.identity import Identifier
from services.coremond.loop import Loop
from services.coremond.progress import Progress
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings
from services.coremond.store import CoreStore
from services.coremond.sweep import Sweep
from services.coremond.tell import Teller
from services.coremond.worker import Worker

log = Logger()


def serve(settings: CoremondSettings, stop: Stop) -> None:
    """Convert and retain until *stop*."""
    log.info(
        "coremond started",
        version=buildinfo.VERSION,
        commitHash=buildinfo.COMMIT_HASH,
        buildDate=buildinfo.BUILD_DATE,
    )
    log.info("coremon dest", dest=settings.store_dir)
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        closing(open_directories(settings)) as directories,
        closing(_store(settings)) as store,
        zmq.Context() as context,
        ItemReceiver(context, items_endpoint(settings.run_dir)) as items,
        EventSender(context, events_endpoint(settings.run_dir)) as events,
        Crew(settings.effort.threads, settings.effort.calm) as crew,
    ):
        store.recover(directories.has)
        room = Room(store, settings.disk, max_use=settings.keep.max_use)
        teller = Teller(store, events.send, time.time_ns)
        worker = Worker(
            directories,
            store,
            Identifier(settings.node),
            settings,
            Converter(store, settings, crew, Progress(settings.run_dir), is_stopped=stop.is_set),
            room=room,
            teller=teller,
            holds=Holds(settings.run_dir, teller.tell_hold),
        )
        worker.recall_holds()
        with Loop(
            directories,
            items,
            worker,
            Sweep(directories, store, worker, room, settings.keep),
            scan_interval=settings.scan_interval,
            sweep_interval=settings.cores_interval,
            calm=settings.effort.calm,
        ) as loop:
            loop.run(stop)


def _store(settings: CoremondSettings) -> CoreStore:
    try:
        return CoreStore(settings.store_dir)
    except OSError as error:
        raise ConfigError(
            [f"COREMON_CORES_DIR={settings.cores_dir}: {error.strerror or error}"]
        ) from error


def main() -> int:
    """Run coremond; the result is its exit status."""
    return daemon.run("coremond", CoremondSettings.from_env, serve)


if __name__ == "__main__":
    sys.exit(main())
