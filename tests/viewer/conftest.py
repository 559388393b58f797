"""Fixtures of the viewer's tests: a browser, and a folder of runs with a group whose answers are known."""

from pathlib import Path

import pytest

from analyzer.stages import every_stage
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import DB_NAME
from tests.analyzer.conftest import browser, playwright
from tests.analyzer.synthetic import make_db

__all__ = ["browser", "playwright", "runs_dir"]

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \x1b[31mred \u202eleft " + "W" * 20_000
)
GROUP = "answers"


@pytest.fixture(scope="package")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/answers: 60 examples in three bins at four levels and a repeat of full cache, scored and analysed; each
    level's first answer is hostile."""
    folder = tmp_path_factory.mktemp("view") / "runs"
    make_db(
        folder / GROUP / DB_NAME,
        exp_group_id=GROUP,
        n_bins=3,
        series=("snapkv/aware", "random"),
        said=(HOSTILE,),
        failures=0.05,
        tasks=({"task": "single_needle"},),  # its contract is then a fact, as a sweep leaves it
    )
    every_stage(
        load_settings(
            None,
            [
                f"experiment.exp_group_id={GROUP}",
                f"output.runs_dir={folder}",
                "analysis.charts=false",
                "analysis.resamples=200",
            ],
            environ={},
        )
    )
    return folder
