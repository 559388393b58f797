"""A report over several tasks: one sentence, one picture, the questions, and each task folded below."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import altair as alt
import pytest
from altair.utils.schemapi import validate_jsonschema

from analyzer.charts.style import NARROW
from analyzer.charts.suite_charts import SUITE_CHARTS, bars, draw_suite_chart, drops, suite_axis
from analyzer.report.answers import AnswerKey
from analyzer.report.figures_json import suite_figures
from analyzer.report.page import under_headings
from analyzer.report.suite_answers import suite_screen
from analyzer.report.suite_build import suite_html, suite_markdown
from analyzer.report.suite_page import folders
from analyzer.report.task_tables import accounts
from analyzer.report.terminal_verdict import LINES, screen_lines
from analyzer.results.alarms import Alarm
from analyzer.results.results import Results
from analyzer.results.suite_alarms import suite_alarms
from analyzer.results.suite_results import SuiteResults
from tests.analyzer.report_cases import cliff
from tests.analyzer.report_page import NOON, SETTINGS, SLIPS
from tests.analyzer.suite_cases import AWARE, suite_of, task_results, with_tasks


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return suite_of(tmp_path_factory.mktemp("suite"))


def claims(suite: SuiteResults, key: AnswerKey) -> list[str]:
    return [line for a in suite_screen(suite, SETTINGS).answers if a.key == key for line in a.lines]


def changed(suite: SuiteResults, **changes: object) -> SuiteResults:
    return replace(suite, verdicts=[replace(suite.verdicts[0], **changes)])  # type: ignore[arg-type]  # of any column


# ---------------------------------------------------------------- the first screen


def test_the_first_screen_is_one_sentence_and_the_questions(suite: SuiteResults) -> None:
    screen = suite_screen(suite, SETTINGS)
    assert screen.headline.startswith("SnapKV (sees the question): safe on average ")
    assert "no task loses more than 0.15" in screen.headline
    assert [section["heading"] for section in under_headings(screen)] == [
        "What changed with the KV budget?", "Which task breaks first?", "How much may a single task lose?",
        "Is every task safe?", "Wrong answers or failures?", "What does a smaller budget buy?",
        "Was the budget applied?", "How sure is this?", "What limits it?",
    ]  # fmt: skip


def test_the_questions_over_tasks_are_answered_with_their_figures(suite: SuiteResults) -> None:
    assert claims(suite, AnswerKey.FIRST_TO_BREAK) == [
        "multikey is proven to lose more than 0.05 from 20% of the cache kept down (Holm over the tasks).",
        "The mean over tasks is proven to lose more than 0.05 from 20% of the cache kept down.",
    ]
    assert claims(suite, AnswerKey.WORST_TASK) == [
        "With 50% of the cache kept, no task loses more than 0.11; the one that may lose most is multikey.",
        "At least 2 of 3 tasks are proven to lose less than 0.05 there.",
    ]
    assert claims(suite, AnswerKey.EVERYWHERE)[0].startswith("No budget is proven safe in every single task")
    assert claims(suite, AnswerKey.CHANGED) == [
        "On average over 3 tasks, accuracy of SnapKV (sees the question) goes from 0.99 at full cache to 0.69 with 20% "
        "of the cache kept: a paired loss of 0.30 [0.28, 0.32] over 480 pairs."
    ]
    assert "mean over tasks: a difference of 0.00 [−0.02, 0.02] over 480 pairs" in claims(suite, AnswerKey.CERTAINTY)[0]


def test_tasks_that_cannot_tell_or_have_nothing_to_lose_are_named(suite: SuiteResults) -> None:
    short = with_tasks(
        suite.verdicts[0],
        single={"verdict": "cannot_tell", "n": 40, "n_needed": 250},
        vt={"verdict": "nothing_to_lose"},
    )
    told = replace(suite, verdicts=[short])
    assert claims(told, AnswerKey.UNTOLD) == [
        "Of 3 tasks, 1 can't tell by themselves: single (40 pairs, about 250 would)."
    ]
    (nothing,) = claims(told, AnswerKey.NOTHING)
    assert nothing.startswith("vt has too little at full cache to show a loss. It still counts in the mean")


def test_nothing_is_claimed_of_single_tasks_where_there_is_no_verdict(suite: SuiteResults) -> None:
    none = changed(suite, verdict="unverified", suite_safe=None, broken_somewhere=None)
    for key in (AnswerKey.FIRST_TO_BREAK, AnswerKey.WORST_TASK, AnswerKey.EVERYWHERE):
        assert claims(none, key) == []
    assert "proven" not in suite_screen(none, SETTINGS).headline


def test_no_reason_is_given_for_tasks_of_which_none_is_proven_safe(suite: SuiteResults) -> None:
    assert claims(changed(suite, n_safe_tasks=0), AnswerKey.WORST_TASK)[1] == (
        "Over all tasks together, not even one is proven to lose less than 0.05 there."
    )


@pytest.mark.parametrize(
    ("margin", "kind", "priced"), [(0.05, "absolute", True), (0.1, "absolute", False), (0.05, "relative", False)]
)
def test_the_price_of_every_task_is_told_for_the_margin_that_it_is_known_for(
    suite: SuiteResults, margin: float, kind: str, priced: bool
) -> None:
    asked = suite.verdicts[0].asked | {"margin": margin, "margin_kind": kind}
    (text,) = claims(changed(suite, method=json.dumps(asked)), AnswerKey.EVERYWHERE)
    assert ("250, 450 or 800 examples" in text, "`kvt plan` says" in text) == (priced, not priced)


def test_where_every_task_has_nothing_to_lose_no_other_tasks_are_spoken_of(suite: SuiteResults) -> None:
    names = [task["task"] for task in suite.verdicts[0].tasks]
    empty = with_tasks(suite.verdicts[0], **{name: {"verdict": "nothing_to_lose"} for name in names})
    (text,) = claims(replace(suite, verdicts=[empty]), AnswerKey.NOTHING)
    assert text == "Every task has too little at full cache to show a loss."


def test_every_task_safe_is_said_only_where_it_is_proven(suite: SuiteResults) -> None:
    everywhere = changed(suite, safe_everywhere=0.5)
    assert claims(everywhere, AnswerKey.EVERYWHERE) == [
        "Down to 50% of the cache kept, every task is proven to lose less than 0.05."
    ]


def test_the_terminal_says_the_same_sentence_in_at_most_twelve_lines(suite: SuiteResults) -> None:
    screen = suite_screen(suite, SETTINGS)
    lines = screen_lines(screen)
    assert len(lines) <= 12
    assert " ".join(screen.headline.split()) in " ".join(" ".join(lines).split())
    assert "multikey is proven to lose more than 0.05" in " ".join(" ".join(lines).split())


def test_the_terminal_gives_the_mean_over_tasks_with_its_interval(suite: SuiteResults) -> None:
    screen = suite_screen(suite, SETTINGS)
    (mean,) = screen.claims(AnswerKey.CHANGED)
    assert "a paired loss of" in mean
    assert mean in " ".join(" ".join(screen_lines(screen)).split())


def test_a_verdict_over_some_of_the_tasks_names_the_others(suite: SuiteResults) -> None:
    two = [task for task in suite.verdicts[0].tasks if task["task"] != "vt"]
    some = changed(suite, tasks_json=json.dumps(two), n_tasks=2)
    assert "The verdict is over 2 of 3 tasks; not in it: vt." in claims(some, AnswerKey.LIMITS)


def test_a_task_that_was_left_out_is_named_with_its_reason_and_has_a_row(suite: SuiteResults) -> None:
    notes = json.dumps(["qa_1 is left out: it needs a file of questions", "vt: the answer prefix is not sent"])
    sessions = [replace(one, notes_json=notes) for one in suite.first.sessions]
    told = replace(suite, tasks=[replace(task, sessions=sessions) for task in suite.tasks])
    assert "Left out: qa_1, because it needs a file of questions." in claims(told, AnswerKey.LIMITS)
    text = suite_markdown(told, SETTINGS, NOON)
    assert "| left out | qa_1 | – | – | – |" in text
    of_vt = text[text.index("## Task vt") :]
    assert "- The answer prefix is not sent." in of_vt
    assert "- The answer prefix is not sent." not in text[: text.index("## Task vt")]


# ---------------------------------------------------------------- alarms


def test_alarms_stand_above_the_verdict_once_with_the_tasks_they_are_about(tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    pending = task_results(tmp_path, "pending", cliff(30), pending=3)
    label = replace(
        suite.tasks[1],
        evidence={k: replace(e, status="unverified", reason="") for k, e in suite.tasks[1].evidence.items()},
    )
    doubtful = replace(suite, tasks=[suite.tasks[0], label, pending])
    names = [alarm.line for alarm in suite_alarms(doubtful)]
    assert names[0].startswith(f"PARTIAL: 3 of {doubtful.requests:,} requests")
    assert names[1].startswith("UNVERIFIED in multikey: the budget is a label")
    text = suite_markdown(doubtful, SETTINGS, NOON)
    assert text.index("UNVERIFIED in multikey") < text.index("> **SnapKV")
    assert text.count("UNVERIFIED in multikey") == 3, "above the verdict and under each chart"
    every = replace(suite, tasks=[replace(label, task=task.task) for task in suite.tasks])
    assert [alarm.name for alarm in suite_alarms(every)] == ["UNVERIFIED"]


def test_an_unverified_suite_says_so_in_its_sentence(suite: SuiteResults) -> None:
    assert suite_screen(changed(suite, evidence="unverified"), SETTINGS).headline.startswith("Unverified, SnapKV (sees")


# ---------------------------------------------------------------- tables and sections


def test_the_report_has_a_section_for_each_task_and_no_unformatted_value(suite: SuiteResults) -> None:
    text = suite_markdown(suite, SETTINGS, NOON)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Verdict", "Verdict over the tasks", "Tasks and budgets", "Task single", "Task multikey", "Task vt", "Sanity",
        "Provenance", "Definitions",
    ]  # fmt: skip
    assert SLIPS.findall(text) == []
    widths = [line.count(" | ") if line.startswith("| ") else None for line in text.splitlines()]
    assert all(a is None or b is None or a == b for a, b in pairwise(widths))
    assert "exploratory beside the verdict over all tasks" in text
    assert "another task may break elsewhere" not in text


def test_the_mean_over_tasks_stands_above_all_tasks_with_the_tasks_own_figures(suite: SuiteResults) -> None:
    text = suite_markdown(suite, SETTINGS, NOON)
    table = text[text.index("### Accuracy by task") :].split("\n\n")[1]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "---" not in line
    ]
    assert rows[0] == ["Series", "Task", "Full cache", "50%", "20%"]
    assert rows[1] == [AWARE, "mean over tasks", "0.99", "0.98", "0.69"]
    assert [row[1] for row in rows[2:]] == ["single", "multikey", "vt"]
    for row, task in zip(rows[2:], suite.tasks, strict=True):
        stats = [task.stat(run) for run in [task.full, *task.levels(AWARE)]]
        assert row[2:] == [f"{s.acc_mean:.2f}" for s in stats if s is not None and s.acc_mean is not None]


def test_figures_of_the_suite_and_of_each_task_are_in_the_json(suite: SuiteResults) -> None:
    figures = json.loads(json.dumps(suite_figures(suite, SETTINGS)))
    assert figures["headline"] == suite_screen(suite, SETTINGS).headline
    assert figures["suite"][0]["worst_task_bound"] == 0.11
    assert figures["suite"][0]["broken"] == ["multikey"]
    assert list(figures["tasks"]) == ["single", "multikey", "vt"]


def test_a_task_has_a_folder_that_every_file_system_takes(tmp_path: Path) -> None:
    names = ["a/b", "a:b", "A_B", "..", "niah_1"]
    one = suite_of(tmp_path)
    suite = replace(one, tasks=[replace(one.first, task=name) for name in names])
    places = folders(suite)
    assert len({place.lower() for place in places.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", place) for place in places.values())


# ---------------------------------------------------------------- charts


def test_the_picture_has_the_mean_and_a_bar_for_each_task(suite: SuiteResults) -> None:
    frame = bars(suite, suite_axis(suite))
    assert frame["row"].unique(maintain_order=True).to_list() == ["On average", "single", "multikey", "vt"]
    mean = frame.filter(row="On average")
    assert list(zip(mean["part"], mean["x2"], strict=True))[:2] == [("safe", 0.5), ("transition zone", 0.2)]
    open_above = bars(changed(suite, suite_safe=None), suite_axis(suite)).filter(row="On average")
    assert open_above["part"].to_list() == ["zone open above", "broken"]


def test_the_map_has_a_cell_with_its_interval_for_each_task_and_budget(suite: SuiteResults) -> None:
    cells = drops(suite)
    assert cells.height == (1 + 3) * 2
    assert (cells["low"] <= cells["drop"]).all()
    assert (cells["drop"] <= cells["high"]).all()
    assert set(cells.filter(task="vt")["state"]) == {"safe"}


def test_suite_charts_are_valid_vega_lite_on_a_desk_and_on_a_phone(suite: SuiteResults) -> None:
    schema = alt.load_schema()
    for chart in SUITE_CHARTS:
        validate_jsonschema(draw_suite_chart(chart, suite, "PARTIAL: 3 requests pending"), schema)
        validate_jsonschema(draw_suite_chart(chart, suite, "", NARROW, title=False), schema)


def test_the_same_rows_give_the_same_bytes(suite: SuiteResults) -> None:
    assert suite_html(suite, SETTINGS, NOON) == suite_html(suite, SETTINGS, NOON)


def test_twenty_tasks_make_a_page_of_a_sane_size(suite: SuiteResults) -> None:
    """Without the program that draws: what a task adds is a tenth of it."""
    page = suite_html(suite, SETTINGS, NOON)
    sections = page[page.index('<details class="task"') : page.rindex("</details>")]
    specs = re.findall(r'id="t\d+-specs">([^<]*)<', page)
    assert len(specs) == 3
    assert 20 * (len(sections) + sum(map(len, specs))) / 3 < 3_000_000


def test_several_answers_are_of_one_example(suite: SuiteResults) -> None:
    """Requests count answers; the examples beside them are as many as the manifest has."""
    tasks = [
        replace(t, samples=4, progress={k: replace(p, planned=4 * p.planned) for k, p in t.progress.items()})
        for t in suite.tasks
    ]
    once, several = accounts(suite), accounts(replace(suite, tasks=tasks))
    column = once.head.index("Examples")
    assert [row[column] for row in several.rows] == [row[column] for row in once.rows]
    assert {row[column + 1] for row in several.rows} == {"4"}


def test_a_repeat_with_other_seeds_is_called_so(suite: SuiteResults) -> None:
    drawn = SETTINGS.model_copy(
        update={"decoding": SETTINGS.decoding.model_copy(update={"temperature": 0.8, "samples": 3})}
    )
    repeats = [replace(suite.controls[0], repeat_idx=n) for n in (1, 2)]
    both = replace(suite, stats=[*(row for row in suite.stats if not row.repeat_idx), *repeats])
    lines = [line for a in suite_screen(both, drawn).answers if a.key == AnswerKey.CERTAINTY for line in a.lines]
    assert lines[0].startswith("A/A control (full cache run again), mean")
    assert lines[1].startswith("A/A control (full cache run again with other seeds), mean")


def test_tasks_that_may_lose_alike_are_not_told_apart(suite: SuiteResults) -> None:
    own = [task | {"bound": 0.03} for task in suite.verdicts[0].tasks]
    alike = changed(suite, tasks_json=json.dumps(own), worst_task_bound=0.03, n_safe_tasks=3)
    assert claims(alike, AnswerKey.WORST_TASK) == [
        "With 50% of the cache kept, no task loses more than 0.03.",
        "All 3 tasks are proven to lose less than 0.05 there.",
    ]


def test_however_many_alarms_there_are_the_terminal_says_the_verdict(suite: SuiteResults) -> None:
    screen = suite_screen(suite, SETTINGS)
    alarms = tuple(Alarm(f"FAILED AT FULL CACHE in t{i}", f"{i} of 80 requests. " * 6, "") for i in range(20))
    lines = screen_lines(replace(screen, alarms=alarms))
    assert len(lines) <= LINES
    assert " ".join(screen.headline.split()) in " ".join(" ".join(lines).split())
    assert lines[0].startswith("FAILED AT FULL CACHE in t0")
    assert "  … more that may make the verdict wrong is in the report." in lines


def test_what_limits_some_tasks_alone_is_said_with_their_names(suite: SuiteResults) -> None:
    seeds = {"verdict": "ignored", "n": 80, "same": 0.5, "other": 0.5, "n_needed": None}

    def drawn(task: Results) -> Results:
        first, *rest = task.verdicts
        return replace(task, verdicts=[replace(first, bin_idx=-1, zone_json=json.dumps({"seeds": seeds})), *rest])

    first, *others = suite.tasks
    (named,) = suite_screen(replace(suite, tasks=[drawn(first), *others]), SETTINGS).caveats
    assert named.startswith(f"{first.task}: the server ignores seeds")
    (common,) = suite_screen(replace(suite, tasks=[drawn(task) for task in suite.tasks]), SETTINGS).caveats
    assert common.startswith("The server ignores seeds")
