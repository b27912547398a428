"""How long a running bundle takes from cores in its crash directory to their records."""

import os
import shutil
import time

from tests.benchmarks.inputs import Input
from tests.bundle import Bundle, Home, wait_until

PATIENCE = 120.0


def store_all(source: Input) -> float:
    """Move the cores in at once, as if all had crashed; give the seconds until all are stored."""
    with Home() as home:
        waiting = home / "waiting"
        shutil.copytree(source.path, waiting)
        with Bundle(home, {"COREMON_CORES_MAX_FILES": "0"}) as bundle:
            names = os.listdir(waiting)
            started = time.perf_counter()
            for name in names:
                os.rename(waiting / name, bundle.crash_dir / name)

            def are_recorded() -> bool:
                """Count names only, for this takes time of those who work."""
                found = sum(name.endswith(".json") for name in os.listdir(bundle.store_dir))
                return found >= source.cores

            wait_until(are_recorded, f"{source.cores} records", PATIENCE)
            bundle.wait_for_stored(source.cores)
            took = time.perf_counter() - started
            sums = [name for name in os.listdir(bundle.store_dir) if name.endswith(".crc")]
            assert len(sums) == source.cores, "some have no checksum"
            return took
