import configparser
from pathlib import Path

import pytest

from common.disk import DiskLimits
from common.effort import Effort
from common.errors import ConfigError
from services import bundle
from services.crashagent.settings import CrashagentSettings


def test_the_defaults_are_the_documented_ones() -> None:
    settings = CrashagentSettings.from_env({"NODE_NAME": "node-1"})

    assert settings == CrashagentSettings(
        apport_socket=Path("/run/apport.socket"),
        listen_fd=None,
        pod_name="",
        max_intakes=16,
        idle_timeout=30.0,
        timeout=600.0,
        spool="gzip",
        effort=Effort(),
        disk=DiskLimits(max_core=32 * 2**30),
        node="node-1",
    )


def test_every_setting_is_read() -> None:
    settings = CrashagentSettings.from_env(
        {
            "CRASHAGENT_APPORT_SOCKET": "/tmp/a",
            "CRASHAGENT_LISTEN_FD": "256",
            "CRASHAGENT_MAX_INTAKES": "2",
            "CRASHAGENT_IDLE_TIMEOUT": "5s",
            "CRASHAGENT_TIMEOUT": "1m",
            "CRASHAGENT_SPOOL": "raw",
            "COREMON_WORKERS": "3",
            "POD_NAME": "f5-observer-0",
            "COREMON_CRASH_DIR": "/crash",
        }
    )

    assert settings.apport_socket == Path("/tmp/a")
    assert (settings.listen_fd, settings.max_intakes) == (256, 2)
    assert (settings.spool, settings.effort) == ("raw", Effort(workers=3))
    assert (settings.idle_timeout, settings.timeout) == (5.0, 60.0)
    assert (settings.pod_name, settings.crash_dir) == ("f5-observer-0", Path("/crash"))


def test_cores_come_in_as_they_are_to_be_stored() -> None:
    assert CrashagentSettings.from_env({"COREMON_CODEC": "lz4"}).spool == "lz4"


MISTAKES = {
    "COREMON_CODEC": "GZIP",
    "CRASHAGENT_SPOOL": "xz",
    "CRASHAGENT_APPORT_SOCKET": "/" + "x" * 107,
    "CRASHAGENT_LISTEN_FD": "-1",
    "CRASHAGENT_MAX_INTAKES": "0",
    "CRASHAGENT_IDLE_TIMEOUT": "0",
    "CRASHAGENT_TIMEOUT": "5",
    "COREMON_RUN_DIR": "run",
    "COREMON_CRASH_DIR": "crash",
    "COREMON_CORES_DIR": "cores",
    "COREMON_LEVELS_FILE": "levels",
    "COREMON_MAX_CORE": "32 G",
    "COREMON_KEEP_FREE": "101%",
    "NODE_NAME": "..",
    "POD_NAME": "a/b",
}


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        CrashagentSettings.from_env(MISTAKES)

    told = {problem.partition("=")[0].partition(":")[0] for problem in raised.value.problems}
    assert told == set(MISTAKES)


@pytest.mark.parametrize(("name", "value"), MISTAKES.items())
def test_each_mistake_is_told_alone(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        CrashagentSettings.from_env({name: value})

    [problem] = raised.value.problems
    assert problem.startswith(name)


def test_the_bundle_tells_the_mistakes_of_all_its_programs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistakes = ["COREMON_ROTATE=perhaps", "CRASHAGENT_TIMEOUT=5", "QKVIEW_ADDRESS=nowhere"]
    (tmp_path / "env").write_text("\n".join(mistakes))
    monkeypatch.setattr("sys.argv", ["coremond-bundle", "--env", str(tmp_path / "env")])
    monkeypatch.setattr(bundle, "hold_sockets", lambda _env: pytest.fail("it went on"))

    status = bundle.main()

    told = capsys.readouterr().err
    assert status == 78
    assert [name for name in mistakes if name.partition("=")[0] not in told] == []


def test_the_socket_is_held_where_supervisord_leaves_descriptors_open() -> None:
    configuration = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    configuration.read(bundle.CONFIGURATION)

    assert configuration.getint("supervisord", "minfds") == bundle.INHERITED_FROM
