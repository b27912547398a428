"""A program whose worker processes log at the same time as it does: many_voices.py LINES."""

import multiprocessing
import sys

from common import log

WORKERS = 4


def speak(who: str, lines: int) -> None:
    """Say so many lines, some of them long."""
    logger = log.Logger().bind(who=who)
    for number in range(lines):
        logger.info("a line", number=number, filler="x" * (number % 3000))


if __name__ == "__main__":
    log.configure(proc="parent")
    count = int(sys.argv[1])
    with log.carried_children():
        workers = [
            multiprocessing.Process(target=speak, args=(f"worker-{n}", count))
            for n in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        speak("parent", count)
        for worker in workers:
            worker.join()
    log.Logger().info("the last line", who="parent", number=count)
