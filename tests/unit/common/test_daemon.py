import select
import signal
import subprocess
import sys

import pytest

from common.daemon import Stop
from tests.bundle import ROOT

WAITING = """
import select, signal, threading
from common.daemon import Stop

stop = Stop()
stop.set_at(signal.SIGTERM)
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("waiting", stop.is_set(), flush=True)
select.select([stop], [], [])
print("stopped", stop.is_set(), flush=True)
"""


@pytest.mark.timeout(30)
def test_a_signal_that_another_thread_gets_stops_the_main_thread_too() -> None:
    words = [sys.executable, "-c", WAITING]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "waiting False\n"

        program.send_signal(signal.SIGTERM)

        try:
            assert program.stdout.readline() == "stopped True\n"
        finally:
            program.kill()


def test_a_stop_that_is_asked_for_is_seen_by_all_who_wait_and_stays() -> None:
    stop = Stop()
    assert not stop.is_set()
    assert select.select([stop], [], [], 0) == ([], [], [])

    for _ in range(2**17):  # more often than a pipe has room for
        stop.set()

    assert stop.is_set()
    assert select.select([stop], [], [], 0) == ([stop], [], [])
