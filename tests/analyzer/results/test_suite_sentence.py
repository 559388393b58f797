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


def at_lengths(*claims: tuple[str, str, float | None, float | None]) -> str:
    """The first sentence, of tasks with these claims: task, length, safe and broken budget."""
    tasks = [
        {"task": name, "lengths": [{"label": c[1], "safe": c[2], "broken": c[3]} for c in claims if c[0] == name]}
        for name in dict.fromkeys(c[0] for c in claims)
    ]
    return suite_sentence.headline(row(n_tasks=len(tasks), tasks_json=json.dumps(tasks)), "fraction")


def test_every_length_is_safe_only_where_each_of_every_task_is_proven() -> None:
    assert at_lengths(("qa", "4k", 0.5, None), ("vt", "4k", 0.5, None), ("vt", "16k", 0.2, None)) == (
        "Safe on average over 2 of 3 tasks, and at every length of every task, down to 50% of the cache kept, and "
        f"there no task loses more than 0.15; multikey breaks first, from 20% down ({SAFE})."
    )


def test_lengths_that_are_broken_at_the_safe_budget_are_named_before_those_that_are_open() -> None:
    assert at_lengths(("qa", "4k", 0.9, 0.2), ("vt", "4k", 0.5, None), ("vt", "16k", None, 0.5)) == (
        "Safe on average over 2 of 3 tasks down to 50% of the cache kept, and there no task loses more than 0.15, but "
        f"taken alone vt at 16k tokens is broken there; multikey breaks first, from 20% down ({SAFE})."
    )
    many = at_lengths(*(("vt", f"{n}k", None, 0.5) for n in (1, 2, 4, 8)))
    assert "but taken alone vt at 1k tokens, vt at 2k tokens and 2 more are broken there;" in many


def test_lengths_that_are_not_proven_are_counted_and_named() -> None:
    some = at_lengths(("qa", "4k", 0.9, 0.2), ("vt", "4k", 0.5, None), ("vt", "16k", None, None))
    assert (
        "than 0.15, but taken alone only 1 of the tasks' 3 lengths is proven safe there (not qa at 4k tokens and vt at "
        "16k tokens); multikey"
    ) in some
    none = at_lengths(("qa", "4k", None, None), ("vt", "4k", None, None), ("vt", "16k", None, None))
    assert "but taken alone none of the tasks' 3 lengths is proven safe there;" in none


def test_nothing_is_said_of_lengths_where_every_task_has_one_or_nothing_is_safe() -> None:
    assert "than 0.15; multikey" in at_lengths(("qa", "4k", None, 0.5), ("vt", "4k", None, 0.5))
    lengths = [{"label": label, "safe": None, "broken": 0.5} for label in ("4k", "16k")]
    unsafe = row(suite_safe=None, tasks_json=json.dumps([{"task": "vt", "lengths": lengths}]))
    assert "16k" not in suite_sentence.headline(unsafe, "fraction")


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
