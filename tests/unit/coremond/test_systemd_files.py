import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import NamingError
from common.item import Crash, clean
from common.packing.opened import OpenCore
from services.coremond.kinds import OpenSource, Told
from services.coremond.systemd_files import SystemdFiles, read_name
from tests.unit.factories import file_texts, hostile_texts, without_deadline

BOOT = "0123456789abcdef0123456789abcdef"
NAME = f"core.observer.1000.{BOOT}.4711.1742738615000000.zst"
NAMED = Crash(
    arrived="systemd",
    comm="observer",
    uid=1000,
    host_pid=4711,
    crashed_at=1_742_738_615 * 10**9,
)


def escaped(raw: bytes) -> str:
    r"""Write bytes as systemd's xescape(s, "./ ") does."""
    return "".join(
        f"\\x{byte:02x}" if byte < 32 or byte >= 127 or byte in b"\\./ " else chr(byte)
        for byte in raw
    )


@without_deadline
@given(
    comm=st.binary(max_size=15),
    uid=st.integers(0, 2**32 - 1),
    pid=st.integers(0, 2**32 - 1),
    micros=st.integers(10**15, 9 * 10**15),
    suffix=st.sampled_from(["", ".zst", ".lz4", ".xz"]),
)
def test_a_name_reads_back_as_what_was_written(
    comm: bytes, uid: int, pid: int, micros: int, suffix: str
) -> None:
    crash = read_name(f"core.{escaped(comm)}.{uid}.{BOOT}.{pid}.{micros}{suffix}")

    assert crash == Crash(
        arrived="systemd", comm=clean(comm), uid=uid, host_pid=pid, crashed_at=micros * 1000
    )


@pytest.mark.parametrize(
    "name",
    [
        f".#{NAME}0123456789abcdef",
        NAME + ".tmp",
        NAME.replace(".zst", ".gz"),
        NAME.replace(BOOT, BOOT[1:]),
        NAME.replace(BOOT, BOOT.upper()),
        NAME.replace("4711", "-1"),
        NAME.replace("4711", "4294967296"),
        NAME.replace("4711", "٣"),
        NAME.replace("observer", "a b"),
        NAME.replace("observer", "a\nb"),
        NAME.replace("observer", "é"),
        NAME.replace("observer", "a.b"),
        NAME.replace("observer", "\\x2"),
        NAME.replace("observer", "\\x2E"),
        NAME.replace("observer", "\\"),
        "x" + NAME,
        "core.observer.9.f5-observer-0.1742738615",
        "core",
        "",
    ],
)
def test_what_systemd_does_not_write_is_no_source(name: str) -> None:
    with pytest.raises(NamingError):
        read_name(name)
    assert not SystemdFiles().is_source(name)


@without_deadline
@given(name=file_texts | st.text().map(lambda text: NAME.replace("observer", text)))
def test_any_name_is_one_or_none(name: str) -> None:
    if SystemdFiles().is_source(name):
        assert re.fullmatch(r"[!-~]+", name)
        assert "/" not in name


def told(path: Path, attributes: dict[str, bytes]) -> Told:
    """Tell of a file with these attributes."""
    path.write_bytes(b"a core")
    for attribute, value in attributes.items():
        try:
            os.setxattr(path, f"user.coredump.{attribute}", value)
        except OSError as error:
            pytest.skip(f"missing: extended attributes in {path.parent} ({error.strerror})")
    with path.open("rb") as file:
        descriptor = file.fileno()
        source = OpenSource(
            directory=-1,
            name=path.name,
            descriptor=descriptor,
            status=path.stat(),
            core=OpenCore(descriptor),
        )
        return SystemdFiles().tell(source)


def test_without_attributes_the_name_tells(tmp_path: Path) -> None:
    assert told(tmp_path / NAME, {}) == Told(seen=NAMED, owner=1000)


def test_the_attributes_tell_more(tmp_path: Path) -> None:
    attributes = {
        "pid": b"4712",
        "uid": b"1001",
        "gid": b"100",
        "signal": b"6",
        "timestamp": b"1742738616000001",
        "comm": b"ob server",
        "exe": b"/usr/bin/ob server",
        "rlimit": b"4096",
        "hostname": b"node-1",
    }

    assert told(tmp_path / NAME, attributes) == Told(
        seen=Crash(
            arrived="systemd",
            host_pid=4712,
            uid=1001,
            gid=100,
            signal=6,
            comm="ob server",
            exe="/usr/bin/ob server",
            rlimit=4096,
            hostname="node-1",
            crashed_at=1_742_738_616_000_001_000,
        ),
        owner=1001,
    )


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"x", b" 7", b"7\n", b"\xd9\xa3", b"9" * 30, b"\xff" * 300, b"0x7"]
)
def test_an_attribute_that_is_no_number_tells_nothing(tmp_path: Path, value: bytes) -> None:
    numbers = ("pid", "uid", "gid", "signal", "rlimit", "timestamp")

    assert told(tmp_path / NAME, dict.fromkeys(numbers, value)) == Told(seen=NAMED, owner=1000)


def test_no_limit_is_no_number(tmp_path: Path) -> None:
    seen = told(tmp_path / NAME, {"rlimit": b"18446744073709551615", "signal": b"65"}).seen

    assert seen == NAMED


def test_a_hostile_text_stays_one(tmp_path: Path) -> None:
    hostile = b"../../etc/passwd\n\xff\0"

    seen = told(tmp_path / NAME, {"hostname": hostile, "exe": b"x" * 3000}).seen

    assert seen is not None
    assert seen.hostname == clean(hostile)
    assert seen.exe == "x" * 3000


@without_deadline
@given(text=hostile_texts)
def test_what_is_hostile_in_a_process_is_never_hostile_in_a_name(text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape" if text.isprintable() else "replace")[:15]

    assert "\n" not in f"core.{escaped(raw)}.0.{BOOT}.1.1742738615000000"
    assert SystemdFiles().is_source(f"core.{escaped(raw)}.0.{BOOT}.1.1742738615000000")
