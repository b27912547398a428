from pathlib import Path

import pytest

from common.errors import ConfigError
from services.qkview_collect.settings import QkviewSettings


def test_an_empty_environment_gives_what_works_on_a_node() -> None:
    settings = QkviewSettings.from_env({})

    assert settings.address == "0.0.0.0:19891"
    assert settings.tls_dir == Path("/etc/coremond/tls")
    assert settings.cores_dir == Path("/var/cores")


def test_each_variable_is_read() -> None:
    env = {"QKVIEW_ADDRESS": "[::1]:0", "QKVIEW_TLS_DIR": "/tls", "NODE_NAME": "n1"}

    settings = QkviewSettings.from_env(env)

    assert (settings.address, settings.tls_dir) == ("[::1]:0", Path("/tls"))
    assert settings.store_dir == Path("/var/cores/n1")


@pytest.mark.parametrize(
    ("text", "address"), [("off", None), ("[::]:19892", "[::]:19892"), ("", "127.0.0.1:19892")]
)
def test_metrics_are_served_at_an_address_or_nowhere(text: str, address: str | None) -> None:
    assert QkviewSettings.from_env({"COREMON_METRICS_ADDRESS": text}).metrics_address == address


def test_all_mistakes_are_told_at_once() -> None:
    env = {
        "QKVIEW_ADDRESS": "19891",
        "QKVIEW_TLS_DIR": "tls",
        "COREMON_CORES_DIR": "cores",
        "COREMON_METRICS_ADDRESS": "nowhere",
    }

    with pytest.raises(ConfigError) as caught:
        QkviewSettings.from_env(env)

    named = [problem.partition("=")[0] for problem in caught.value.problems]
    assert sorted(named) == sorted(env)
