import hashlib
import os
import zlib

import pytest

from common.packing.sums import sums_of
from tests.unit.common.packing.cases import NOISE
from tests.unit.factories import memory_file


@pytest.mark.parametrize("size", [0, 1, 4096, len(NOISE), len(NOISE) + 1, 3 * len(NOISE)])
def test_the_sums_are_those_of_the_bytes(size: int) -> None:
    content = (NOISE * 3)[:size]

    with memory_file(content) as file:
        sums = sums_of(file)

    assert (sums.size, sums.crc32) == (size, zlib.crc32(content))
    assert sums.sha256 == hashlib.sha256(content).hexdigest()


def test_the_place_in_the_file_is_neither_used_nor_moved() -> None:
    with memory_file(b"a core") as file:
        os.lseek(file, 3, os.SEEK_SET)

        assert sums_of(file).size == 6
        assert os.lseek(file, 0, os.SEEK_CUR) == 3
