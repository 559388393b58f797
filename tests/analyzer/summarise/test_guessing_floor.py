"""What full cache has to lose: its answers against the golds of other examples, or chance; what that allows to say."""

import json
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.read.snapshot import path_of
from analyzer.report.answers import first_screen
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.stats.transition import BudgetTest, Grid, claims
from analyzer.summarise.analyze import analyze
from analyzer.summarise.guessing_floor import Floors, Headroom, headroom, partners
from analyzer.summarise.verdicts import verdict
from tests.analyzer.conftest import Experiment, Opened

PLACES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=40)  # (bin, context)


@given(PLACES)
def test_a_partner_is_another_example_of_the_same_bin_and_lends_its_golds_once(places: list[tuple[int, int]]) -> None:
    bins, contexts = (np.array(column) for column in zip(*places, strict=True))
    found = partners(bins, contexts)
    for i, j in enumerate(found):
        alone = int(np.sum(bins == bins[i])) == 1
        assert (j == -1) if alone else (bins[j] == bins[i] and j != i)
    lent = found[found >= 0]
    assert len(lent) == len(set(lent))


@given(PLACES)
def test_a_partner_has_another_context_unless_one_holds_over_half_of_the_bin(places: list[tuple[int, int]]) -> None:
    bins, contexts = (np.array(column) for column in zip(*places, strict=True))
    found = partners(bins, contexts)
    for b in set(bins):
        inside = bins == b
        if 2 * np.bincount(contexts[inside]).max() <= inside.sum():
            assert (contexts[found[inside]] != contexts[inside]).all()


def changed(conn: sqlite3.Connection, *statements: str) -> None:
    """Facts as another server would have left them; the guards that keep facts from being changed are set aside."""
    path = path_of(conn)
    with sqlite3.connect(path) as raw:
        guards = raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in guards:
            raw.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            raw.execute(statement)


def judged(experiment: Experiment, *statements: str, **asked: Any) -> Opened:
    conn, settings = experiment(**asked)
    changed(conn, *statements)
    score(conn, "synthetic")
    analyze(conn, settings)
    return conn, settings


def row_of(conn: sqlite3.Connection, bin_idx: int = -1) -> Any:
    return conn.execute("SELECT * FROM transition_summary WHERE bin_idx = ?", (bin_idx,)).fetchone()


ALWAYS_A = "UPDATE responses SET text = 'A'"
LETTERS = "UPDATE examples SET answers_json = json_array(substr('ABCD', 1 + (rowid * 7 + rowid / 4) % 4, 1))"
EVERY_A = "UPDATE examples SET answers_json = json_array('A')"


def test_a_task_at_its_floor_has_nothing_to_lose_and_nothing_is_called_safe(experiment: Experiment) -> None:
    """The model always says A, one of four: no budget changes an answer, and that is no safety."""
    conn, settings = judged(experiment, ALWAYS_A, LETTERS, n_per_bin=40)
    row = row_of(conn)
    assert row["verdict"] == "nothing_to_lose"
    assert (row["safe_budget"], row["n_needed"]) == (1.0, None)
    floor = json.loads(row["zone_json"])["floor"]
    assert floor["floor"] == pytest.approx(row["acc_full"], abs=0.1)
    headline = first_screen(read_results(conn, "synthetic"), settings).headline
    assert "nothing to lose here that 200 pairs can show" in headline
    assert "against the answers to other examples" in headline


def test_where_everybodys_answer_is_the_same_reading_the_prompt_is_worth_nothing(experiment: Experiment) -> None:
    conn, settings = judged(experiment, ALWAYS_A, EVERY_A, n_per_bin=20)
    assert row_of(conn)["acc_full"] == 1.0
    assert row_of(conn)["verdict"] == "nothing_to_lose"
    assert "so no budget can lose more than 0.05" in first_screen(read_results(conn, "synthetic"), settings).headline


def test_answers_that_only_their_own_example_has_stand_on_a_floor_of_zero(experiment: Experiment) -> None:
    conn, _ = judged(experiment, n_per_bin=20, p_correct=0.9)
    floor = json.loads(row_of(conn)["zone_json"])["floor"]
    assert (floor["kind"], floor["shown"]) == ("other golds", True)
    assert floor["floor"] < 0.1  # two words of twelve: some golds share one
    assert row_of(conn)["verdict"] == "no_transition_in_range"


def test_a_floor_by_chance_counts_where_it_is_the_higher_one() -> None:
    n = 200
    right = np.arange(n) % 2 == 0
    grid = Grid({"full": right.astype(float)}, np.zeros(n, dtype=int), np.arange(n))
    found = headroom(grid, "full", Floors(np.zeros(n), np.full(n, 0.5)), -1, margin=0.05, alpha=0.05)
    assert found is not None
    assert (found.kind, found.floor, found.mean) == ("chance", 0.5, 0.0)
    assert not found.shown(0.025)
    free = headroom(grid, "full", Floors(np.zeros(n), np.full(n, np.nan)), -1, margin=0.05, alpha=0.05)
    assert free is not None
    assert free.shown(0.025)


def test_few_pairs_that_speak_for_something_to_lose_cannot_tell_and_prove_nothing_safe() -> None:
    tests = [BudgetTest(0.5, "r", 9, 9, 0.0, -0.2, 0.2, 0.1, 0, 0, 0.3, 1.0, 1.0)]
    open_ = Headroom("other golds", 0.1, 0.3, -0.05, 0.6, 0.08, doubtful=False)
    assert verdict(tests, claims(tests, 0.025), acc_full=0.4, margin=0.05, floor=open_) == "cannot_tell"
    broken = [BudgetTest(0.5, "r", 9, 9, 0.5, 0.2, 0.8, 0.1, 6, 0, 0.99, 0.001, 0.001)]
    at_floor = Headroom("chance", 0.5, 0.0, -0.2, 0.2, 0.6, doubtful=True)
    word = verdict(broken, claims(broken, 0.025), acc_full=0.5, margin=0.05, floor=at_floor)
    assert word == "transition"  # what is proven lost beyond the margin was there
    lost = [BudgetTest(0.5, "r", 90, 90, 0.04, 0.01, 0.07, 0.1, 6, 0, 0.3, 0.001, 0.9)]
    word = verdict(lost, claims(lost, 0.025), acc_full=0.5, margin=0.05, floor=at_floor)
    assert word == "transition"  # and so was what is proven lost at all
