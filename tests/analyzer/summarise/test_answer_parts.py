"""What scores are made of: which instructions a budget loses, from stored answers to the page and `kvt show`."""

import json
import sqlite3
from typing import Any

import pytest

from analyzer.results.outcome_words import outcome_sentences, part_table
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.stats.outcome_changes import Change, adjusted
from analyzer.summarise.analyze import analyze
from analyzer.verbs.show import show
from kvt_async.contract.vocabulary import PART, Measure
from tests.analyzer.conftest import Experiment, Opened
from tests.analyzer.summarise.test_guessing_floor import changed, row_of

# Each example asks for its old gold as a keyword, and every second one for no comma beside it.
KEYWORD = "json_array('keywords:existence'{}), 'kwargs', json_array(json_object('keywords', json(answers_json)){})"
ASKED = f"""UPDATE examples SET answers_json = '[]', meta_json = CASE WHEN rowid % 2
    THEN json_object('instruction_id_list', {KEYWORD.format("", "")})
    ELSE json_object('instruction_id_list', {KEYWORD.format(", 'punctuation:no_comma'", ", json_object()")}) END"""
NO_COMMA = """UPDATE examples SET answers_json = '[]', meta_json = json_object(
    'instruction_id_list', json_array('punctuation:no_comma'), 'kwargs', json_array(json_object()))"""


def judged(experiment: Experiment, statement: str, **asked: Any) -> Opened:
    conn, settings = experiment(**{"metric": "ifeval_strict", "n_bins": 1, "n_per_bin": 60} | asked)
    changed(conn, statement)
    score(conn, "synthetic")
    analyze(conn, settings)
    return conn, settings


def rows(conn: sqlite3.Connection, budget: float) -> dict[str, Any]:
    found = conn.execute("SELECT * FROM outcome_changes WHERE kv_budget = ? AND repeat_idx = 0", (budget,))
    return {row["measure"].removeprefix(PART): row for row in found if row["measure"].startswith(PART)}


def test_an_instruction_that_is_lost_is_told_from_one_that_is_kept(experiment: Experiment) -> None:
    conn, _ = judged(experiment, ASKED, p_correct={1.0: 1.0, 0.5: 1.0, 0.2: 0.3})
    lost, kept = (rows(conn, 0.2)[name] for name in ("keywords:existence", "punctuation:no_comma"))
    assert (lost["n"], lost["full_value"]) == (60, 1.0)
    assert lost["value"] < 0.6
    assert lost["p_holm"] < 0.001
    assert (kept["n"], kept["full_value"], kept["value"], kept["p_holm"]) == (30, 1.0, 1.0, None)
    several = [rows(conn, 0.2)[f"all of {words}"] for words in ("1 instruction", "2 instructions")]
    assert [row["n"] for row in several] == [30, 30]
    assert sum(row["value"] for row in several) / 2 == pytest.approx(lost["value"])


def test_the_page_names_what_is_lost_and_puts_it_first(experiment: Experiment) -> None:
    conn, settings = judged(experiment, ASKED, p_correct={1.0: 1.0, 0.5: 1.0, 0.2: 0.3})
    results = read_results(conn, "synthetic")
    table = part_table(results, settings.analysis.alpha)
    assert [row[0] for row in table.rows][:2] == ["keywords:existence", "punctuation:no_comma"]
    assert [row[0] for row in table.rows][2:] == ["all of 1 instruction", "all of 2 instructions"]
    assert table.head == ("Part of the score", "Series", "Pairs", "Full cache", "0.5", "0.2", "A/A 1")
    first = dict(zip(table.head, table.rows[0], strict=True))
    assert (first["Series"], first["Full cache"], first["A/A 1"]) == ("snapkv/aware", "100%", "100% [−6, +6]")
    assert first["0.2"].endswith("*")
    said = [line for line in outcome_sentences(results, 0.05) if "lose" in line]
    assert len(said) == 1
    assert said[0].startswith("With 20% of the cache kept, answers lose keywords:existence (100% → ")


def test_a_task_whose_metric_names_no_parts_has_none(experiment: Experiment) -> None:
    conn, settings = experiment(n_bins=1)
    score(conn, "synthetic")
    analyze(conn, settings)
    assert rows(conn, 0.2) == {}
    assert part_table(read_results(conn, "synthetic"), 0.05).rows == ()


def test_a_failed_request_tells_nothing_of_instructions(experiment: Experiment) -> None:
    conn, _ = judged(experiment, ASKED, p_correct=1.0, failures={1.0: 0.0, 0.5: 0.0, 0.2: 0.5})
    row = rows(conn, 0.2)["keywords:existence"]
    assert 0 < row["n"] < 60
    assert row["value"] == 1.0


def test_many_parts_take_nothing_from_what_else_changes() -> None:
    tokens = Change(Measure.TOKENS, 9, 1.0, 2.0, 2.0, p=0.03)
    parts = [Change(f"{PART}{n}", 9, 1.0, 0.5, -0.5, p=0.01) for n in range(4)]
    assert adjusted([tokens, *parts]) == [0.03, 0.04, 0.04, 0.04, 0.04]


def test_the_floor_is_what_answers_follow_of_another_examples_instructions(experiment: Experiment) -> None:
    conn, _ = judged(experiment, ASKED, p_correct=1.0)
    assert json.loads(row_of(conn)["zone_json"])["floor"]["floor"] < 0.2
    conn, _ = judged(experiment, NO_COMMA, p_correct=1.0)
    assert json.loads(row_of(conn)["zone_json"])["floor"]["floor"] == 1.0
    assert row_of(conn)["verdict"] == "nothing_to_lose"


def test_show_tells_what_an_example_asks_and_what_an_answer_missed(experiment: Experiment) -> None:
    conn, settings = judged(experiment, ASKED, p_correct={1.0: 1.0, 0.5: 1.0, 0.2: 0.0})
    lines = show(conn, settings, "ex-000001").lines
    text = "\n".join(lines)
    assert 'instruction_id_list: ["keywords:existence", "punctuation:no_comma"]' in text
    assert "golds:" not in text
    missed = [line.split()[0] for line in lines if "not right: keywords:existence" in line]
    assert missed == ["snapkv/aware"]
