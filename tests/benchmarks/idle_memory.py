"""How much memory the idle bundle takes: python -m tests.benchmarks.idle_memory.

PSS is a process's own memory plus its share of what it has in common with others; the sum over the
five processes is what the bundle costs a node. Measured after one core was stored.
"""

import platform
import sys
import time

import psutil

from tests import crashes
from tests.bundle import Bundle, Home, wait_until

GOAL_MIB = 100.0
SETTLING = 3.0


def main() -> int:
    """Print the table."""
    with Home() as home, Bundle(home) as bundle:
        with crashes.Sender(bundle.apport_socket) as sender:
            sender.send_message(b"9 11 0 1")
            sender.write(bytes(2**20))
        bundle.wait_for_stored()
        wait_until(lambda: bundle.corectl("status").returncode == 0, "the programs to be RUNNING")
        time.sleep(SETTLING)
        programs = {process["name"]: process["pid"] for process in bundle.processes()}
        parent = psutil.Process(next(iter(programs.values()))).ppid()
        [keeper] = psutil.Process(programs["crashagent"]).children()
        rows = {"supervisord": parent, **programs, "crashagent keeper": keeper.pid}
        everybody = {process.pid for process in psutil.Process(parent).children(recursive=True)}
        assert everybody | {parent} == set(rows.values())
        print(f"Python {platform.python_version()}, Linux {platform.release()}, idle\n")
        print(f"{'program':<18}{'PSS MiB':>10}{'USS MiB':>10}{'RSS MiB':>10}")
        total = 0.0
        for name, pid in rows.items():
            memory = psutil.Process(pid).memory_full_info()
            total += memory.pss
            figures = "".join(
                f"{part / 2**20:>10.1f}" for part in (memory.pss, memory.uss, memory.rss)
            )
            print(f"{name:<18}{figures}")
        print(f"{'together':<18}{total / 2**20:>10.1f}   (goal: {GOAL_MIB:g} or less)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
