"""Lines of worker processes go through their parent's one handler, and are never torn."""

import subprocess
import sys
from collections import Counter

from tests import crashes, loglines
from tests.bundle import ROOT

LINES = 300


def test_the_lines_of_workers_arrive_whole_and_in_their_order() -> None:
    spoken = subprocess.run(
        [sys.executable, crashes.PROGRAMS / "many_voices.py", str(LINES)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    events = [loglines.parse(line) for line in spoken.stdout.splitlines()]
    assert Counter(event["who"] for event in events) == {
        "parent": LINES + 1,
        **{f"worker-{n}": LINES for n in range(4)},
    }
    for who in ("parent", "worker-0", "worker-3"):
        numbers = [int(event["number"]) for event in events if event["who"] == who]
        assert numbers[:LINES] == list(range(LINES))
    assert events[-1]["m"] == "the last line"
