"""Several tasks through every stage: one report, one verdict, pictures over the tasks and of each."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from analyzer.cli import app
from kvt_async.contract.load import dump_yaml, load_settings
from tests.analyzer.summarise.test_suite_rows import CALM, NIAH
from tests.analyzer.synthetic import make_db


def test_a_group_of_several_tasks_ends_in_one_report_with_pictures_of_each(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "synthetic"
    run_dir.mkdir(parents=True)
    make_db(run_dir / "kv_transition.sqlite", tasks=(NIAH, CALM), n_bins=2, n_per_bin=60)
    settings = load_settings(
        None, ["experiment.exp_group_id=synthetic", f"output.runs_dir={tmp_path / 'runs'}", "analysis.resamples=100"],
        environ={},
    )  # fmt: skip
    config = tmp_path / "group.yaml"
    config.write_text(dump_yaml(settings), encoding="utf-8")

    def kvt(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "-c", str(config)])
        assert done.exit_code == 0, done.output
        return done.stdout

    said = json.loads(kvt("all", "--json"))
    headline = said["results"]["headline"]
    assert headline.startswith("SnapKV (sees the question): safe on average over 2 tasks down to 50% of the cache kept")
    assert "; niah breaks first, from 20% down" in headline
    text = (run_dir / "report.md").read_text("utf-8")
    assert f"> **{headline}**" in text
    assert " ".join(headline.split()) in " ".join(kvt("all").split())
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 2 + 2 * 2
    assert all((run_dir / picture).is_file() for picture in pictures)
    before = {file: file.stat().st_mtime_ns for file in (run_dir / "plots").rglob("*.png")}
    again = kvt("analyze")
    assert "nothing had changed" in again
    assert "6 charts" in again
    assert before == {file: file.stat().st_mtime_ns for file in (run_dir / "plots").rglob("*.png")}
