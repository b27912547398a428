"""Start coremond: everything is built here, and handed to whoever uses it."""

import sys
import time
from contextlib import closing

import zmq

from common import buildinfo, daemon
from common.daemon import Stop
from common.errors import ConfigError
from common.kubelet import KubeletLogs
from common.log import Logger
from common.monitor import monitored
from common.packing.crew import Crew
from common.workqueue import EventSender, ItemReceiver, events_endpoint, items_endpoint
from services.coremond.acknowledge import Acknowledger
from services.coremond.announce import announced
from services.coremond.container_log import ContainerLogs
from services.coremond.convert import Converter
from services.coremond.directories import open_directories
from services.coremond.holds import Holds
from services.coremond.identity import CrashIdentifier
from services.coremond.loop import Loop
from services.coremond.measures import Measures
from services.coremond.pod_watch import followed_pods
from services.coremond.progress import Progress
from services.coremond.room import Room
from services.coremond.settings import CoremondSettings
from services.coremond.store import CoreStore
from services.coremond.sweep import Sweep
from services.coremond.tell import Teller
from services.coremond.wellbeing import Wellbeing
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
    kubelet = KubeletLogs(settings.kubelet_logs) if settings.kubelet_logs else None
    with (
        closing(open_directories(settings, kubelet)) as directories,
        closing(_store(settings)) as store,
        zmq.Context() as context,
        ItemReceiver(context, items_endpoint(settings.run_dir)) as items,
        EventSender(context, events_endpoint(settings.run_dir)) as events,
        Crew(settings.effort.threads, settings.effort.calm) as crew,
        followed_pods(settings) as pods,
        announced(settings) as announce,
    ):
        store.recover(directories.has)
        room = Room(store, settings.disk, max_use=settings.keep.max_use)
        measures = Measures(settings.metrics_workloads)
        teller = Teller(store, events.send, time.time_ns, measures, announce)
        worker = Worker(
            directories,
            store,
            CrashIdentifier(settings.node, kubelet=kubelet, api=pods),
            ContainerLogs(kubelet, lines=settings.log_lines, size=settings.log_size),
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
            Acknowledger(store, worker.deciding),
            scan_interval=settings.scan_interval,
            sweep_interval=settings.cores_interval,
            calm=settings.effort.calm,
        ) as loop:
            measures.watch_store(store.records, store.room)
            measures.watch_loop(
                loop.queue, lambda: wall_time(loop.scanned_at), lambda: len(worker.failing())
            )
            wellbeing = Wellbeing(
                settings.crash_dir,
                settings.store_dir,
                store.check,
                failing=worker.failing,
                scan_interval=settings.scan_interval,
            )
            with monitored(
                settings.run_dir,
                "coremond",
                measures.registry,
                lambda: wellbeing.state(loop.beat_at, loop.scanned_at),
            ):
                loop.run(stop)


def wall_time(moment: float) -> float:
    """Give the time of day (seconds since the epoch) of a monotonic *moment*."""
    return time.time() - time.monotonic() + moment


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
