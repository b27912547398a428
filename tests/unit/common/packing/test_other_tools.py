"""Other programs read what we pack, and we read what they pack."""

import gzip
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from common.item import CodecName
from common.packing.opened import OpenCore
from common.packing.restoring import restore
from tests.unit.common.packing.cases import Core, pack, packed
from tests.unit.factories import content_of, memory_file

CORES = {
    "nothing": Core(()),
    "a byte": Core((), "a byte"),
    "a block": Core(("noise",)),
    "a mix": Core(("noise", "hole", "hole", "text", "two ranges", "zeros"), "odd", 5000),
}
PACKAGES = {"zcat": "gzip", "unlz4": "lz4", "unpigz": "pigz", "unzstd": "zstd"}
SUFFIXES: dict[CodecName, str] = {"gzip": ".gz", "zstd": ".zst", "lz4": ".lz4"}
TESTERS: list[tuple[CodecName, str]] = [
    ("gzip", "gzip -t"),
    ("gzip", "pigz -t"),
    ("zstd", "zstd -q -t"),
    ("lz4", "lz4 -q -t"),
]
UNPACKERS: list[tuple[CodecName, str]] = [
    ("gzip", "gzip -d -c"),
    ("gzip", "zcat"),
    ("gzip", "pigz -d -c"),
    ("zstd", "zstd -q -d -c"),
    ("lz4", "lz4 -q -d -c"),
]
PACKERS: list[tuple[CodecName, str]] = [
    ("gzip", "gzip -1 -c"),
    ("gzip", "pigz -1 -p 2 -c"),
    ("gzip", "pigz -p 2 -i -c"),
    ("zstd", "zstd -q -1 -c"),
    ("zstd", "zstd -q -T2 --no-check -c"),
    ("zstd", "zstd -q --long=27 -c"),
    ("lz4", "lz4 -q -c"),
    ("lz4", "lz4 -q -B4 -BD -c"),
    ("lz4", "lz4 -q -B6 --content-size -c"),
    ("lz4", "lz4 -q -B4 --content-size -c"),
]

each_core = pytest.mark.parametrize("core", CORES.values(), ids=CORES)


def run(command: str, *more: str) -> bytes:
    words = [*command.split(), *more]
    if not shutil.which(words[0]):
        package = PACKAGES.get(words[0], words[0])
        pytest.skip(f"missing: {words[0]} (Debian package {package})")
    return subprocess.run(words, capture_output=True, check=True, timeout=60).stdout


@each_core
@pytest.mark.parametrize(("codec", "command"), TESTERS)
def test_other_tools_find_no_fault(
    codec: CodecName, command: str, core: Core, tmp_path: Path
) -> None:
    path = tmp_path / f"core{SUFFIXES[codec]}"
    path.write_bytes(packed(core.content, codec))

    run(command, str(path))


@each_core
@pytest.mark.parametrize(("codec", "command"), UNPACKERS)
def test_other_tools_unpack_what_was_packed(
    codec: CodecName, command: str, core: Core, tmp_path: Path
) -> None:
    path = tmp_path / f"core{SUFFIXES[codec]}"
    path.write_bytes(packed(core.content, codec))

    assert run(command, str(path)) == core.content


@each_core
def test_the_standard_library_reads_it_as_a_stream(core: Core) -> None:
    with gzip.GzipFile(fileobj=io.BytesIO(packed(core.content, "gzip"))) as file:
        assert file.read() == core.content


def test_the_tool_of_zstd_lists_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "core.zst"
    path.write_bytes(packed(CORES["a mix"].content, "zstd"))

    listed = run("zstd -l -v", str(path)).decode()

    assert "# Zstandard Frames: 7" in listed
    assert "# Skippable Frames: 1" in listed
    assert "XXH64" in listed


@each_core
@pytest.mark.parametrize(("codec", "command"), PACKERS)
@pytest.mark.parametrize("workers", [1, 3])
def test_what_other_tools_packed_is_restored(
    codec: CodecName, command: str, core: Core, workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "core"
    path.write_bytes(core.content)
    file = run(command, str(path))

    with memory_file(file) as source, memory_file() as target:
        size = restore(source, target, workers=workers)

        assert content_of(target) == core.content
        assert size == len(core.content)


@each_core
@pytest.mark.parametrize(("codec", "command"), PACKERS)
def test_what_other_tools_packed_is_packed_anew(
    codec: CodecName, command: str, core: Core, tmp_path: Path
) -> None:
    path = tmp_path / "core"
    path.write_bytes(core.content)
    file = run(command, str(path))

    with memory_file(file) as source:
        opened = OpenCore(source)
        result = pack(opened.source(), "gzip", 2)

    assert not opened.damage
    assert gzip.decompress(result.file) == core.content
    assert not result.facts.cut
