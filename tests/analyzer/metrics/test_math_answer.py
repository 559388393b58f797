"""Mathematical answers are scored as the official code scores them, whatever they are, and nothing hangs."""

import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.fast.row_scorer import score_slice
from analyzer.metrics.math_answer import in_the_box, last_number, marked_number, stated_letter
from analyzer.metrics.math_process import MathProcess
from analyzer.metrics.single import as_answer, scorer
from kvt_async.contract.errors import ConfigError, FailureLabel
from kvt_async.contract.formulas.metric_needs import check_installed, is_installed
from tests.analyzer.scoring.test_score import one
from tests.worlds import metric_of

GOLDEN = Path(__file__).parents[1] / "golden"
MATH = pytest.mark.skipif(not is_installed("math_verify"), reason="needs the extra math")
NEVER = r"\boxed{10^{10^{10}} - 1}"  # Python computes it in one go that no signal handler interrupts


def pairs(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def process() -> Any:
    process = MathProcess()
    yield process
    process.close()


def different(metric: str, name: str, key: str) -> list[dict[str, Any]]:
    """The stored pairs that a metric scores otherwise than the official code."""
    score = scorer(metric)
    return [row for row in pairs(name) if score(row["prediction"], (row["gold"],), {}) != row[key]]


@MATH
def test_math_verify_scores_every_pair_as_the_library_does_by_itself() -> None:
    assert different("math_verify", "math_verify", "score") == []


@pytest.mark.parametrize("metric", ["gsm8k_number", "gsm8k_strict"])
def test_numbers_are_read_as_the_harness_reads_them(metric: str) -> None:
    assert different(metric, "gsm8k", metric) == []


@pytest.mark.parametrize("metric", ["gsm8k_number", "gsm8k_strict"])
def test_a_number_without_an_end_takes_no_longer_than_its_length(metric: str) -> None:
    assert scorer(metric)("#### " + "9" * 400_000, ("72",), {}) == 0.0  # the square of it would be minutes


def test_letters_are_read_as_simple_evals_reads_them() -> None:
    assert different("gpqa_letter", "gpqa_letter", "score") == []


def test_the_stored_pairs_hold_right_and_wrong_answers() -> None:
    parts = [("math_verify", "score"), ("gsm8k", "gsm8k_number"), ("gsm8k", "gsm8k_strict"), ("gpqa_letter", "score")]
    for name, key in parts:
        scores = [row[key] for row in pairs(name)]
        assert 0.05 < sum(scores) / len(scores) < 0.9, name


@MATH
@pytest.mark.parametrize(
    "gold", ["7", "1,000", r"\frac{3}{4}", r"\text{north}", "p - q", "(3, 4)", r"\$36", "2516_8", "x \\in [-2,7]", "{"]
)
def test_a_gold_in_its_form_is_right_and_alone_it_may_be_none(gold: str) -> None:
    assert scorer("math_verify")(as_answer("math_verify", gold), (gold,), {}) == 1
    assert metric_of("gsm8k_strict").score(as_answer("gsm8k_strict", "18"), ["18"], {}) == 1
    assert metric_of("gpqa_letter").score(as_answer("gpqa_letter", "C"), ["C"], {}) == 1


@MATH
def test_the_best_gold_counts_and_reasoning_does_not() -> None:
    score = scorer("math_verify")
    assert score(r"\boxed{0.5}", ("2", r"\frac12"), {}) == 1
    assert score(r"<think>\boxed{2}</think>\boxed{3}", ("2",), {}) == 0
    assert score(r"<think>\boxed{3}</think>\boxed{2}", ("2",), {}) == 1


@MATH
@pytest.mark.parametrize("text", [NEVER, r"\boxed{9^{9^{9^{9}}}}", r"\boxed{" + "{" * 50_000 + "}" * 50_000 + "}"])
def test_what_can_t_be_computed_is_wrong_and_the_next_answer_is_scored(process: MathProcess, text: str) -> None:
    assert not process.equal(r"\boxed{5}", text, most_s=0.2)
    assert process.equal(r"\boxed{5}", r"\boxed{5}")


@MATH
def test_a_process_that_somebody_ended_is_started_again(process: MathProcess) -> None:
    assert process.equal("1", "1")
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert process.equal("1", "1")


@MATH
def test_a_process_that_was_closed_leaves_nothing(process: MathProcess) -> None:
    other = MathProcess()
    assert other.equal("1", "1")
    assert other._process is not None
    pid = other._process.pid
    other.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@MATH
def test_threads_and_processes_score_as_the_main_thread_does() -> None:
    answers = [(rf"so \boxed{{{n}}}", ("3",), "") for n in range(6)]
    expected = score_slice("math_verify", answers)
    assert [score for score, _ in expected] == [0, 0, 0, 1, 0, 0]
    with ThreadPoolExecutor(3) as threads:
        assert [
            one for part in threads.map(lambda a: score_slice("math_verify", [a]), answers) for one in part
        ] == expected
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(score_slice, "math_verify", answers).result() == expected


@MATH
def test_an_answer_of_thirty_thousand_tokens_is_read_within_its_time(process: MathProcess) -> None:
    line = "Let $x_1 = \\frac{3}{4} + y^{2}$ so \\(a+b\\) is 12, and 3.5 times 7 is 24.5. Hence \\[ x = 5 \\] or so.\n"
    closing = r"Therefore, the final answer is: $\boxed{17}$. I hope it is correct"
    assert process.equal(r"\boxed{17}", line * 1000 + closing)
    assert process.equal(r"\boxed{5}", line * 1000)


@MATH
@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_gets_a_score(answer: str, gold: str) -> None:
    assert scorer("math_verify")(answer, (gold,), {}) in (0, 1)
    for name in ("gsm8k_number", "gsm8k_strict", "gpqa_letter"):
        assert scorer(name)(answer, (gold,), {}) in (0, 1)


def test_what_each_rule_reads_out_of_an_answer() -> None:
    assert last_number("from 3 to $1,234.50.") == "1234.50"
    assert marked_number("#### 1 and #### 2") == "1"
    assert stated_letter("Answer: b\nAnswer: C") == "b"


def test_a_library_that_is_broken_is_said_and_no_answer_is_wrong_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('no antlr\\nhere')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigError, match="can't be loaded") as caught:
        MathProcess().equal("1", "1")
    assert "ImportError: no antlr here" in caught.value.details[0]
    assert "kvt[math]" in (caught.value.do or "")


def test_a_missing_library_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvt_async.contract.formulas.metric_needs.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the metric math_verify needs the package math_verify") as caught:
        check_installed("math_verify", "dataset.task")
    assert "pip install 'kvt[math]'" in (caught.value.do or "")
    with pytest.raises(ConfigError, match="needs the package math_verify"):
        scorer("math_verify")("1", ("1",), {})


@MATH
def test_a_long_answer_without_its_box_is_a_fault_of_form_where_it_was_not_cut() -> None:
    said = "I think that it is north or maybe south"
    assert one(said, ["5"], metric="math_verify")["failure_label"] == FailureLabel.FORMAT_ERROR
    assert one(said, ["5"], metric="math_verify", finish_reason="length")["failure_label"] == FailureLabel.TRUNCATED
    assert one(r"\boxed{6}", ["5"], metric="math_verify")["failure_label"] is None
    assert one(r"\boxed{5}", ["5"], metric="math_verify")["score"] == 1


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        (r"so $\boxed{ \dfrac{3}{4} }$.", r"\frac{3}{4}"),
        (r"\boxed{1} then \boxed{\left( 2, \{3\} \right)}", r"(2,\{3\})"),
        (r"\boxed 5, I hope", "5,"),
        (r"\fbox{7}", "7"),
        ("\\boxed{8\nand more", "8"),
        (r"\boxed{\boxed{9}}", "9"),
        (r"\boxed{} and \boxed{ }", None),
        ("the box holds 5", None),
        (r"\boxed{" * 20_000, r"\boxed{"),
    ],
)
def test_the_box_that_counts_is_the_last_one_that_holds_something(answer: str, stated: str | None) -> None:
    assert in_the_box(answer) == stated
