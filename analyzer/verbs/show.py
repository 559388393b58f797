"""`kvt show`: one example as it was sent, its golds, and what every level answered."""

import json
import random
import sqlite3
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from analyzer.metrics.single import needs_meta, parts, reads_golds
from analyzer.read import group_connection
from analyzer.read.conversation_turns import turns_before, turns_of
from analyzer.read.group_tasks import GroupTask, chosen_tasks, group_tasks
from analyzer.read.later_turns import has_own_history, own_answers, with_own_answers
from analyzer.read.runs import benched, runs
from analyzer.results.number_format import budget, number
from analyzer.stage_answers import Json, StageAnswer
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.formulas.conversation import turn_of
from kvt_async.contract.formulas.metric_needs import is_known
from kvt_async.contract.formulas.prompt_text import stored_messages, tool_fields
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.contract.vocabulary import CONSTRAINED, NODE_REPEATS, SUM

HEAD, TAIL = 700, 400  # characters shown of a long text, from its start and its end
WIDTH = 100
ANSWERS = """
SELECT u.run_id, u.series, u.kv_budget, u.kv_unit, u.is_full, u.repeat_idx, r.sample_idx, o.state, p.text,
       p.reasoning, p.tool_calls_json, p.finish_reason, p.kv_effective,
       s.score, s.em, s.metric, s.failure_label, s.flags, f.error_type, f.reason
FROM runs u
JOIN requests r ON r.run_id = u.run_id AND r.example_id = ?
JOIN outcomes o ON o.request_id = r.request_id
LEFT JOIN responses p ON p.request_id = r.request_id
LEFT JOIN failures f ON f.request_id = r.request_id
LEFT JOIN scores s ON s.request_id = r.request_id
WHERE u.exp_group_id = ? AND u.generation = ? AND u.dataset_id = ? AND (? IS NULL OR u.run_id = ? OR u.is_full)
ORDER BY u.level_idx, u.repeat_idx, u.series, u.kv_budget DESC, r.sample_idx
"""


@dataclass(frozen=True, slots=True)
class ShownLevel:
    """What one level answered: columns of ANSWERS, in their order. state: response | failure | pending. Several answers
    of a level are several of these."""

    run_id: str
    series: str
    kv_budget: float
    kv_unit: str
    is_full: int
    repeat_idx: int
    sample_idx: int
    state: str
    text: str | None
    reasoning: str | None
    tool_calls_json: str | None
    finish_reason: str | None
    kv_effective: float | None
    score: float | None
    em: float | None
    metric: str | None
    failure_label: str | None
    flags: str | None
    error_type: str | None
    reason: str | None
    told: list[str] | None = None  # own history: what it was told that it had answered, turn by turn
    parts: dict[str, float] = field(default_factory=dict)  # what its score is made of, where the metric tells

    @property
    def name(self) -> str:
        again = f" (A/A {self.repeat_idx})" if self.repeat_idx else ""
        if self.repeat_idx > NODE_REPEATS:
            again = f" (on shard {self.repeat_idx - NODE_REPEATS})"
        again += f" answer {self.sample_idx + 1}" if self.sample_idx else ""
        if self.is_full:
            return f"full cache{again}"
        if self.series == CONSTRAINED:
            return f"{CONSTRAINED}{again}"
        return f"{self.series} {budget(self.kv_budget, self.kv_unit)}{again}"

    def lines(self, width: int, *, full: bool) -> list[str]:
        """Its name in `width` columns, its score and its answer; `full`: with the whole text."""
        score = "not scored" if self.score is None else f"{self.metric} {number(self.score)}"
        marks = " ".join(mark for mark in (self.failure_label, self.flags) if mark)
        head = f"  {self.name:<{width}}  {score:<14} "
        if self.state == "pending":
            return [f"{head.rstrip()}  (no outcome yet)"]
        if self.state == "failure":
            why = f"{self.error_type} ({self.reason})" if self.error_type else f"{self.reason}, nothing was sent"
            return [f"{head}FAILED: {why} {marks}".rstrip()]
        calls = f" calls {self.tool_calls_json}" if self.tool_calls_json else ""
        answer = f"{self.text or ''}{calls}".strip()
        text = (answer if full else elided(answer, 160, 80)) or "(empty)"
        tail = f"  [{marks}]" if marks else ""
        lost = [name for name, value in self.parts.items() if value < 1 and not name.startswith(SUM)]
        tail += f"  not right: {', '.join(lost)}" if lost else ""
        lines = _wrapped(text + tail, " " * len(head), head)
        for turn, told in enumerate(self.told or ()):
            answer = (told if full else elided(told, 80, 40)) or "(empty)"
            lines += _wrapped(answer, " " * len(head), f"{'':{width + 4}}sent, turn {turn}: ")
        return lines


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example as it was sent, its golds (`answers`), and every level's answer. bin_idx None: not in a manifest;
    `offered`: its tools and tool_choice, empty where it offers none."""

    task: str
    example_id: str
    dataset_id: str
    bin_idx: int | None
    token_len: int | None
    prompt_truncated: bool
    messages: list[dict[str, str]]
    offered: Json
    answers: list[str]
    levels: list[ShownLevel]
    conversation: str | None = None  # the one that it is turn `turn` of
    turn: int | None = None
    judged_by: Json = field(default_factory=dict)  # fields of meta in place of golds; empty: golds are read

    def lines(self, *, full: bool) -> list[str]:
        """What a person reads of it; `full`: with whole texts."""
        place = f"bin {self.bin_idx}, {self.token_len} tokens" if self.bin_idx is not None else ""
        cut = ", context cut in the middle" if self.prompt_truncated else ""
        turn = f"; turn {self.turn} of conversation {self.conversation}" if self.conversation is not None else ""
        lines = [f"example {self.example_id} of {self.task} ({self.dataset_id}; {place}{cut}{turn})"]
        if any(level.told is not None for level in self.levels):
            lines.append("  earlier answers below are the data's; each level was sent its own, as shown beside it")
        for message in self.messages:
            lines.append(f"  {message['role']}:")
            lines += _wrapped(message["content"] if full else elided(message["content"]), "    ")
        for name, value in self.offered.items():
            text = json.dumps(value, ensure_ascii=False)
            lines += _wrapped(text if full else elided(text, 300, 80), "    ", f"  {name}: ")
        for name, value in self.judged_by.items():
            text = json.dumps(value, ensure_ascii=False)
            lines += _wrapped(text if full else elided(text, 300, 80), "    ", f"  {name}: ")
        if not self.judged_by:
            lines.append(f"  golds: {' | '.join(self.answers) or '(none)'}")
        if not self.levels:
            lines.append("  no level has asked it yet")
        width = max((len(level.name) for level in self.levels), default=0)
        return lines + [line for level in self.levels for line in level.lines(width, full=full)]


@dataclass(frozen=True)
class ShowAnswer(StageAnswer):
    """Examples as they were sent, each with its golds and the answer of every level; `full`: with whole texts."""

    examples: list[ShownExample]
    full: bool

    @property
    def lines(self) -> list[str]:
        return [line for example in self.examples for line in [*example.lines(full=self.full), ""]][:-1]

    def json(self) -> Json:
        return {"examples": [asdict(example) for example in self.examples]}


def show(
    conn: sqlite3.Connection,
    settings: Settings,
    example_id: str | None,
    *,
    sample: int | None = None,
    task: str | None = None,
    run_id: str | None = None,
    full: bool = False,
) -> ShowAnswer:
    """Examples with every answer, of every task that has them or of `task` alone.

    `run_id` leaves full cache and that run. A sample is seeded with analysis.seed, so it is the same every time.
    Raises ConfigError for an example, task or run that the group does not have.
    """
    group = settings.experiment.exp_group_id
    row = conn.execute("SELECT max(generation) FROM experiments WHERE exp_group_id=?", (group,)).fetchone()
    if row[0] is None:
        raise MissingPrerequisiteError(f"the database holds no group {group!r}", do="Run `kvt sweep -c CONFIG` first.")
    if benched(conn, group):
        raise ConfigError(
            f"{group} was benched: its requests are no examples at budgets",
            do=f"See its figures with `kvt bench report`, its requests with `kvt bench export {group} --format csv "
            "--requests`.",
        )
    key = (group, int(row[0]))
    _check_run(conn, key, run_id)
    tasks = _tasks(conn, key, task, run_id)
    if example_id is not None:
        places = [(each, name) for each in tasks for name in turns_of(conn, each.dataset_id, example_id)]
    else:
        places = _sample(conn, tasks, sample or 0, settings.analysis.seed)
    examples = [_example(conn, key, *place, run_id) for place in places]
    shown = [example for example in examples if example is not None]
    if not shown and example_id is not None:
        raise ConfigError(
            f"there is no example {example_id!r} in {group}" + (f", task {task}" if task else ""),
            where="kvt show",
            do="Pass an example_id of manifest.json, or --sample 10.",
        )
    return ShowAnswer(shown, full)


def _tasks(conn: sqlite3.Connection, key: tuple[str, int], name: str | None, run_id: str | None) -> list[GroupTask]:
    """The tasks to show: all, or that of this name or run."""
    tasks = chosen_tasks(group_tasks(conn, *key), None if name is None else [name], where="--task")
    if run_id is None:
        return tasks
    (dataset_id,) = conn.execute("SELECT dataset_id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return [task for task in tasks if task.dataset_id == dataset_id]


def _check_run(conn: sqlite3.Connection, key: tuple[str, int], run_id: str | None) -> None:
    if run_id is None:
        return
    run_ids = [r[0] for r in conn.execute("SELECT run_id FROM runs WHERE exp_group_id=? AND generation=?", key)]
    if run_id not in run_ids:
        raise ConfigError(
            f"there is no run {run_id!r} in {key[0]}", where="--run-id", do=f"Its runs: {', '.join(sorted(run_ids))}."
        )


def _sample(conn: sqlite3.Connection, tasks: Sequence[GroupTask], n: int, seed: int) -> list[tuple[GroupTask, str]]:
    """n examples with their tasks, task by task in manifest order, drawn with `seed`."""
    places = [
        (task, row[0])
        for task in tasks
        for row in conn.execute(
            "SELECT example_id FROM manifest_entries WHERE dataset_id = ? ORDER BY seq", (task.dataset_id,)
        )
    ]
    chosen = set(random.Random(seed).sample(range(len(places)), min(n, len(places))))
    return [place for at, place in enumerate(places) if at in chosen]


def _example(
    conn: sqlite3.Connection, key: tuple[str, int], task: GroupTask, example_id: str, run_id: str | None
) -> ShownExample | None:
    """The example as a task has it; None: it hasn't."""
    row = conn.execute(
        "SELECT x.dataset_id, x.question, x.context, x.answers_json, x.meta_json, d.prompt_json, d.metric, m.bin_idx,"
        " m.token_len, m.prompt_truncated FROM examples x JOIN datasets d USING (dataset_id)"
        " LEFT JOIN manifest_entries m ON m.dataset_id = x.dataset_id AND m.example_id = x.example_id"
        " WHERE x.example_id=? AND x.dataset_id=?",
        (example_id, task.dataset_id),
    ).fetchone()
    if row is None:
        return None
    dataset_id, question, context, answers, meta, prompt, own_metric, bin_idx, token_len, cut = row
    rule = json.loads(prompt)
    of_row = json.loads(meta)
    messages = stored_messages(rule, context, question, of_row)
    databases, asked = group_connection.parts(conn), (example_id, *key, dataset_id, run_id, run_id)
    rows = [row for database in databases for row in database.execute(ANSWERS, asked)]
    if len(databases) > 1:  # levels that are in different databases, in the order of the config
        order = {run.run_id: at for at, run in enumerate(runs(conn, *key))}
        rows.sort(key=lambda row: (order.get(row[0], len(order)), row[6]))
    levels = [_with_parts(ShownLevel(*row), of_row) for row in rows]
    metric = next((level.metric for level in levels if level.metric), own_metric)
    turn = turn_of(of_row)
    if turn is not None and turn.turn and levels and has_own_history(conn, levels[0].run_id):
        before = turns_before(conn, dataset_id, example_id, turn)
        opened = bool(rule.get("reasoning_tag"))
        levels = [replace(level, told=_told(conn, level, before, meta, opened=opened)) for level in levels]
    return ShownExample(
        task=task.name,
        example_id=example_id,
        dataset_id=dataset_id,
        bin_idx=bin_idx,
        token_len=token_len,
        prompt_truncated=bool(cut),
        messages=messages,
        offered=tool_fields(of_row),
        answers=json.loads(answers),
        levels=levels,
        judged_by=_in_place_of_golds(metric, of_row),
        conversation=turn.conversation if turn else None,
        turn=turn.turn if turn else None,
    )


def _told(
    conn: sqlite3.Connection, level: ShownLevel, before: dict[str, int], meta: str, *, opened: bool
) -> list[str] | None:
    """What a level was told that it had answered to the turns before; None: it was sent nothing."""
    if level.state == "failure" and level.error_type is None:
        return None
    answers = own_answers(conn, level.run_id, level.sample_idx, before, opened=opened)
    return [told for _, told in with_own_answers(meta, answers)["turns"]]


def _with_parts(level: ShownLevel, meta: Json) -> ShownLevel:
    """The level with what the score of its answer is made of; a plugin's metric that isn't loaded tells nothing."""
    if level.metric is None or level.state != "response" or not is_known(level.metric):
        return level
    return replace(level, parts=parts(level.metric, level.text or "", meta, right=level.score == 1))


def _in_place_of_golds(metric: str, meta: Json) -> Json:
    if not is_known(metric) or reads_golds(metric):
        return {}
    return {name: meta[name] for name in needs_meta(metric) if name in meta}


def elided(text: str, head: int = HEAD, tail: int = TAIL) -> str:
    """The middle of a long text replaced by how much it was."""
    left_out = len(text) - head - tail
    if left_out <= 60:
        return text
    return f"{text[:head]} … [{left_out:,} characters left out; --full shows them] … {text[-tail:]}"


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    lines: list[str] = []
    for paragraph in visible(text).split("\n"):
        start = first if first is not None and not lines else indent
        lines += textwrap.wrap(
            paragraph, max(WIDTH, len(indent) + 40), initial_indent=start, subsequent_indent=indent
        ) or [start.rstrip()]
    return lines
