import os
from pathlib import Path

import pytest

from common.disk import DiskLimits, read_disk_limits
from common.errors import ConfigError
from common.places import Places, read_places
from common.settings import EnvReader, Floor


def test_the_places_are_the_documented_ones() -> None:
    places = Places(node="node-1")

    assert places.run_dir == Path("/run/coremond")
    assert places.crash_dir == Path("/var/crash")
    assert places.store_dir == Path("/var/cores/node-1")
    assert places.levels_file == Path("/logs/.minlevel.yaml")


def test_a_run_directory_leaves_room_for_the_names_of_sockets() -> None:
    reader = EnvReader({"COREMON_RUN_DIR": "/" + "x" * 100})

    read_places(reader)

    with pytest.raises(ConfigError, match="COREMON_RUN_DIR"):
        reader.finish()


def test_a_run_directory_that_is_no_text_is_a_mistake_like_others() -> None:
    reader = EnvReader({"COREMON_RUN_DIR": os.fsdecode(b"/run/\xff")})

    read_places(reader)

    with pytest.raises(ConfigError, match="COREMON_RUN_DIR"):
        reader.finish()


@pytest.mark.parametrize("node", ["../..", "a/b", ".."])
def test_a_node_cannot_leave_the_directory_of_cores(node: str) -> None:
    reader = EnvReader({"NODE_NAME": node})

    read_places(reader)

    with pytest.raises(ConfigError, match="NODE_NAME"):
        reader.finish()


def test_the_limits_of_a_disk_are_read() -> None:
    reader = EnvReader({"COREMON_MAX_CORE": "2G", "COREMON_KEEP_FREE": "15%"})

    limits = read_disk_limits(reader)

    assert limits == DiskLimits(max_core=2 * 2**30, keep_free=Floor(percent=15))


def test_a_disk_lacks_what_its_floor_is_above_what_is_free(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        huge = DiskLimits(keep_free=Floor(bytes=2**62)).lacking(directory)
        none = DiskLimits(keep_free=Floor()).lacking(directory)
    finally:
        os.close(directory)

    assert 0 < huge <= 2**62
    assert none == 0
