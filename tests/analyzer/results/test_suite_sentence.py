"""The verdict over several tasks, sentence by sentence: pure functions of one row of suite_summary."""

import json

import pytest

from analyzer.results import suite_sentence
from analyzer.store.suite_tables import SuiteVerdict
from tests.analyzer.suite_cases import METHOD, verdict

SAFE = "safe: accuracy is proven to fall by less than 0.05 on average"


def row(**changes: object) -> SuiteVerdict:
    return verdict([], **{"n_tasks": 3, **changes})


def test_safe_on_average_names_the_guard_and_the_task_that_breaks_first() -> None:
    assert suite_sentence.headline(row(), "fraction") == (
        "Safe on average over 3 tasks down to 50% of the cache kept, and there no task loses more than 0.15; multikey "
        f"breaks first, from 20% down ({SAFE})."
    )


def test_without_a_broken_task_none_is_named() -> None:
    whole = row(verdict="no_transition_in_range", suite_safe=0.2, broken_somewhere=None, broken_tasks="[]")
    assert suite_sentence.headline(whole, "fraction") == (
        "Safe on average over 3 tasks down to 20% of the cache kept, the smallest budget tested, and there no task "
        f"loses more than 0.15 ({SAFE})."
    )


def test_several_tasks_break_first_together_and_many_are_counted() -> None:
    many = row(broken_tasks=json.dumps(["a", "b", "c", "d", "e", "f"]))
    assert "; a, b, c and 3 more break first, from 20% down (" in suite_sentence.headline(many, "fraction")


def test_tasks_that_all_break_at_once_are_not_listed() -> None:
    every = row(broken_tasks=json.dumps(["single", "multikey", "vt"]))
    assert "than 0.15; every task breaks from 20% down (" in suite_sentence.headline(every, "fraction")


def test_nothing_safe_says_what_safe_would_be() -> None:
    assert suite_sentence.headline(row(suite_safe=None), "fraction") == (
        "No budget below full cache is proven safe over 3 tasks; multikey breaks first, from 20% down "
        f"({SAFE}, and by less than 0.15 in every task)."
    )
    unsure = row(verdict="cannot_tell", suite_safe=None, broken_somewhere=None)
    partly = row(verdict="cannot_tell", broken_somewhere=None)
    assert "than 0.15; below that, these examples can't tell (" in suite_sentence.headline(partly, "fraction")
    assert suite_sentence.headline(unsure, "fraction").startswith(
        "Cannot tell over 3 tasks with 480 pairs a budget: none is proven safe, and no task is proven to lose more than"
    )


def test_a_relative_margin_and_tokens_are_named_as_such() -> None:
    caps = row(suite_safe=512.0, broken_somewhere=64.0, method=json.dumps(METHOD | {"margin_kind": "relative"}))
    text = suite_sentence.headline(caps, "tokens")
    assert "down to 512 tokens kept, and there no task loses more than 15% of full cache's accuracy" in text
    assert "by less than 5% of full cache's accuracy on average" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "safe on average to 50%, a task broken from 20% down"),
        ({"suite_safe": None}, "nothing proven safe, a task broken from 20% down"),
        ({"broken_somewhere": None}, "safe on average to 50%; below: can't tell"),
        ({"verdict": "no_transition_in_range", "broken_somewhere": None}, "safe on average to 50%"),
        ({"verdict": "nothing_to_lose"}, "nothing to lose at full cache"),
    ],
)
def test_short_verdicts_for_tables(changes: dict[str, object], words: str) -> None:
    assert suite_sentence.in_few_words(row(**changes), "fraction") == words


def test_a_verdict_over_some_of_the_stored_tasks_says_how_many() -> None:
    some = row(n_tasks=2)
    assert "over 2 of 3 tasks" in suite_sentence.headline(some, "fraction")
