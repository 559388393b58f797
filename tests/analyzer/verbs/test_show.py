"""`kvt show`: what a person reads about one example."""

from contextlib import closing
from pathlib import Path

import pytest

from analyzer.verbs.show import elided, show
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.load import load_settings
from tests.analyzer.report_cases import GROUP, Rows, Series, cliff
from tests.analyzer.report_rows import write

SETTINGS = load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={})
SMALL = {"budgets": (1.0, 0.5, 0.1), "edges": ((128, 240), (241, 480)), "n": 3}


def rows(**changes: object) -> Rows:
    return Rows(**{"series": (Series("snapkv/aware", cliff(48)),), **SMALL, **changes})  # type: ignore[arg-type]


def test_an_example_shows_its_prompt_its_golds_and_every_level_with_score(tmp_path: Path) -> None:
    with closing(write(tmp_path / "a.sqlite", rows())) as conn:
        shown = show(conn, SETTINGS, "e4")
    text = "\n".join(shown.lines)
    assert "the fox ran . the code of bado is 101 102 . the owl slept . what is the code of bado ?" in text
    assert "golds: 101 102" in text
    for level in ("full cache ", "snapkv/aware 0.5", "snapkv/aware 0.1", "full cache (A/A 1)"):
        assert any(line.strip().startswith(level) and "exact 1.00" in line for line in shown.lines), level
    assert [example.bin_idx for example in shown.examples] == [1]


def test_a_sample_is_the_same_every_time_and_one_run_stands_beside_full_cache(tmp_path: Path) -> None:
    with closing(write(tmp_path / "a.sqlite", rows())) as conn:
        first = show(conn, SETTINGS, None, sample=2, run_id="run01")
        again = show(conn, SETTINGS, None, sample=2, run_id="run01")
        whole = show(conn, SETTINGS, None, sample=99)
    assert first == again
    assert len(first.examples) == 2
    assert {level.run_id for example in first.examples for level in example.levels} == {"run00", "run01", "run03"}
    assert len(whole.examples) == 6


def test_failed_and_pending_requests_are_named_as_such(tmp_path: Path) -> None:
    failing = Series("snapkv/aware", cliff(48), fail=lambda budget, tokens: 1.0)
    with closing(write(tmp_path / "a.sqlite", rows(series=(failing,), pending=1))) as conn:
        text = "\n".join(show(conn, SETTINGS, "e0").lines)
    assert "FAILED: TotalTimeout (attempts_exhausted)" in text
    assert "(no outcome yet)" in text


def test_a_long_prompt_is_elided_in_the_middle_unless_asked_in_full() -> None:
    text = "a" * 2000 + "MIDDLE" + "b" * 2000
    short = elided(text)
    assert "MIDDLE" not in short
    assert "2,906 characters left out; --full shows them" in short
    assert short.startswith("aaa")
    assert short.endswith("bbb")
    assert elided("short") == "short"


def test_an_unknown_example_run_or_group_is_refused_with_what_to_do(tmp_path: Path) -> None:
    other = load_settings(None, ["experiment.exp_group_id=nothing"], environ={})
    with closing(write(tmp_path / "a.sqlite", rows())) as conn:
        with pytest.raises(ConfigError, match=r"no example 'nope' in demo\n.*--sample 10"):
            show(conn, SETTINGS, "nope")
        with pytest.raises(ConfigError, match="no run 'run99'"):
            show(conn, SETTINGS, "e0", run_id="run99")
        with pytest.raises(MissingPrerequisiteError, match="kvt sweep"):
            show(conn, other, "e0")


def test_a_turn_says_which_one_of_which_conversation_it_is(tmp_path: Path) -> None:
    with closing(write(tmp_path / "a.sqlite", rows())) as conn:
        conn.executescript(
            "DROP TRIGGER IF EXISTS examples_no_update;"
            'UPDATE examples SET meta_json = \'{"conversation": "c", "turn": 2}\' WHERE example_id = \'e4\''
        )
        (turn,), (plain,) = show(conn, SETTINGS, "e4").examples, show(conn, SETTINGS, "e0").examples
    assert "turn 2 of conversation c)" in turn.lines(full=False)[0]
    assert (plain.conversation, plain.turn) == (None, None)
