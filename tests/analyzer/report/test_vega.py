"""The page's JavaScript is put together once a user, and does without a cache folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from analyzer.report.vega import vega


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    vega.cache_clear()
    yield
    vega.cache_clear()


def test_it_is_kept_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = vega()
    (kept,) = (tmp_path / "kvt").iterdir()
    assert "vegaEmbed" in text
    assert "</script" not in text
    assert kept.read_text(encoding="utf-8") == text
    kept.write_text("kept", encoding="utf-8")
    vega.cache_clear()
    assert vega() == "kept"


def test_a_cache_folder_that_cannot_be_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "vegaEmbed" in vega()
