"""Before a run of several tasks: what theory knows, shared contexts, answers an example, a guard out of reach."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from typer.testing import CliRunner

from analyzer.stats.chances import Chances, answer_flips
from analyzer.stats.intervals import binomial_upper
from analyzer.stats.sample_layout import Layout
from analyzer.verbs.power import Flips
from analyzer.verbs.suite_plan import SuitePlan, suite_plan
from kvt_async.cli import app
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.planned_task import PlannedTask

BUDGET = "kv.budgets=[1.0,0.5]"
WIDE = ("analysis.margin=0.15", "analysis.guard=0.3")  # proven with few examples, which are quickly drawn


def planned(*sizes: int, flips: float = 0.0, overrides: tuple[str, ...] = (), **contexts: Any) -> SuitePlan:
    """Tasks of one bin each; `contexts`: of tasks whose examples share some."""
    asked = load_settings(None, ["binning.n_bins=1", BUDGET, *overrides], environ={})
    tasks = [
        PlannedTask(f"t{i}", asked.model_copy(update={"binning": asked.binning.model_copy(update={"n_per_bin": n})}))
        for i, n in enumerate(sizes)
    ]
    tasks += [PlannedTask(name, asked, "", tuple((c, 0) for c in of_task)) for name, of_task in contexts.items()]
    return suite_plan(asked, tasks, Flips(flips))


def test_without_flips_a_suite_needs_what_its_guard_and_its_mean_need() -> None:
    """23 contexts prove 0.15, 72 the margin; the mean over three tasks of 24 has 72."""
    found = planned(24, 24, 24)
    assert found.chance_suite_safe == 1.0
    assert [task.n_suite_safe for task in found.tasks] == [24, 24, 24]
    assert [task.n_everywhere for task in found.tasks] == [72, 72, 72]
    assert planned(23, 23, 23).chance_suite_safe == 0.0
    assert found.chance_everywhere == 0.0


def test_a_task_with_few_examples_is_told_what_it_needs_itself() -> None:
    found = planned(10, 200)
    assert found.out_of_reach[0].task == "t0"
    assert (found.out_of_reach[0].contexts, found.out_of_reach[0].needed) == (10, 23)
    assert found.exit_code == 3
    assert any("t0 can't prove the guard of 0.15" in line for line in found.lines)
    assert planned(10, 200, overrides=("analysis.guard=0.4",)).exit_code == 0


def test_contexts_that_tasks_share_count_once() -> None:
    shared = [f"c{i}" for i in range(40)]
    together = planned(a=shared, b=shared)
    apart = planned(a=shared, b=[f"d{i}" for i in range(40)])
    assert (together.n_contexts, apart.n_contexts) == (40, 80)
    assert (together.chance_mean, apart.chance_mean) == (0.0, 1.0)


def test_more_answers_an_example_need_fewer_examples_and_never_less_than_the_worst_case() -> None:
    one, many = (planned(100, 100, flips=0.1, overrides=(f"decoding.samples={k}",)) for k in (1, 8))
    assert (one.n_everywhere or 0) > (many.n_everywhere or 0) >= 2 * 72
    assert (many.samples, one.samples) == (8, 1)


def test_several_budgets_are_harder_than_one() -> None:
    few, many = planned(80, 80, flips=0.1), planned(80, 80, flips=0.1, overrides=("kv.budgets=[1.0,0.5,0.3,0.2]",))
    assert few.chance_suite_safe > many.chance_suite_safe > 0
    assert (few.budgets, many.budgets) == (1, 3)


@pytest.mark.parametrize("k", [1, 4])
def test_flips_of_answers_are_told_from_the_means_that_changed(k: int) -> None:
    rng, flip, n = np.random.default_rng(3), 0.1, 20_000
    own = (1 - np.sqrt(1 - 2 * flip)) / 2
    a, b = (rng.binomial(k, own, n) for _ in range(2))
    assert answer_flips(float(np.mean(a != b)), k) == pytest.approx(flip, abs=0.01)


def test_means_of_several_answers_are_drawn_with_their_own_spread() -> None:
    chances = Chances(0.05, 0.025, 1, samples=4)
    counts = chances._drawn(Layout.even(10_000), 0.1, 0.0)[0, 0]
    variance = float(counts @ chances.drops**2) / counts.sum()
    assert variance == pytest.approx(0.1 / 4, rel=0.1)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    n=st.integers(8, 100),
    tasks=st.integers(2, 6),
    flips=st.sampled_from([0.0, 0.02, 0.05, 0.1]),
    other=st.sampled_from([1.0, 0.5, 1.7]),
)
def test_a_config_has_what_is_needed_exactly_where_its_chance_is_80_percent(
    n: int, tasks: int, flips: float, other: float
) -> None:
    found = planned(*[n] * (tasks - 1), round(n * other), flips=flips, overrides=WIDE)
    total = sum(task.n for task in found.tasks)
    for needed, chance in (
        (found.n_suite_safe, found.chance_suite_safe),
        (found.n_everywhere, found.chance_everywhere),
    ):
        assert (needed is not None and needed <= total) == (chance >= 0.8), (needed, total, chance)


def test_what_is_needed_does_not_hang_on_the_size_that_was_asked_about() -> None:
    found = {n: planned(*[n] * 4, flips=0.1, overrides=WIDE) for n in (12, 20, 24, 28, 32, 36, 50)}
    needed = [suite.n_suite_safe or 0 for suite in found.values()]
    assert max(needed) <= 1.1 * min(needed), needed
    at_needed = planned(*[min(needed) // 4] * 4, flips=0.1, overrides=WIDE)
    assert at_needed.chance_suite_safe == pytest.approx(0.8, abs=0.05), "no more is asked for than 4 of 5"


def test_a_control_without_a_flip_is_not_taken_for_no_noise() -> None:
    asked = load_settings(None, ["binning.n_bins=1", "binning.n_per_bin=24", BUDGET], environ={})
    suite = suite_plan(asked, [PlannedTask(f"t{i}", asked) for i in range(3)], Flips(0.0, 0, 72, "first"))
    assert suite.n_suite_safe == 72
    assert suite.at_upper_bound is not None
    assert suite.at_upper_bound.flip_rate == pytest.approx(1 - 0.05 ** (1 / 72))
    assert (suite.at_upper_bound.n_suite_safe or 0) > 72
    assert "0 of 72 answers flipped by noise in the A/A control of first" in suite.lines[0]
    assert "95% sure: at most 4.1%" in suite.lines[0]
    assert suite.json()["n_needed_at_high"] == suite.at_upper_bound.n_suite_safe
    assert planned(24, 24, 24).at_upper_bound is None, "what is assumed has no bound"


@given(n=st.integers(1, 300), share=st.floats(0, 1))
def test_the_upper_bound_of_a_share_is_the_one_under_which_so_few_are_seen_in_5_percent(n: int, share: float) -> None:
    hits = round(n * share)
    upper = binomial_upper(hits, n, 0.05)
    assert upper == (1.0 if hits == n else pytest.approx(beta.ppf(0.95, hits + 1, n - hits)))


def suite_of_two(tmp_path: Path) -> str:
    """The config of a suite whose second task has 12 examples."""
    config = tmp_path / "suite.yaml"
    config.write_text(
        f"output: {{runs_dir: {tmp_path}/runs, data_dir: {tmp_path}/data}}\n"
        "kv: {budgets: [1.0, 0.5]}\nbinning: {n_bins: 1, n_per_bin: 30}\n"
        "tasks:\n- {name: one, dataset: {name: kvtext, task: single}}\n"
        "- {name: few, dataset: {name: kvtext, task: multikey}, binning: {n_per_bin: 12}}\n"
    )
    return str(config)


def test_plan_goes_through_the_tasks_of_a_config(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", "-c", suite_of_two(tmp_path), "--flip-rate", "0", "--json"])
    answer = json.loads(done.stdout)
    assert done.exit_code == 3, done.stdout
    assert [(task["task"], task["n"]) for task in answer["tasks"]] == [("one", 30), ("few", 12)]
    assert [one["task"] for one in answer["out_of_reach"]] == ["few"]


def test_plan_goes_through_the_chosen_tasks_alone(tmp_path: Path) -> None:
    words = ["plan", "-c", suite_of_two(tmp_path), "--flip-rate", "0", "--json", "--override"]
    one = CliRunner().invoke(app, [*words, "analysis.tasks=[one]"])
    assert one.exit_code == 0, "few, which can't prove the guard, is no part of the verdict"
    answer = json.loads(one.stdout)
    assert answer["n"] == 30
    assert answer["notes"] == ["1 of 2 tasks are planned: those of analysis.tasks"]
    none = CliRunner().invoke(app, [*words, "analysis.tasks=[ones]"])
    assert isinstance(none.exception, ConfigError)
    assert "no task 'ones'" in str(none.exception)


def test_a_dry_run_says_that_a_task_cannot_prove_the_guard(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["sweep", "-c", suite_of_two(tmp_path), "--dry-run"])
    assert "note: few: 12 contexts can prove no loss below 0.26; 23 would do" in done.stdout.splitlines(), done.stdout


def test_tasks_made_for_certain_lengths_have_a_bin_for_each(tmp_path: Path) -> None:
    words = ["-c", "ruler", "--flip-rate", "0", "--json", "--override", f"output.runs_dir={tmp_path}/runs"]
    words += ["--override", f"output.data_dir={tmp_path}/data", "--override", "dataset.task=[vt, cwe]"]
    words += ["--override", "dataset.params.lengths=[512, 1024]", "--override", "binning.by=asked_length"]
    answer = json.loads(CliRunner().invoke(app, ["plan", *words]).stdout)
    assert [(task["task"], task["n"]) for task in answer["tasks"]] == [("vt", 80), ("cwe", 80)]


@pytest.mark.parametrize(("config", "code"), [("demo", 0), ("suite", 2)])
def test_the_analyzer_alone_plans_one_task(config: str, code: int) -> None:
    command = [sys.executable, "-m", "analyzer", "plan", "-c", config, "--flip-rate", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == code, done.stderr
    assert ("`kvt plan -c CONFIG`" in done.stderr) == (code == 2)
