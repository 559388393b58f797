"""A small group that was swept, and its analysis."""

from pathlib import Path

import pytest

from analyzer import stages
from kvt_async.contract.load import load_settings
from tests.analyzer.synthetic import make_db


@pytest.fixture(scope="package")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; the second series' name is what a spreadsheet would compute."""
    place = tmp_path_factory.mktemp("papers") / "runs" / "demo"
    make_db(place / "kv_transition.sqlite", n_bins=2, n_per_bin=12, exp_group_id="demo", series=("a_1", "=b&c"))
    given = ("experiment.exp_group_id=demo", f"output.runs_dir={place.parent}", "analysis.resamples=100")
    settings = load_settings(None, (*given, "analysis.charts=false"), environ={})
    stages.score_stage(settings)
    stages.analyze_stage(settings)
    return place
