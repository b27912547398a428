from pathlib import Path

import pytest

from common import buildinfo


def test_a_stamp_is_a_commit_and_a_date(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("26c957e-dirty 2025-03-23T14:03:35Z\n")

    assert buildinfo._stamp(tmp_path / "build") == ("26c957e-dirty", "2025-03-23T14:03:35Z")


@pytest.mark.parametrize("content", [None, "", "26c957e", "a b c"])
def test_without_a_stamp_nothing_is_known(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "build").write_text(content)

    assert buildinfo._stamp(tmp_path / "build") == ("unknown", "unknown")


def test_a_build_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildinfo, "COMMIT_HASH", "26c957e")
    monkeypatch.setattr(buildinfo, "BUILD_DATE", "2025-03-23T14:03:35Z")

    said = buildinfo.describe("corectl")

    assert said == f"corectl {buildinfo.VERSION}, commit 26c957e, built 2025-03-23T14:03:35Z"
