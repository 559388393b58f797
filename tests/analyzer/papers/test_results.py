"""`kvt results`: the report's numbers in every format, and texts from outside that stay texts."""

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from analyzer import open_group
from analyzer.papers.result_tables import KINDS, sweep_tables
from analyzer.papers.stored_tables import stored_tables
from analyzer.papers.table_files import TableOrder
from analyzer.papers.table_formats import as_csv, as_markdown, in_latex
from analyzer.report import report_tables
from kvt_async.cli import app
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from tests.analyzer.bench_rows import GROUP, Load, steady, write_bench
from tests.analyzer.suite_cases import TASKS, suite_of


def kvt(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_stored_drop_and_accuracy_is_there_with_its_interval(swept: Path) -> None:
    tables = json.loads(kvt("results", swept, "--format", "json").output)["tables"]
    stored = open_group(swept)
    rows = {(row["series"], row["kv_budget"], row["repeat_idx"]): row for row in tables["drops"]}
    assert len(rows) == 5, "two budgets of two series, and the A/A control"
    for drop in stored.drops:
        if drop.bin_idx == -1:
            row = rows[drop.series, drop.kv_budget, drop.repeat_idx]
            told = [row[name] for name in ("drop_mean", "drop_ci_low", "drop_ci_high", "p_safe", "p_loss")]
            assert told == [drop.drop_mean, drop.drop_ci_low, drop.drop_ci_high, drop.p_safe, drop.p_loss]
    assert len(tables["accuracy"]) == len(stored.runs)
    assert len(tables["bins"]) == len(stored.runs) * len(stored.bins)
    assert {row["verdict_text"] for row in tables["verdicts"]} == {verdict.verdict_text for verdict in stored.verdicts}
    assert all(row["kv_bytes_p50"] for row in tables["cost"])


def test_numbers_are_written_as_the_report_writes_them(swept: Path) -> None:
    screen = kvt("results", swept, "--what", "accuracy").output
    levels = report_tables.levels(open_group(swept))
    at = levels.head.index("Accuracy [95% CI]")
    assert all(row[at] in screen for row in levels.rows)


def test_a_csv_is_one_table_and_no_cell_of_it_is_a_formula(swept: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(kvt("results", swept, "--format", "csv").output)))
    assert {row["table"] for row in rows} == set(KINDS)
    assert "'=b&c" in {row["series"] for row in rows}
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    text, guarded = as_csv([{"a": "=1+1", "b": -0.5, "c": "-0.5", "d": "@SUM(A1)", "e": None}])
    assert text == "a,b,c,d,e\n'=1+1,-0.5,-0.5,'@SUM(A1),\n"
    assert guarded == 2


def test_latex_takes_every_text_as_a_text(swept: Path, tmp_path: Path) -> None:
    out = tmp_path / "drops.tex"
    done = kvt(
        "results", swept, "--what", "drops", "--out", out, "--caption", "Loss, \\emph{paired}.", "--label", "t:x"
    )
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    for part in ("\\toprule", "\\caption{Loss, \\emph{paired}.}", "\\label{t:x}", "a\\_1 &", "=b\\&c &"):
        assert part in text
    head = next(line for line in text.splitlines() if line.startswith("Series"))
    assert all(line.count(" & ") == head.count(" & ") for line in text.splitlines() if line.startswith("a\\_1"))
    assert in_latex("[50%] \\input{x} − $1\n<_^~>") == (
        "{[}50\\%{]} \\textbackslash{}input\\{x\\} $-$ \\$1 \\textless{}\\_\\textasciicircum{}\\textasciitilde{}"
        "\\textgreater{}"
    )


def test_markdown_holds_no_markup_of_the_data(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, {"<img src=x>|*a*": TASKS["vt"], "b": TASKS["vt"]})
    table = sweep_tables(suite, load_settings(None, (), environ={}), "accuracy", None)[0]
    lines = as_markdown(table)
    assert any("&lt;img src=x>\\|\\*a\\*" in line for line in lines)
    assert not any("<img" in line for line in lines)


def test_a_suite_has_the_mean_over_tasks_and_every_task(tmp_path: Path) -> None:
    suite, settings = suite_of(tmp_path), load_settings(None, (), environ={})
    drops, verdicts = (sweep_tables(suite, settings, what, None)[0] for what in ("drops", "verdicts"))
    means = {row["kv_budget"]: row["drop_mean"] for row in drops.rows if row["task"] == "mean over tasks"}
    assert means == {0.5: 0.01, 0.2: 0.3, 1.0: 0.0}
    assert {row["task"] for row in drops.rows} == {"mean over tasks", *TASKS}
    assert verdicts.rows[0]["task"] == "all tasks"
    assert verdicts.rows[0]["safe_budget"] == 0.5
    assert {row["task"] for row in sweep_tables(suite, settings, "drops", "vt")[0].rows} == {"vt"}


def test_a_bench_has_rates_and_percentiles_with_their_intervals(tmp_path: Path) -> None:
    db = tmp_path / "kv_transition.sqlite"
    write_bench(db, [Load(steady(40))]).close()
    settings = load_settings(None, (f"db.path={db}", f"experiment.exp_group_id={GROUP}"), environ={})
    rows = stored_tables(settings, TableOrder(format="json")).json()["tables"]["loads"]
    assert {"requests_per_s_low", "ttft_p99_s_high", "tpot_p50_s", "latency_p99_s"} <= rows[0].keys()
    screen = stored_tables(settings, TableOrder()).text
    assert "TTFT" in screen
    assert "0 of 40 requests failed" in screen, "how far the figures hold"
    assert stored_tables(settings, TableOrder(format="csv")).text.count("\n") == 2, "a head and a load"
    with pytest.raises(ConfigError, match="no table 'drops'"):
        stored_tables(settings, TableOrder("drops"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--what", "losses"), "no table 'losses'"),
        (("--format", "xlsx"), "no format 'xlsx'"),
        (("--caption", "x"), "LaTeX's"),
        (("--task", "other"), "no task 'other'"),
        (("--what", "loads"), "no table 'loads'"),
    ],
)
def test_what_is_not_there_is_refused_in_words(swept: Path, words: tuple[str, ...], says: str) -> None:
    assert says in str(kvt("results", swept, *words).exception)
