"""One name, one number: everything that a bench prints of a figure is read, and is equal."""

import json
import math
import re
from contextlib import closing
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.comparison import compare
from analyzer.bench.report.numbers import ms, plain
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.contract.schema import connect_for_reading
from kvt_async.store.reader import Reader
from tests.analyzer.bench_rows import GROUP, Load, Sent, group

RATES = {1: 19, 2: 28, 4: 120}  # requests of each repeat
TIMES = [("TTFT", "ttft"), ("TPOT", "tpot"), ("latency", "latency")]


def loads() -> list[Load]:
    """Three rates, three repeats each, no two of which have equal figures; failures at the highest rate alone."""
    return [
        Load([Sent(i * 1000 / rate, ttft_ms=40 + (i * 7 + repeat * 31) % 97, itl_ms=5 + i % 3 + repeat,
                   failed=rate == 4 and i % 9 == 5) for i in range(n)],
             label=f"rate {rate}/s", rate=rate, repeat=repeat, slo={"ttft_p99_ms": 130})
        for repeat in range(3) for rate, n in RATES.items()
    ]  # fmt: skip


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    found = bench_stages(group(folder, *loads()))
    return {**found, "folder": folder / f"runs/{GROUP}"}


class Tables(HTMLParser):
    """Rows of every table of a page, by the text of its caption or of its first head."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tables: list[list[list[str]]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data


def of_markdown(text: str) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            tables.append([])
        elif not set(line) <= set("|-: "):
            tables[-1].append([unescape(cell.strip()).replace("\\", "") for cell in line.strip("|").split(" | ")])
    return [table for table in tables if table]


def cells(tables: list[list[list[str]]], *heads: str) -> dict[tuple[str, str], dict[str, str]]:
    """(load, metric or objective) -> head -> cell, of the table that has these heads."""
    (table,) = [table for table in tables if set(heads) <= {head.strip() for head in table[0]}]
    names = [head.strip() for head in table[0]]
    return {
        (row[0].strip(), row[1].strip()): dict(zip(names, (c.strip() for c in row), strict=True)) for row in table[1:]
    }


def value(cell: str) -> str:
    """Without its interval."""
    return re.sub(r" \[.*", "", cell)


def terminal(answer: dict[str, Any]) -> dict[str, list[str]]:
    lines = answer["lines"][: answer["lines"].index("")]
    return {" ".join(line.split()[:2]): line.split()[2:] for line in lines if line.startswith("rate")}


@pytest.mark.parametrize("kind", ["md", "html"])
def test_a_time_is_the_same_in_the_terminal_both_reports_and_json(answer: dict[str, Any], kind: str) -> None:
    text = Path(answer[f"report_{kind}"]).read_text(encoding="utf-8")
    tables = of_markdown(text) if kind == "md" else Tables(text).tables
    latency = cells(tables, "Metric", "p99", "Max")
    seen = terminal(answer)
    for point in answer["points"]:
        load = point["load"]
        for column, (title, metric) in enumerate(TIMES):
            row = latency[load, title]
            for n, stat in enumerate(("p50", "p99")):
                figure = ms(point["figures"][f"{metric}_{stat}_s"]["value"])
                assert seen[load][2 + 2 * column + n] == value(row[stat]) == figure, (load, metric, stat)
            assert value(row["Max"]) == ms(point["figures"][f"{metric}_max_s"]["value"])
            with_failures = point["with_failures"][f"{metric}_p99_s"]
            assert row["p99, failures = inf"] == ms(math.inf if with_failures is None else with_failures)
            assert row["p99 of each repeat"] == ", ".join(map(ms, point["figures"][f"{metric}_p99_s"]["repeats"]))
            assert float(point["figures"][f"{metric}_max_s"]["value"]) >= point["figures"][f"{metric}_p99_s"]["value"]


@pytest.mark.parametrize("kind", ["md", "html"])
def test_rates_counts_and_objectives_are_the_same_too(answer: dict[str, Any], kind: str) -> None:
    text = Path(answer[f"report_{kind}"]).read_text(encoding="utf-8")
    tables = of_markdown(text) if kind == "md" else Tables(text).tables
    rates = {load: row for (load, _), row in cells(tables, "Done/s", "Output tok/s").items()}
    objectives = cells(tables, "Objective", "Verdict")
    seen = terminal(answer)
    for point in answer["points"]:
        load, row = point["load"], rates[point["load"]]
        figures = point["figures"]
        assert seen[load][0] == value(row["Done/s"]) == plain(figures["requests_per_s"]["value"])
        assert seen[load][1] == value(row["Output tok/s"]) == plain(figures["output_tokens_per_s"]["value"])
        assert seen[load][8] == f"{point['n_failed']}/{point['n_started']}"
        assert row["Answered"] == f"{point['n_started'] - point['n_failed']} of {point['n_started']}"
        assert seen[load][9] == row["In SLO"]
        (asked,) = point["objectives"]
        told = objectives[load, "TTFT p99 <= 130 ms"]
        with_failures = point["with_failures"]["ttft_p99_s"]
        assert asked["seen_s"] == with_failures
        assert told["Seen, ms, failures = inf"] == ms(math.inf if with_failures is None else with_failures)
        assert told["Verdict"] == asked["verdict"]


def test_compare_shows_each_groups_own_figures_and_their_difference(answer: dict[str, Any], tmp_path: Path) -> None:
    group(tmp_path, *(Load([Sent(s.due_ms, s.ttft_ms + 11, s.itl_ms, failed=s.failed) for s in load.sent],
                           label=load.label, rate=load.rate, repeat=load.repeat) for load in loads()))  # fmt: skip
    found = compare(str(answer["folder"]), str(tmp_path / f"runs/{GROUP}"))
    figures = {
        (point["load"], name): one["value"] for point in answer["points"] for name, one in point["figures"].items()
    }
    assert len(found["differences"]) == 7 * len(RATES)
    for row in found["differences"]:
        assert row["a"] == figures[row["load"], row["name"]]
        assert row["change"] == pytest.approx(row["b"] - row["a"])
        if row["low"] is not None:  # None: the repeats of both are all alike
            assert row["low"] <= row["change"] <= row["high"]


def test_the_database_and_the_line_of_each_stage_have_the_same_numbers(answer: dict[str, Any]) -> None:
    db = answer["folder"] / "kv_transition.sqlite"
    with closing(connect_for_reading(db)) as conn:
        stored = {load: json.loads(text) for load, text in conn.execute("SELECT load, figures_json FROM bench_points")}
        stages = conn.execute("SELECT run_id, load, repeat_idx, rate_per_s FROM bench_stages JOIN runs USING (run_id)")
        runs = stages.fetchall()
    assert stored == {point["load"]: point["figures"] for point in answer["points"]}
    with closing(Reader(db)) as reader:
        for run_id, load, repeat, rate in runs:
            own = stage_figures(reader, run_id, rate)
            for metric in ("ttft", "tpot", "latency"):
                each = stored[load][f"{metric}_p99_s"]["repeats"][repeat]
                assert own.value(f"{metric}_p99_s", of_answered=True) == pytest.approx(each, rel=1e-9)


def test_the_verdict_of_one_load_says_the_same_as_its_table(tmp_path: Path) -> None:
    found = bench_stages(group(tmp_path, *(load for load in loads() if load.rate == 4)))
    (point,) = found["points"]
    p99 = ms(point["figures"]["ttft_p99_s"]["value"])
    assert f"p99 {p99} ms" in found["verdict"][0]
    assert "(with failures = inf: p50" in found["verdict"][0]
    lost = f"{point['n_failed']} of {point['n_started']} failed or gave no token"
    assert f"TTFT p99 <= 130 ms is missed (inf seen with failures = inf; {lost})" in found["verdict"][0]
    assert terminal(found)["rate 4/s"][3] == p99
