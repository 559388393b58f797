"""Where the second look adds examples: pure shares, and what counts as a look that is over."""

import sqlite3
from pathlib import Path

import pytest

from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_reading
from kvt_async.data.focus import BinState, allot, read_open_zone
from tests.analyzer.synthetic import make_db

KNOWN = {1.0: 0.95, 0.5: 0.9, 0.1: 0.1}  # chance of a right answer by budget


def even(n: int, available: int = 1000, spread: float = 0.3) -> dict[int, BinState]:
    return {b: BinState(n, available, spread) for b in range(5)}


def test_bins_that_vary_alike_share_alike() -> None:
    assert allot(even(5), 25) == dict.fromkeys(range(5), 5)


def test_the_bin_whose_scores_vary_most_gets_most() -> None:
    states = even(40, spread=0.1) | {3: BinState(40, 1000, 0.6)}
    more = allot(states, 200)
    assert sum(more.values()) == 200
    assert more[3] > 2 * max(n for b, n in more.items() if b != 3)


def test_no_bin_lags_behind_even_where_nothing_varied_so_far() -> None:
    """One example of a small bin weighs as much as several of a large one, and so does the imagined one."""
    more = allot(even(5, spread=0.0) | {0: BinState(5, 1000, 0.5)}, 100)
    assert min(more.get(b, 0) for b in range(5)) >= 5


def test_a_bin_gets_no_more_than_the_source_has() -> None:
    more = allot(even(5) | {2: BinState(5, 7, 0.9), 4: BinState(5, 5, 0.9)}, 50)
    assert more[2] == 2
    assert 4 not in more
    assert sum(more.values()) == 50


def test_nothing_left_gives_nothing() -> None:
    assert allot(even(5, available=5), 10) == {}
    assert allot({}, 10) == {}


@pytest.fixture
def analysed(tmp_path: Path) -> Path:
    db = make_db(tmp_path / "g.sqlite", n_bins=2, n_per_bin=15, budgets=(1.0, 0.5, 0.1), p_correct=KNOWN)
    conn = connect_for_reading(db, write_derived=True)
    score(conn, "synthetic")
    analyze(conn, load_settings(None, ["experiment.exp_group_id=synthetic"], environ={}))
    conn.close()
    return db


def stored_sha(db: Path) -> str:
    return str(sqlite3.connect(db).execute("SELECT sha256 FROM manifests").fetchone()[0])


def test_budgets_between_safe_and_lost_are_open(analysed: Path) -> None:
    look = read_open_zone(analysed, "synthetic", 1, stored_sha(analysed), {0: 15, 1: 15})
    assert look is not None
    assert look.open_budgets == (0.5,), "0.1 is proven lost beyond the margin"
    assert set(look.spread) == {0, 1}
    assert all(0 < spread < 1 for spread in look.spread.values())


@pytest.mark.parametrize(
    ("version", "sha256", "entries"),
    [(2, "of another version", {0: 15, 1: 15}), (1, "of another file", {0: 15, 1: 15}), (1, None, {0: 15, 1: 16})],
    ids=["not run yet", "another manifest", "entries that were not analysed"],
)
def test_an_analysis_of_something_else_is_no_look(
    analysed: Path, version: int, sha256: str | None, entries: dict[int, int]
) -> None:
    assert read_open_zone(analysed, "synthetic", version, sha256 or stored_sha(analysed), entries) is None


def test_without_a_database_there_is_no_look(tmp_path: Path) -> None:
    assert read_open_zone(tmp_path / "none.sqlite", "g", 1, "", {}) is None
