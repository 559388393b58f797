"""Runs that other tools made become a group whose means are the tools' own, and whose verdict says what isn't known.

The files in golden/ were written by lm-eval 0.4.13 and inspect 0.3.285 (converted by every-eval-ever 0.3.0), which
asked `kvt serve` ten questions at full cache and at 0.2; lm-eval's results are cut to the fields that are read.
"""

import json
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from analyzer.stages import every_stage, verify_stage
from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError, ContractMismatchError
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.vocabulary import Unit
from kvt_async.import_command import Terms, imported
from kvt_async.imports.foreign_log import LogChoice
from kvt_async.imports.lm_eval_samples import read

GOLDEN = Path(__file__).parent / "golden"
FIRST, MATCH = LogChoice(filter="first"), LogChoice(metric="match:accuracy")


def take(folder: Path, *levels: str, wanted: LogChoice = FIRST, group: str = "g") -> dict[str, Any]:
    return imported(levels, group, wanted, Terms(Unit.FRACTION, None, str(folder)))


def rows(folder: Path, sql: str, group: str = "g") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / group / DB_NAME)) as conn:
        return conn.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("kind", "wanted", "n", "tool"),
    [
        ("lm_eval", FIRST, 10, "lm-eval 0.4.13"),
        ("eee", MATCH, 20, "Every Eval Ever 0.3.0 from inspect inspect_ai:0.3.285"),
    ],
)
def test_pairs_and_means_are_the_tools_own_and_the_verdict_says_what_it_rests_on(
    tmp_path: Path, kind: str, wanted: LogChoice, n: int, tool: str
) -> None:
    facts = take(tmp_path, f"full={GOLDEN}/{kind}_full", f"0.2={GOLDEN}/{kind}_low", wanted=wanted)
    assert [(run["mean"], run["own_mean"], run["n"]) for run in facts["runs"]] == [(1.0, 1.0, n), (0.4, 0.4, n)]
    assert all(run["agrees"] for run in facts["runs"])

    settings = stored_settings(tmp_path / "g", ["analysis.resamples=100", "analysis.charts=false"])
    said = every_stage(settings)
    lines = " ".join(said.lines)
    assert "the budget was only configured; nothing shows that the server applied it" in lines
    assert "A/A control: not run" in lines
    pairs = rows(tmp_path, "SELECT score_full, score_here, count(*) FROM paired_scores GROUP BY 1, 2 ORDER BY 2")
    assert pairs == [(1.0, 0.0, n * 6 // 10), (1.0, 1.0, n * 4 // 10)]
    report = (tmp_path / "g" / "report.md").read_text()
    assert f"Imported from {tool}, which gave the scores" in report
    assert verify_stage(settings).exit_code == 0


def test_the_same_files_again_change_nothing_and_a_level_can_be_added(tmp_path: Path) -> None:
    levels = (f"full={GOLDEN}/lm_eval_full", f"0.2={GOLDEN}/lm_eval_low")
    take(tmp_path, *levels)
    counts = "SELECT (SELECT count(*) FROM responses), (SELECT count(*) FROM runs), (SELECT count(*) FROM examples)"
    before = rows(tmp_path, counts)
    assert [run["is_new"] for run in take(tmp_path, *levels)["runs"]] == [False, False]
    assert rows(tmp_path, counts) == before
    added = take(tmp_path, levels[0], f"full#1={GOLDEN}/lm_eval_full")
    assert [(run["level"], run["is_new"]) for run in added["runs"]][1] == ("full cache (A/A 1)", True) or added["runs"][
        1
    ]["is_new"]
    assert rows(tmp_path, "SELECT count(*) FROM runs") == [(3,)]


def test_another_file_in_the_place_of_a_level_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    take(tmp_path, f"full={GOLDEN}/lm_eval_full", f"0.2={GOLDEN}/lm_eval_low")
    before = rows(tmp_path, "SELECT count(*) FROM sessions")
    with pytest.raises(ContractMismatchError, match="imported from a file with other answers"):
        take(tmp_path, f"full={GOLDEN}/lm_eval_full", f"0.2={GOLDEN}/lm_eval_full")
    with pytest.raises(ContractMismatchError, match="holds other data"):
        take(tmp_path, f"full={GOLDEN}/eee_full", f"0.2={GOLDEN}/eee_low", wanted=MATCH)
    assert rows(tmp_path, "SELECT count(*) FROM sessions") == before


def test_examples_that_one_file_lacks_are_left_out_of_all_and_said(tmp_path: Path) -> None:
    short = tmp_path / "samples_needle_2026-01-01T00-00-00.0.jsonl"
    (whole,) = (GOLDEN / "lm_eval_low").glob("samples*")
    short.write_text("".join(line for line in whole.open() if json.loads(line)["doc_id"] != 3))
    facts = take(tmp_path, f"full={GOLDEN}/lm_eval_full", f"0.2={short}")
    assert [run["n"] for run in facts["runs"]] == [9, 9]
    assert facts["runs"][0]["own_mean"] is None, "the tool's mean is one over all"
    assert "1 of 10 examples are not in all files" in facts["notes"][0]


def test_another_question_under_the_same_number_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "samples_needle_2026-01-01T00-00-00.0.jsonl"
    (whole,) = (GOLDEN / "lm_eval_low").glob("samples*")
    other.write_text(whole.read_text().replace("what is the code", "what was the code"))
    with pytest.raises(ConfigError, match="is another question than in"):
        take(tmp_path, f"full={GOLDEN}/lm_eval_full", f"0.2={other}")


def test_a_sample_that_failed_there_scores_0_and_is_counted(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "eee_low", tmp_path / "low")
    file = tmp_path / "low" / "needle_samples.jsonl"
    records = [json.loads(line) for line in file.open()]
    for record in records:
        if record["sample_id"] == "n0":
            record |= {"error": "the server went away", "evaluation": {"score": 0.0, "is_correct": False}}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    facts = take(tmp_path, f"full={GOLDEN}/eee_full", f"0.2={tmp_path}/low", wanted=MATCH)
    assert facts["runs"][1]["n_failed"] == 2
    assert rows(tmp_path, "SELECT count(*), min(error_type) FROM failures") == [(2, "StreamError")]


@pytest.mark.parametrize(
    ("levels", "wanted", "words"),
    [
        ((f"0.2={GOLDEN}/lm_eval_low",), FIRST, "full cache is missing"),
        ((f"full={GOLDEN}/lm_eval_full", f"2={GOLDEN}/lm_eval_low"), FIRST, "2 is no fraction of the cache"),
        ((f"full={GOLDEN}/lm_eval_full", f"0.2#1={GOLDEN}/lm_eval_low"), FIRST, "only that is repeated"),
        ((f"full={GOLDEN}/lm_eval_full", f"1.0={GOLDEN}/lm_eval_low"), FIRST, "is given twice"),
        (("full",), FIRST, "is no level and its file"),
        (("full=nowhere",), FIRST, "no such file"),
        ((f"full={GOLDEN}/lm_eval_full",), LogChoice(), "2 filters"),
        ((f"full={GOLDEN}/eee_full",), LogChoice(), "2 metrics"),
        ((f"full={GOLDEN}/lm_eval_full",), LogChoice(filter="none"), "no filter 'none'"),
        ((f"full={GOLDEN}/lm_eval_full",), LogChoice(task="mmlu", filter="first"), "the task mmlu is not here"),
        ((f"full={GOLDEN}",), FIRST, "2 metrics"),
        ((f"full={__file__}",), FIRST, "not valid JSON"),
    ],
)
def test_what_can_not_be_taken_is_refused_in_words(
    tmp_path: Path, levels: tuple[str, ...], wanted: LogChoice, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        take(tmp_path, *levels, wanted=wanted)
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("exact_match", 37.5, "is no number from 0 to 1"),
        ("exact_match", "yes", "is no number from 0 to 1"),
        ("metrics", "exact_match", "metrics is no list"),
        ("resps", ..., "without resps"),
    ],
)
def test_a_line_that_is_none_of_the_tools_is_named(tmp_path: Path, field: str, value: Any, words: str) -> None:
    (whole,) = (GOLDEN / "lm_eval_low").glob("samples*")
    lines = whole.read_text().splitlines()
    record = json.loads(lines[4])
    record.pop(field) if value is ... else record.update({field: value})
    odd = tmp_path / whole.name
    odd.write_text("\n".join([*lines[:4], json.dumps(record), *lines[5:]]))
    with pytest.raises(ConfigError, match=words) as refused:
        take(tmp_path, f"full={odd}", wanted=LogChoice(filter=record["filter"]))
    assert f"{odd}:5" in str(refused.value)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["doc_id", "target", "arguments", "resps", "metrics", "filter", "exact_match", "doc"]),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=6,
        ),
    )
)
def test_any_line_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]) -> None:
    file = tmp_path_factory.mktemp("odd") / "samples_t_2026-01-01T00-00-00.0.jsonl"
    file.write_text(json.dumps(record))
    with suppress(ConfigError):
        for log in read(file, LogChoice()):
            for answer in log.answers():
                assert answer.score is not None
                assert 0 <= answer.score <= 1
