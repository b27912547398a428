from pathlib import Path

import pytest

from common.disk import DiskLimits
from common.effort import Effort, IoClass, IoPriority
from common.errors import ConfigError
from common.settings import Floor
from services.coremond.file_pattern import FilePattern
from services.coremond.settings import CoremondSettings, Retention


def test_the_defaults_are_those_of_the_product_page() -> None:
    settings = CoremondSettings.from_env({})

    assert settings.keep.cores_max_files == 3
    assert settings.keep.retention_interval == 300
    assert settings.keep.retention == 0
    assert settings.keep.rotate is False
    assert settings.cores_interval == 300
    assert settings.delete_src is True


def test_the_defaults_beyond_the_page_are_the_documented_ones() -> None:
    settings = CoremondSettings.from_env({})

    assert settings.disk == DiskLimits(max_core=32 * 2**30, keep_free=Floor(percent=5))
    assert settings.keep.max_use == 0
    assert settings.keep.record_retention == 90 * 86400
    assert (settings.scan_interval, settings.codec) == (10, "gzip")
    assert settings.source_pattern == FilePattern("core.%e.%p.%h.%t")
    assert (settings.systemd_dir, settings.apport_reports, settings.apport_cores_dir) == (None,) * 3
    assert settings.delete_foreign_src is False
    assert settings.effort == Effort(workers=0, nice=10)


def test_every_setting_is_read() -> None:
    settings = CoremondSettings.from_env(
        {
            "COREMON_CORES_MAX_FILES": "0",
            "COREMON_RETENTION_INTERVAL": "1h30m",
            "COREMON_ROTATE": "true",
            "COREMON_RETENTION": "2d",
            "COREMON_RECORD_RETENTION": "0",
            "COREMON_MAX_USE": "8G",
            "COREMON_MAX_CORE": "0",
            "COREMON_CODEC": "zstd",
            "COREMON_NICE": "19",
            "COREMON_IO_PRIORITY": "idle",
            "COREMON_KEEP_FREE": "2G",
            "COREMON_DELETE_SRC": "false",
            "COREMON_CORES_INTERVAL": "90s",
            "COREMON_SCAN_INTERVAL": "1s",
            "COREMON_SOURCE_PATTERN": "%p-%e.core",
            "COREMON_SYSTEMD_DIR": "/d",
            "COREMON_APPORT_REPORTS": "/c",
            "COREMON_APPORT_CORES_DIR": "/a",
            "COREMON_DELETE_FOREIGN_SRC": "true",
            "COREMON_WORKERS": "2",
            "COREMON_RUN_DIR": "/r",
            "COREMON_CRASH_DIR": "/c",
            "COREMON_CORES_DIR": "/s",
            "COREMON_LEVELS_FILE": "/l",
            "NODE_NAME": "node-1",
        }
    )

    assert settings == CoremondSettings(
        keep=Retention(
            cores_max_files=0,
            retention_interval=5400,
            rotate=True,
            retention=172800,
            record_retention=0,
            max_use=8 * 2**30,
        ),
        disk=DiskLimits(max_core=0, keep_free=Floor(bytes=2 * 2**30)),
        delete_src=False,
        cores_interval=90,
        scan_interval=1,
        source_pattern=FilePattern("%p-%e.core"),
        systemd_dir=Path("/d"),
        apport_reports=Path("/c"),
        apport_cores_dir=Path("/a"),
        delete_foreign_src=True,
        codec="zstd",
        effort=Effort(workers=2, nice=19, io_priority=IoPriority(IoClass.IDLE)),
        run_dir=Path("/r"),
        crash_dir=Path("/c"),
        cores_dir=Path("/s"),
        levels_file=Path("/l"),
        node="node-1",
    )
    assert settings.store_dir == Path("/s/node-1")


MISTAKES = {
    "COREMON_CODEC": "xz",
    "COREMON_NICE": "20",
    "COREMON_IO_PRIORITY": "best-effort",
    "COREMON_CORES_MAX_FILES": "-1",
    "COREMON_RETENTION_INTERVAL": "5",
    "COREMON_ROTATE": "yes",
    "COREMON_RETENTION": "forever",
    "COREMON_RECORD_RETENTION": "-1s",
    "COREMON_MAX_USE": "15%",
    "COREMON_MAX_CORE": "2 G",
    "COREMON_KEEP_FREE": "150%",
    "COREMON_DELETE_SRC": "maybe",
    "COREMON_CORES_INTERVAL": "0",
    "COREMON_SCAN_INTERVAL": "0s",
    "COREMON_SOURCE_PATTERN": "%e",
    "COREMON_SYSTEMD_DIR": "on",
    "COREMON_APPORT_REPORTS": "true",
    "COREMON_APPORT_CORES_DIR": "coredump",
    "COREMON_DELETE_FOREIGN_SRC": "no",
    "COREMON_WORKERS": "two",
    "COREMON_RUN_DIR": "run",
    "COREMON_CRASH_DIR": "crash",
    "COREMON_CORES_DIR": "cores",
    "COREMON_LEVELS_FILE": "levels",
    "NODE_NAME": "a/b",
}


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        CoremondSettings.from_env(MISTAKES)

    told = {problem.partition("=")[0].partition(":")[0] for problem in raised.value.problems}
    assert told == set(MISTAKES)


@pytest.mark.parametrize(("name", "value"), MISTAKES.items())
def test_each_mistake_is_told_alone(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        CoremondSettings.from_env({name: value})

    [problem] = raised.value.problems
    assert problem.startswith(name)


@pytest.mark.parametrize("name", ["COREMON_SYSTEMD_DIR", "COREMON_APPORT_CORES_DIR"])
@pytest.mark.parametrize("value", ["off", ""])
def test_a_directory_of_others_can_be_off(name: str, value: str) -> None:
    assert CoremondSettings.from_env({name: value}) == CoremondSettings.from_env({})


@pytest.mark.parametrize("name", ["COREMON_SYSTEMD_DIR", "COREMON_APPORT_CORES_DIR"])
def test_what_others_store_is_not_taken_for_what_comes_in(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        CoremondSettings.from_env({name: "/c", "COREMON_CRASH_DIR": "/c"})

    [problem] = raised.value.problems
    assert problem == f"{name}='/c': expected another directory than COREMON_CRASH_DIR"


@pytest.mark.parametrize("crash_dir", ["/c", "/c/node-1"])
def test_what_is_stored_is_not_taken_for_what_comes_in(crash_dir: str) -> None:
    env = {"COREMON_CORES_DIR": "/c", "COREMON_CRASH_DIR": crash_dir, "NODE_NAME": "node-1"}

    with pytest.raises(ConfigError, match="expected another directory than COREMON_CRASH_DIR"):
        CoremondSettings.from_env(env)


@pytest.mark.parametrize(
    "pattern",
    ["%e", "%e%h", "a/%p", "%", "%x", "core.%", "%F.core", "|%p", "@%p", ".%p", "%p" * 64, "a\0%p"],
)
def test_a_pattern_that_cannot_tell_cores_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError) as raised:
        CoremondSettings.from_env({"COREMON_SOURCE_PATTERN": pattern})

    [problem] = raised.value.problems
    assert problem.startswith("COREMON_SOURCE_PATTERN=")
