import os
import random
import re
import struct
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CorruptError
from common.packing.incoming import content, format_of
from common.packing.report import (
    MOST_KEYS,
    MOST_LOOKED,
    MOST_TEXT,
    MOST_VALUE,
    core_of_report,
    read_report,
)
from tests.unit.factories import memory_file, with_files

RANDOM = random.Random(7)
BLOCK = 2**17
NOISE = RANDOM.randbytes(2 * BLOCK + 5)
CORES = {"empty": b"", "one byte": b"x", "noise": NOISE, "zeros": bytes(9 * BLOCK) + b"end"}
SMALL = b"a core " * 20 + RANDOM.randbytes(700) + bytes(300)

BEFORE = b"""ProblemType: Crash
Architecture: amd64
ExecutablePath: /usr/bin/observer
ProcMaps:
 00400000-00401000 r-xp 00000000 08:01 42 /usr/bin/observer
 CoreDump: base64
 7fff0000-7fff1000 rw-p 00000000 00:00 0 [stack]
Signal: 11
_HooksRun: no
"""
TEXTS = {
    "ProblemType": "Crash",
    "Architecture": "amd64",
    "ExecutablePath": "/usr/bin/observer",
    "ProcMaps": (
        "00400000-00401000 r-xp 00000000 08:01 42 /usr/bin/observer\n"
        "CoreDump: base64\n"
        "7fff0000-7fff1000 rw-p 00000000 00:00 0 [stack]"
    ),
    "Signal": "11",
    "_HooksRun": "no",
}
AFTER = b"JournalErrors:\n first\n \n third\nUserGroups: N/A\n"


def blocks_of(core: bytes, size: int = BLOCK) -> Iterator[bytes]:
    return (core[place : place + size] for place in range(0, len(core), size))


def base64_lines(units: Iterator[bytes]) -> bytes:
    return b"".join(b" " + b64encode(unit) + b"\n" for unit in units)


def _as_gzip(core: bytes) -> Iterator[bytes]:
    """Give the units that problem_report.py writes, each of which becomes a line."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    yield b"\x1f\x8b\x08\x08\0\0\0\0\x02\xffCoreDump\0"
    yield from filter(None, map(packer.compress, blocks_of(core)))
    yield packer.flush() + struct.pack("<LL", zlib.crc32(core), len(core))


def _as_zlib(core: bytes) -> Iterator[bytes]:
    packer = zlib.compressobj()
    yield from filter(None, map(packer.compress, blocks_of(core)))
    yield packer.flush()


def _as_zstd(core: bytes) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(write_checksum=True)
    return blocks_of(packer.compress(core))


VARIANTS = {"gzip": _as_gzip, "zlib": _as_zlib, "zstd": _as_zstd}


def core_dump(core: bytes, variant: str = "gzip", key: bytes = b"CoreDump") -> bytes:
    return key + b": base64\n" + base64_lines(VARIANTS[variant](core))


def report(core: bytes, variant: str = "gzip") -> bytes:
    return BEFORE + core_dump(core, variant) + AFTER


def core_in(data: bytes) -> bytes:
    with memory_file(data) as file:
        return b"".join(core_of_report(file))


def core_till_damage(data: bytes) -> tuple[bytes, str]:
    found, said = bytearray(), ""
    with memory_file(data) as file:
        try:
            for block in core_of_report(file):
                found += block
        except CorruptError as error:
            said = str(error)
    if said:
        assert said.startswith("damaged apport-report: ")
        assert said.endswith(f", after {len(found)} bytes of content")
    return bytes(found), said


def texts_in(data: bytes) -> dict[str, str]:
    with memory_file(data) as file:
        return read_report(file)


@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_report_gives_its_core(variant: str, core: bytes) -> None:
    data = report(core, variant)

    with memory_file(data) as file:
        assert format_of(file) == "apport-report"
        assert b"".join(content(file)) == core


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.removesuffix(AFTER),
        lambda data: data.removesuffix(AFTER).removesuffix(b"\n"),
        lambda data: data.removeprefix(BEFORE),
        lambda data: core_dump(b"other", key=b"VmCore") + data + core_dump(b"x", key=b"Z"),
        lambda data: data + core_dump(b"a second core"),
        lambda data: data.replace(AFTER, b"\n\n" + AFTER),
        lambda data: b"a line of nothing\n\0\xff\n" + data,
    ],
    ids=["CRLF", "last", "no newline", "first", "others", "second", "blank lines", "odd lines"],
)
def test_wherever_the_core_stands_it_is_found(change: type[bytes], variant: str) -> None:
    data = change(report(SMALL, variant))

    assert core_in(data) == SMALL


def test_lines_may_be_of_any_length() -> None:
    packed = b"".join(_as_gzip(NOISE * 8))
    for size in 1, 2, 3, 49_149, 49_150, 49_151, 49_152, 49_153, len(packed):
        units = blocks_of(packed[:5000] if size < 4 else packed, size)
        data = b"CoreDump: base64\n" + base64_lines(units)
        for ending in b"\n", b"\r\n":
            found, said = core_till_damage(data.replace(b"\n", ending))

            assert found == NOISE * 8 if size >= 4 else "ends in the middle" in said


def test_a_line_may_be_longer_than_memory_should_be() -> None:
    line = b64encode(b"".join(_as_zlib(NOISE * 64)))
    with memory_file(b"CoreDump: base64\n " + line) as file:
        tracemalloc.start()
        size = sum(map(len, core_of_report(file)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert size == len(NOISE) * 64
    assert peak < 2**21 < len(line) / 8


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (BEFORE + AFTER, "there is no CoreDump in it, up to byte"),
        (b"CoreDump: none\n", "its CoreDump is not base64, at byte 0"),
        (BEFORE + b"CoreDump:\n text\n", "its CoreDump is not base64"),
        (BEFORE + b"CoreDump: base64\n" + AFTER, "its CoreDump is empty, at byte"),
        (BEFORE + b"CoreDump: base64", "its CoreDump is"),
        (b"CoreDump: base64\n R0lGODlh\n", "packed in no known way, at byte"),
        (b"CoreDump: base64\n \n \n", "its CoreDump is empty"),
        (b"coredump: base64\n", "there is no CoreDump"),
        (b"CoreDump : base64\n", "there is no CoreDump"),
        (b"X: base64\n CoreDump: base64\n", "there is no CoreDump"),
        (b"X: " + b"x" * (2**16 - 3) + b"CoreDump: base64\n", "there is no CoreDump"),
        (b"CoreDump: base64" + b" " * 2**17 + b"x\n", "its CoreDump is not base64"),
        (b"", "there is no CoreDump in it, up to byte 0"),
    ],
)
def test_a_report_without_a_core_says_so(data: bytes, what: str) -> None:
    found, said = core_till_damage(data)

    assert found == b""
    assert what in said


@pytest.mark.parametrize("garbage", [b"!", b"\0", b" ", b"=", b"====", b"\xff", b"\r"])
def test_garbage_in_the_base64_is_found_where_it_is(garbage: bytes) -> None:
    lines = core_dump(NOISE, "gzip")
    place = lines.index(b"\n", BLOCK) - 77
    whole = zlib.decompressobj(31).decompress(b"".join(_as_gzip(NOISE)))

    found, said = core_till_damage(lines[:place] + garbage + lines[place:])

    assert whole.startswith(found)
    assert len(found) > BLOCK // 2
    damage = int(said.split(" at byte ")[1].split(":")[0].split(",")[0])
    assert place - 4 <= damage <= place


def test_nothing_may_stand_behind_padding_however_long_the_line() -> None:
    packed = b"".join(_as_gzip(NOISE))
    for size in range(49_130, 49_170):  # 65536 characters of base64, and some less and more
        line = b64encode(packed[:size]) + b64encode(packed[size:])

        said = core_till_damage(b"CoreDump: base64\n " + line + b"\n")[1]

        assert "base64" in said if size % 3 else not said


@with_files
@given(variant=st.sampled_from([*VARIANTS]), data=st.data())
def test_a_report_cut_anywhere_gives_what_is_there(variant: str, data: st.DataObject) -> None:
    whole = BEFORE + core_dump(SMALL, variant)
    cut = data.draw(st.integers(0, len(whole) - 2))

    found, said = core_till_damage(whole[:cut])

    assert SMALL.startswith(found)
    assert said


@with_files
@given(variant=st.sampled_from([*VARIANTS]), data=st.data())
def test_a_flipped_bit_in_the_core_is_found(variant: str, data: st.DataObject) -> None:
    whole = bytearray(core_dump(SMALL, variant))
    start = whole.index(b"\n") + 8
    whole[data.draw(st.integers(start, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    found, said = core_till_damage(bytes(whole))

    assert said or found == SMALL


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_core_with_a_wrong_checksum_is_given_before_that_is_said(variant: str) -> None:
    packed = bytearray(b"".join(VARIANTS[variant](SMALL)))
    packed[-1] ^= 1

    found, said = core_till_damage(b"CoreDump: base64\n " + b64encode(packed) + b"\n")

    assert found == SMALL
    assert said


@with_files
@given(st.lists(st.sampled_from([b"CoreDump: base64\n", b" ", b"\n", b"H4sI", b"=", b"A:", b"\0"])))
def test_no_report_makes_anything_but_an_error_of_ours(pieces: list[bytes]) -> None:
    data = b"".join(pieces)

    found, said = core_till_damage(data)

    assert found == b""
    assert said
    with suppress(CorruptError):
        assert all(re.fullmatch("[A-Za-z0-9]+", key) for key in texts_in(data))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_texts_are_read_around_the_bytes(variant: str, ending: bytes) -> None:
    data = core_dump(b"x", key=b"First") + report(SMALL, variant)

    texts = texts_in(data.replace(b"\n", ending))

    assert texts == {**TEXTS, "JournalErrors": "first\n\nthird", "UserGroups": "N/A"}


def test_bytes_are_passed_over_without_being_decoded() -> None:
    assert texts_in(b"CoreDump: base64\n !garbage!\n \0\nKey: value") == {"Key": "value"}


def test_what_stands_on_the_line_of_the_key_comes_first() -> None:
    assert texts_in(b"Key: one\n two\nEmpty:\nKey-2: \xe9\n") == {
        "Key": "one\ntwo",
        "Empty": "",
        "Key-2": "\ufffd",
    }


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    assert texts_in(b"Key: one\nKey: two\n") == {"Key": "two"}


def test_a_long_value_is_cut() -> None:
    lines = b"".join(b" " + b"y" * 999 + b"\n" for _ in range(1000))
    data = b"Long: " + b"x" * 10 * MOST_VALUE + b"\nLines:\n" + lines + b"Key: value\n"

    texts = texts_in(data)

    assert texts["Long"] == "x" * MOST_VALUE
    assert len(texts["Lines"]) == MOST_VALUE
    assert texts["Key"] == "value"


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b"../etc/passwd: x",
        b"a/b: x",
        b".hidden: x",
        b"..: x",
        b"a b: x",
        b": x",
        b"k\0: x",
        b"\xc3\xa9: x",
        b"k" * 129 + b": x",
        b"\tx",
    ],
)
def test_a_line_that_is_no_reports_is_named_by_its_place(line: bytes) -> None:
    with pytest.raises(CorruptError, match=r"at byte 6$"):
        texts_in(b"K: v\n\n" + line + b"\n")


def test_a_report_cannot_begin_in_the_middle_of_a_value() -> None:
    with pytest.raises(CorruptError, match=r"at byte 0$"):
        texts_in(b" value\n")


def test_there_is_a_most_of_text_and_of_keys() -> None:
    value = b": " + b"x" * MOST_VALUE + b"\n"
    many = b"".join(b"K%d%b" % (number, value) for number in range(MOST_TEXT // MOST_VALUE))

    assert len(texts_in(many)) == MOST_TEXT // MOST_VALUE
    with pytest.raises(CorruptError, match="bytes of text"):
        texts_in(many + b"K: x\n")
    with pytest.raises(CorruptError, match="bytes of text"):
        texts_in(b"K" + value + (b"K" + value) * (MOST_TEXT // MOST_VALUE))
    with pytest.raises(CorruptError, match=f"more than {MOST_KEYS} keys"):
        texts_in(b"".join(b"K%d:\n" % number for number in range(MOST_KEYS + 1)))


@pytest.mark.parametrize("head", [b"Key: value", b"Key: value\nVmCore: base64\n "])
def test_a_report_that_never_ends_is_looked_through_no_further_than_is_said(head: bytes) -> None:
    with memory_file(head) as file:
        os.ftruncate(file, 2**50)

        texts = read_report(file)
        with pytest.raises(CorruptError, match="there is no CoreDump in it, up to byte") as raised:
            list(core_of_report(file))

    assert texts["Key"][:5] == "value"
    assert int(str(raised.value).split("byte ")[1].split(",")[0]) < MOST_LOOKED + 2**17


def test_the_place_in_the_file_is_not_moved() -> None:
    with memory_file(report(SMALL)) as file:
        os.lseek(file, 3, os.SEEK_SET)

        assert read_report(file)["Signal"] == "11"
        assert b"".join(core_of_report(file)) == SMALL
        assert os.lseek(file, 0, os.SEEK_CUR) == 3


@pytest.mark.parametrize(
    ("head", "is_report"),
    [
        (b"Package: x\n", True),
        (b"ProcMaps:\n x\n", True),
        (b"ProcMaps:\r\n x\r\n", True),
        (b"\x7fELF: ", False),
        (b"Key", False),
        (b"Key:", False),
        (b"http://x", False),
        (b" Key: x", False),
        (b"k" * 200 + b": x", False),
    ],
)
def test_a_report_is_known_by_its_first_key(head: bytes, is_report: bool) -> None:
    with memory_file(head) as file:
        assert (format_of(file) == "apport-report") is is_report
