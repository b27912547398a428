from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.coremond.crash_files import CrashFiles
from services.coremond.file_pattern import FilePattern
from services.coremond.inbox import FIRST_DELAY, Inbox
from services.coremond.watch import Directory, Found
from tests.unit.factories import item

DIRECTORY = Directory(Path("/none"), CrashFiles(FilePattern()), is_ours=False, sources_go=True)


def found(name: str) -> Found:
    return Found(DIRECTORY, name)


OLD, NEW = found("core.z.1.h.1742738615"), found("core.a.2.h.1742738616173108860")


def taken(inbox: Inbox, now: float = 0) -> list[Found]:
    names = []
    while work := inbox.take(now):
        names.append(work[0])
    return names


def test_the_oldest_crash_comes_first_whatever_it_is_called() -> None:
    inbox = Inbox(longest_delay=10)
    for name in (NEW, OLD, found("core")):
        inbox.offer(name)

    assert taken(inbox) == [found("core"), OLD, NEW]


def test_seconds_and_nanoseconds_are_compared_as_times() -> None:
    inbox = Inbox(longest_delay=10)
    names = [
        "core.a.1.h.1742738616",
        "core.a.1.h.1742738616000000001",
        "core.a.0.0123456789abcdef0123456789abcdef.1.1742738616000001.zst",
        "core.a.1.h.1742738617",
    ]
    for name in names[::-1]:
        inbox.offer(found(name))

    assert [source.name for source in taken(inbox)] == names


def test_what_is_offered_while_it_is_handled_waits_once_also_if_it_is_offered_again() -> None:
    inbox = Inbox(longest_delay=10)
    inbox.offer(OLD)
    inbox.take(0)
    inbox.offer(OLD, item())

    inbox.offer_again(OLD, None, 0)

    assert inbox.take(0) == (OLD, item())
    assert inbox.take(100) is None
    assert inbox.next_due() is None


@given(st.lists(st.text()))
def test_each_source_waits_once(names: list[str]) -> None:
    inbox = Inbox(longest_delay=10)
    for name in names:
        inbox.offer(found(name))

    assert sorted(source.name for source in taken(inbox)) == sorted(set(names))
    assert inbox.next_due() is None


def test_what_an_item_told_is_not_lost_by_a_later_look() -> None:
    inbox, told = Inbox(longest_delay=10), item()
    inbox.offer(OLD, told)
    inbox.offer(OLD)

    assert inbox.take(0) == (OLD, told)


def test_a_source_that_cannot_be_handled_waits_longer_each_time_up_to_the_longest() -> None:
    inbox, waits, now = Inbox(longest_delay=1), [], 0.0
    for _ in range(8):
        inbox.offer_again(OLD, None, now)
        due = inbox.next_due()
        assert due is not None
        waits.append(due - now)
        now = due
        assert inbox.take(now - 0.001) is None
        assert inbox.take(now) == (OLD, None)

    assert [round(wait, 6) for wait in waits] == [FIRST_DELAY * 2**n for n in range(5)] + [1] * 3


def test_an_event_in_between_does_not_shorten_the_wait() -> None:
    inbox = Inbox(longest_delay=10)
    inbox.offer_again(OLD, None, 100.0)

    inbox.offer(OLD)

    assert inbox.take(100.0) is None


def test_the_waiting_is_forgotten_once_it_is_handled() -> None:
    inbox = Inbox(longest_delay=10)
    for _ in range(4):
        inbox.offer_again(OLD, None, 0.0)
        inbox.take(99.0)
    inbox.forget(OLD)

    inbox.offer_again(OLD, None, 0.0)

    assert inbox.next_due() == FIRST_DELAY


def test_one_that_waits_does_not_hold_up_the_others() -> None:
    inbox = Inbox(longest_delay=10)
    inbox.offer_again(OLD, None, 0.0)
    inbox.offer(NEW)

    assert taken(inbox) == [NEW]
    assert inbox.next_due() == FIRST_DELAY


def test_something_that_waits_for_nothing_is_due_at_once() -> None:
    inbox = Inbox(longest_delay=10)
    inbox.offer_again(OLD, None, 5.0)
    inbox.offer(NEW)

    assert inbox.next_due() == 0.0
