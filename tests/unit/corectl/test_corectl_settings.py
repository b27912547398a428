from pathlib import Path

import pytest

from common.errors import ConfigError
from services.corectl.settings import CorectlSettings
from services.coremond.settings import CoremondSettings
from services.crashagent.settings import CrashagentSettings
from services.qkview_collect.settings import QkviewSettings


def test_the_defaults_are_those_of_the_programs() -> None:
    mine, qkview = CorectlSettings(), QkviewSettings()

    assert (mine.qkview_address, mine.qkview_tls_dir) == (qkview.address, qkview.tls_dir)
    assert mine.apport_socket == CrashagentSettings().apport_socket
    assert mine.kernel_socket == CrashagentSettings().kernel_socket
    assert mine.systemd_socket == CrashagentSettings().systemd_socket
    assert mine.source_pattern == CoremondSettings().source_pattern.text


def test_each_variable_is_read() -> None:
    settings = CorectlSettings.from_env(
        {
            "COREMON_RUN_DIR": "/r",
            "CRASHAGENT_APPORT_SOCKET": "/a",
            "COREMOND_OVERRIDE_CORE_PATTERN": "true",
            "COREMON_SOURCE_PATTERN": "%e",
            "COREMON_SYSTEMD_DIR": "/s",
            "COREMON_APPORT_REPORTS": "off",
            "QKVIEW_ADDRESS": "h:1",
            "QKVIEW_TLS_DIR": "/t",
        }
    )

    assert settings.supervisor_socket == Path("/r/supervisor.sock")
    assert (settings.apport_socket, settings.qkview_address) == (Path("/a"), "h:1")
    assert settings.qkview_tls_dir == Path("/t")
    assert settings.override_core_pattern
    assert (settings.source_pattern, settings.systemd_dir) == ("%e", Path("/s"))
    assert settings.apport_reports is None


def test_the_kernels_socket_is_in_the_run_directory_unless_it_is_elsewhere_or_off() -> None:
    sockets = [
        CorectlSettings.from_env({"COREMON_RUN_DIR": "/r", "CRASHAGENT_KERNEL_SOCKET": said})
        for said in ("", "/k", "off")
    ]

    assert [found.kernel_socket for found in sockets] == [Path("/r/kernel.sock"), Path("/k"), None]


def test_all_mistakes_are_told_at_once() -> None:
    env = {"CRASHAGENT_APPORT_SOCKET": "a", "QKVIEW_ADDRESS": "h", "COREMON_CRASH_DIR": "c"}

    with pytest.raises(ConfigError) as caught:
        CorectlSettings.from_env(env)

    assert len(caught.value.problems) == len(env)
