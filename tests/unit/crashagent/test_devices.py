import os
from collections.abc import Iterator

import pytest

from services.crashagent.devices import _LOCAL, Devices, _of_kinds
from services.crashagent.process import Held
from tests.unit.heads import hold_process

LINES = b"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:44 / /mnt rw,relatime - fuse.sshfs host: rw,user_id=0
25 22 0:45 / /home rw,relatime - nfs4 server:/home rw
26 22 0:46 / /merged rw,relatime - overlay overlay rw,lowerdir=/mnt
27 22 0:47 / /a\\040name\\040-\\040ext4 rw - fuse.x x rw
28 22 259:300 / /data rw master:7 propagate_from:2 - xfs /dev/nvme0n1p300 rw
"""


@pytest.fixture
def ourselves() -> Iterator[Held]:
    held = hold_process(os.getpid())
    yield held
    held.close()


def test_what_nobody_has_to_answer_for_is_local() -> None:
    assert _of_kinds(LINES, _LOCAL) == {"fe:00", "103:12c"}


def test_an_overlay_of_anybodys_is_not_local() -> None:
    assert "00:2e" not in _of_kinds(LINES, _LOCAL)
    assert "00:2e" in _of_kinds(LINES, _LOCAL | {b"overlay"})


def test_lines_that_are_none_are_passed_over() -> None:
    assert _of_kinds(b"\n - \n\0\n22 1", _LOCAL) == frozenset()


def test_shared_memory_without_a_file_is_local(ourselves: Held) -> None:
    file = os.memfd_create("ours")
    device = os.fstat(file).st_dev
    os.close(file)

    local = Devices.seen_by(ourselves)

    assert local.is_local(f"{os.major(device):02x}:{os.minor(device):02x}")
    assert local.is_local("00:00")
    assert not local.is_local("ff:ff")
