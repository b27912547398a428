from pathlib import Path

import pytest

from common.certificates import FILES, read_certificates
from common.errors import ConfigError
from services.qkview_collect.credentials import Renewal
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def secret(authority: Authority, tmp_path: Path) -> Path:
    return authority.issue(tmp_path / "secret", "qkview")


def problems_of(directory: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_certificates(directory)
    return "\n".join(caught.value.problems)


def test_a_whole_set_is_read_and_shows_no_key(secret: Path) -> None:
    found = read_certificates(secret)

    assert found is not None
    assert found.key == (secret / "tls.key").read_bytes()
    assert "PRIVATE" not in repr(found)


def test_no_file_at_all_is_no_certificates(tmp_path: Path) -> None:
    assert read_certificates(tmp_path) is None
    assert read_certificates(tmp_path / "none") is None


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_missing_is_a_mistake(secret: Path, name: str) -> None:
    (secret / name).unlink()

    assert f"{secret / name}: missing" in problems_of(secret)


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_cannot_be_read_is_a_mistake(secret: Path, name: str) -> None:
    (secret / name).unlink()
    (secret / name).mkdir()

    assert f"{secret / name}: cannot be read" in problems_of(secret)


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_rubbish_is_a_mistake(secret: Path, name: str) -> None:
    (secret / name).write_text("rubbish")

    assert name in problems_of(secret)


def test_a_key_of_another_certificate_is_a_mistake(
    secret: Path, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue(tmp_path / "other", "other")
    (secret / "tls.key").write_bytes((other / "tls.key").read_bytes())

    assert "are no pair: key values mismatch" in problems_of(secret)


def test_renewed_files_are_taken_up_once(
    secret: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = Renewal(secret, [])

    assert renewal.fetch() is not None
    assert renewal.fetch() is None
    authority.issue(secret, "renewed")
    assert renewal.fetch() is not None
    assert renewal.fetch() is None
    assert not caplog.records  # nothing at warning or above


def test_broken_renewals_are_said_once_and_the_last_good_ones_stay(
    secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = Renewal(secret, [])
    renewal.fetch()

    (secret / "tls.crt").write_text("rubbish")
    assert renewal.fetch() is None
    assert renewal.fetch() is None
    assert [record.getMessage() for record in caplog.records] == ["certificates unreadable"]

    for name in FILES:
        (secret / name).unlink()
    assert renewal.fetch() is None
    assert len(caplog.records) == 2
