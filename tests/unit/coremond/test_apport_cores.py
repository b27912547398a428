import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.item import Crash
from services.coremond.apport_cores import ApportCores, read_name
from tests.unit.factories import without_deadline

BOOT = "01234567-89ab-cdef-0123-456789abcdef"
NAME = f"core._usr_bin_observer.1000.{BOOT}.4711.123456"


@without_deadline
@given(
    exe=st.text("ab/._-é\n", min_size=1).map(lambda text: "/" + text),
    uid=st.integers(0, 2**32 - 1),
    pid=st.integers(0, 2**32 - 1),
    ticks=st.integers(0, 2**63),
)
def test_a_name_tells_whose_crash_it_was(exe: str, uid: int, pid: int, ticks: int) -> None:
    flat = exe.replace("/", "_").replace(".", "_")

    crash = read_name(f"core.{flat}.{uid}.{BOOT}.{pid}.{ticks}")

    assert crash == Crash(comm=flat.strip("_"), uid=uid, host_pid=pid)


@pytest.mark.parametrize(
    "name",
    [
        "core",
        "core.1234",
        f".{NAME}",
        NAME.replace(BOOT, BOOT[1:]),
        NAME.replace("4711", "4294967296"),
        NAME.replace("4711", "٣"),
        NAME.replace("_usr", "."),
        NAME.removesuffix(".123456"),
        NAME + ".zst",
    ],
)
def test_what_apport_does_not_write_is_no_source(name: str) -> None:
    assert not ApportCores().is_source(name)


def test_a_boot_id_may_have_no_dashes() -> None:
    assert ApportCores().is_source(NAME.replace("-", ""))
