"""One name, one number: terminal, report.md, report.html, JSON, compare and check say the same of one sweep."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from typer.testing import CliRunner

from analyzer.cli import app
from kvt_async.contract.load import dump_yaml, load_settings
from tests.analyzer.synthetic import make_db

COLUMNS = {  # of the table of levels: figure in JSON, how it is printed
    "Accuracy [95% CI]": ("acc_mean", "acc_ci_low", "acc_ci_high"),
    "Loss against full [95% CI]": ("drop_mean", "drop_ci_low", "drop_ci_high"),
}


class Tables(HTMLParser):
    """Every table of a page as rows of cells, by caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._caption, self._in = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")
        self._in = tag if tag in ("th", "td", "caption") else self._in

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption] = self._rows
        if tag == self._in:
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("th", "td"):
            self._rows[-1][-1] += data
        if self._in == "caption":
            self._caption += data


def markdown_table(text: str, first: str) -> list[list[str]]:
    """The table whose head begins with `first`."""
    lines = text[text.index(f"| {first} |") :].split("\n\n", maxsplit=1)[0].splitlines()
    return [
        [cell.strip().replace("\\|", "|") for cell in line.strip("| ").split(" | ")]
        for line in lines
        if "---" not in line
    ]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that each place says of one sweep with two series, failures and bins of unequal size."""
    folder = tmp_path_factory.mktemp("one_number")
    run_dir = folder / "runs" / "synthetic"
    run_dir.mkdir(parents=True)
    make_db(
        run_dir / "kv_transition.sqlite", bin_sizes=(20, 60, 120), series=("snapkv/aware", "random/aware"),
        failures=lambda series, budget, bin_idx: 0.05 if budget == 0.2 else 0.0, flips=0.02,
    )  # fmt: skip
    settings = load_settings(
        None,
        [
            "experiment.exp_group_id=synthetic", f"output.runs_dir={folder / 'runs'}", "analysis.charts=false",
            "check=[{name: f, kind: max_fail_rate, budget: 0.2, series: snapkv/aware, value: 0.5},"
            "{name: a, kind: min_accuracy, budget: 0.2, series: snapkv/aware, value: 0.0}]",
        ],
        environ={},
    )  # fmt: skip
    config = folder / "group.yaml"
    config.write_text(dump_yaml(settings), encoding="utf-8")

    def kvt(*words: str) -> str:
        done = CliRunner().invoke(app, [*words])
        assert done.exit_code == 0, done.output
        return done.stdout

    found = {"json": json.loads(kvt("all", "-c", str(config), "--json")), "terminal": kvt("all", "-c", str(config))}
    found["check"] = kvt("check", "-c", str(config))
    found["compare"] = json.loads(kvt("compare", str(run_dir), str(run_dir), "--json"))
    found["compare_lines"] = kvt("compare", str(run_dir), str(run_dir))
    found["md"] = (run_dir / "report.md").read_text("utf-8")
    found["html"] = Tables((run_dir / "report.html").read_text("utf-8")).tables
    found["page"] = (run_dir / "report.html").read_text("utf-8")
    return found


def printed(value: float | None) -> str:
    text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def levels(said: dict[str, Any]) -> list[dict[str, Any]]:
    return list(said["json"]["results"]["levels"])


def test_every_level_has_the_same_figures_in_both_reports_and_in_json(said: dict[str, Any]) -> None:
    md, html = markdown_table(said["md"], "Series | Budget asked"), said["html"]["Every level over all lengths"]
    assert md == html
    head = md[0]
    assert len(md) == 1 + len(levels(said))
    for row, level in zip(md[1:], levels(said), strict=True):
        cells = dict(zip(head, row, strict=True))
        for column, names in COLUMNS.items():
            values = [level[name] for name in names]
            want = "–" if values[0] is None else f"{printed(values[0])} [{printed(values[1])}, {printed(values[2])}]"
            assert cells[column] == want, (level["run_id"], column)
        assert cells["Worse / better pairs"] in (f"{level['n_worse']} / {level['n_better']}", "–")
        rate = 100 * level["fail_rate"]
        assert cells["Failed"] == ("0%" if not rate else f"{rate:.1f}%")
        assert cells["Evidence"] == level["evidence"]


def test_the_verdict_is_one_in_terminal_reports_and_json(said: dict[str, Any]) -> None:
    headline = said["json"]["results"]["headline"]
    assert " ".join(headline.split()) in " ".join(said["terminal"].split())
    assert headline in said["md"]
    assert headline in said["page"].replace("&#39;", "'").replace("&#34;", '"')
    assert said["json"]["verdict"] == [
        line for line in said["terminal"].splitlines() if line in said["json"]["verdict"]
    ]
    md, html = markdown_table(said["md"], "Series | Verdict"), said["html"]["Over all lengths"]
    assert md == html
    for row, series in zip(md[1:], said["json"]["results"]["series"], strict=True):
        cells = dict(zip(md[0], row, strict=True))
        safe = series["safe_budget"]
        assert cells["Series"] == series["series"]
        assert cells["Safe budget"] == ("none proven" if safe in (None, 1.0) else f"{100 * safe:g}%")
        assert cells["Pairs"] == f"{series['n']:,}"
        assert cells["Evidence"] == series["evidence"]
        broken = series["zone_low"]
        assert cells["Transition zone"].endswith("open below" if broken is None else f"{100 * broken:g}%")
    first = said["json"]["results"]["series"][0]
    assert f"{100 * first['zone_low']:g}%" in headline


def test_compare_gives_the_accuracies_of_the_report(said: dict[str, Any]) -> None:
    by_level = {(one["series"], one["kv_budget"]): one for one in levels(said) if not one["repeat_idx"]}
    assert len(said["compare"]["levels"]) == len(by_level)
    for row in said["compare"]["levels"]:
        level = by_level[row["series"], row["kv_budget"]]
        assert row["acc_a"] == row["acc_b"] == pytest.approx(level["acc_mean"], abs=1e-9)
        assert row["n"] == level["n"]
        assert row["diff"] == row["acc_a"] - row["acc_b"] == 0
        line = f"{row['series']} {row['kv_budget']:g}: A {level['acc_mean']:.3f}, B {level['acc_mean']:.3f}"
        assert line in said["compare_lines"]


def test_check_judges_by_the_figures_of_the_report(said: dict[str, Any]) -> None:
    (level,) = [one for one in levels(said) if (one["series"], one["kv_budget"]) == ("snapkv/aware", 0.2)]
    assert level["n_failures"] > 0
    assert level["fail_rate"] == pytest.approx(level["n_failures"] / level["n"])
    assert f"highest failure rate {level['fail_rate']:.3f} " in said["check"]
    assert f"lowest accuracy {level['acc_mean']:.3f} " in said["check"]


def test_failures_are_counted_once_everywhere(said: dict[str, Any]) -> None:
    failed = sum(one["n_failures"] for one in levels(said))
    n = sum(one["n"] for one in levels(said))
    assert f"{failed:,} of {n:,} requests failed" in said["md"]
    assert f"{n - failed:,} responses + {failed:,} failures + 0 pending = {n:,} requests" in said["md"]
    rows = said["html"]["Failures and labels"]
    assert rows[1][:3] == ["all levels", f"{n:,}", f"{failed:,} ({100 * failed / n:.1f}%)"]
    assert re.search(rf"{failed:,} of {n:,}", said["page"])
