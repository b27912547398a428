import errno
import os
from pathlib import Path

import pytest

from common.disk import DiskLimits
from common.item import CrashItem
from common.packing.crew import Crew
from services.crashagent import intakes as module
from services.crashagent.intakes import Begun, Intakes
from services.crashagent.measures import Measures
from services.crashagent.process import Held
from services.crashagent.receive import Limits
from services.crashagent.spool import Intake, Spool
from tests.unit.factories import CRASHED_AT


class Arrived:
    """A core that is all there, of a process that is gone."""

    def __init__(self, content: bytes) -> None:
        self.core, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)

    def hold(self) -> Held | None:
        return None

    def begin(self) -> None:
        pass

    def close(self) -> None:
        os.close(self.core)


def test_a_core_for_whose_name_no_descriptor_is_left_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.001)
    told: list[CrashItem] = []
    attempts: list[int] = []
    limits = Limits(idle_timeout=5, timeout=5, disk=DiskLimits())
    with Crew(1) as crew:
        spool = Spool(tmp_path / "crash", "web-0", "gzip", crew)

        def finish(intake: Intake) -> CrashItem:
            attempts.append(1)
            if len(attempts) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return spool.finish(intake)

        taking = Intakes(finish, limits, most=1, tell=told.append, measures=Measures())
        intake = spool.begin(CrashItem(path="/", crashed_at=CRASHED_AT, truncated=True))
        taking.submit(Begun(intake, Arrived(b"a core")))
        taking.stop()
        spool.close()

    assert len(attempts) == 3
    [item] = told
    assert not item.truncated
    assert Path(item.path).exists()
