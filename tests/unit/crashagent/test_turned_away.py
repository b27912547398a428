import os
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from common.holds import Hold, HoldsFile, write_holds
from common.identity import Identifier
from common.item import Crash, CrashItem
from common.naming import SPOOL
from common.packing.crew import Crew
from common.packing.sparse import PAGE
from services.crashagent import turned_away
from services.crashagent.measures import Measures
from services.crashagent.spool import Spool
from services.crashagent.turned_away import TurnedAway
from tests.unit.factories import CRASHED_AT, events_said, numbers_of, small_disk

LOOP = Hold(
    namespace="",
    workload="web",
    container="web",
    process="observer",
    until=CRASHED_AT + 10,
    reason="its limit",
)
THREADS, EACH = 16, 200


class Turning:
    """One that turns away by the holds in *home*, and what it told."""

    def __init__(self, home: Path, crash_dir: Path | None = None) -> None:
        self.run_dir = home / "run"
        self.run_dir.mkdir(exist_ok=True)
        self.told: list[CrashItem] = []
        self.now = CRASHED_AT
        self.measures = Measures()
        self._crew = Crew(1)
        self.crash_dir = crash_dir or home / "crash"
        self._spool = Spool(self.crash_dir, "web-5d9c7b6f4-x2x2x", "gzip", self._crew)
        self.turned_away = TurnedAway(
            HoldsFile(self.run_dir),
            Identifier("node-1"),
            self._spool,
            self.told.append,
            self.measures,
            clock=lambda: self.now,
        )

    def hold(self, *holds: Hold) -> None:
        write_holds(self.run_dir, holds)

    def count(self, comm: str = "observer", host: str = "", **facts: Any) -> bool:
        return self.turned_away.count(
            Crash(arrived="kernel-socket", comm=comm, hostname=host), lambda: facts
        )

    def close(self) -> None:
        self.turned_away.close()
        self._spool.close()
        self._crew.__exit__(None, None, None)

    def counts(self) -> dict[str, int]:
        """Give how many crashes were told of, by why they were turned away."""
        found: dict[str, int] = {}
        for item in self.told:
            found[item.turned_away] = found.get(item.turned_away, 0) + item.count
        return found


def test_who_is_not_held_is_not_turned_away(tmp_path: Path) -> None:
    with closing(Turning(tmp_path)) as turning:
        assert not turning.turned_away.may_be()
        turning.hold(LOOP)
        assert turning.turned_away.may_be()
        assert not turning.count("other")
        assert not turning.count("observer", "db-0")
        turning.now = LOOP.until
        assert not turning.turned_away.may_be()
        assert not turning.count()

    assert turning.told == []


def test_crashes_are_counted_together_with_what_the_first_tells(tmp_path: Path) -> None:
    with closing(Turning(tmp_path)) as turning:
        turning.hold(LOOP)
        assert all(turning.count(pid=pid, uid=1000, exe="/bin/o") for pid in (7, 8, 9))

    [item] = turning.told
    assert numbers_of(turning.measures.registry)["turned_away_total kernel-socket"] == 3
    assert (item.count, item.pid, item.uid, item.exe) == (3, 7, 1000, "/bin/o")
    assert (item.turned_away, item.held_until) == ("its limit", LOOP.until)
    assert (item.arrived, item.truncated) == ("kernel-socket", False)
    assert CrashItem.from_json(sidecar_of(item).read_bytes()) == item
    assert os.listdir(turning.crash_dir / SPOOL) == [sidecar_of(item).name]


def sidecar_of(item: CrashItem) -> Path:
    path = Path(item.path)
    return path.parent / SPOOL / f".{path.name}.item"


def test_a_pod_is_held_by_its_workload_whatever_its_name(tmp_path: Path) -> None:
    with closing(Turning(tmp_path)) as turning:
        turning.hold(LOOP)

        assert turning.count(host="web-5d9c7b6f4-zzzzz")
        assert turning.count(host="")  # the host's own
        assert not turning.count(host="web-server-5d9c7b6f4-zzzzz")


@pytest.mark.parametrize("name", ["../../x", "a\nb", "", "\\xff", "-", "x" * 300, '"', "é😀"])
def test_a_hostile_name_is_counted_and_stays_in_the_directory(tmp_path: Path, name: str) -> None:
    with closing(Turning(tmp_path)) as turning:
        turning.hold(
            Hold(
                namespace="",
                workload=name or "web",
                container=name or "web",
                process=name or "unknown",
                until=2**62,
                reason="r",
            )
        )
        assert turning.count(name, name, exe=name, cgroup=name)

    [item] = turning.told
    assert Path(item.path).parent == turning.crash_dir
    assert sorted(os.listdir(tmp_path)) == ["crash", "run"]


def test_nothing_is_counted_twice_or_forgotten_by_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turned_away, "PERIOD", 0.001)  # it is written down in between
    others = Hold(
        namespace="",
        workload="web",
        container="web",
        process="other",
        until=LOOP.until,
        reason="another limit",
    )
    with closing(Turning(tmp_path)) as turning:
        turning.hold(LOOP, others)

        def crash() -> None:
            for number in range(EACH):
                assert turning.count("observer" if number % 2 else "other")

        threads = [threading.Thread(target=crash) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    half = THREADS * EACH // 2
    assert turning.counts() == {"its limit": half, "another limit": half}
    assert len({item.path for item in turning.told}) == len(turning.told)


def test_what_cannot_be_written_down_is_counted_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turned_away, "PERIOD", 0.01)
    with (
        small_disk(tmp_path / "disk", 2**20) as disk,
        closing(Turning(tmp_path, disk)) as turning,
    ):
        turning.hold(LOOP)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(PAGE)):
                pass
        assert turning.count()
        wait_for(lambda: events_said(caplog).count("count not written down") >= 3)
        assert turning.count()
        assert turning.told == []
        ballast.unlink()
        wait_for(lambda: turning.told)

        assert turning.count()

        turning.turned_away.close()
        assert turning.counts() == {"its limit": 3}


def wait_for(holds: Callable[[], object]) -> None:
    never = threading.Event()
    for _ in range(3000):
        if holds():
            return
        never.wait(0.01)
    pytest.fail("it did not come to that")


def test_a_directory_that_is_not_ours_any_more_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turned_away, "PERIOD", 0.01)
    with closing(Turning(tmp_path)) as turning:
        turning.hold(LOOP)
        turning.crash_dir.rename(tmp_path / "away")
        turning.crash_dir.mkdir()
        (turning.crash_dir / SPOOL).mkdir(mode=0o755)
        assert turning.count()
        wait_for(lambda: "count not written down" in events_said(caplog))

        (turning.crash_dir / SPOOL).chmod(0o700)
        wait_for(lambda: turning.told)

    assert turning.counts() == {"its limit": 1}
