from collections.abc import Collection, Mapping
from pathlib import Path

from common.metrics import Registry
from common.monitor import Report, State
from services.qkview_collect.exposition import render
from services.qkview_collect.overview import DEAD_AFTER, FRESH, OTHERS, Overview


class Programs:
    """Programs that answer as they are told to, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.states = {program: State() for program in OTHERS}
        self.asked = 0
        self.overview = Overview(
            Path("/run"), Registry(), ask_all=self._answer, clock=lambda: self.now
        )

    def _answer(self, _run_dir: Path, programs: Collection[str]) -> Mapping[str, Report]:
        self.asked += 1
        return {
            program: Report(state=state, cpu_seconds=1, resident_bytes=1, families=())
            for program, state in self.states.items()
            if program in programs
        }

    def after(self, seconds: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Look again; give the faults, and what is dead."""
        self.now += seconds
        view = self.overview.look()
        return view.faults, view.dead


def test_all_is_well_where_all_answer_and_miss_nothing() -> None:
    assert Programs().after(0) == ((), ())


def test_a_program_that_does_not_answer_is_named_and_is_not_dead_yet() -> None:
    programs = Programs()
    del programs.states["coremond"]

    assert programs.after(0) == (("coremond: it does not answer",), ())
    assert programs.after(DEAD_AFTER - 1)[1] == ()


def test_a_program_that_has_not_answered_for_long_is_dead_until_it_does() -> None:
    programs = Programs()
    state = programs.states.pop("crashagent")
    programs.after(0)

    assert programs.after(DEAD_AFTER)[1] == ("crashagent: it has not answered for 180 s",)
    programs.states["crashagent"] = state
    assert programs.after(FRESH) == ((), ())
    del programs.states["crashagent"]
    assert programs.after(FRESH)[1] == ()


def test_what_a_program_misses_is_told_and_is_no_reason_to_restart() -> None:
    programs = Programs()
    programs.states["coremond"] = State(faults=("the disk is full",))

    assert programs.after(0) == (("coremond: the disk is full",), ())


def test_a_program_whose_work_stands_still_is_dead() -> None:
    programs = Programs()
    programs.states["coremond"] = State(is_hung=True)

    assert programs.after(0)[1] == ("coremond: its work stands still",)


def test_many_looks_at_once_cost_one() -> None:
    programs = Programs()
    for _ in range(100):
        programs.after(FRESH / 1000)

    assert programs.asked == 1
    programs.after(FRESH)
    assert programs.asked == 2


def test_the_metrics_say_who_answers_and_whether_all_is_ready() -> None:
    programs = Programs()
    del programs.states["coremond"]

    lines = render(programs.overview.look().families).splitlines()

    assert 'coremond_program_up{program="coremond"} 0' in lines
    assert 'coremond_program_up{program="crashagent"} 1' in lines
    assert 'coremond_program_up{program="qkview-collect"} 1' in lines
    assert "coremond_ready 0" in lines
