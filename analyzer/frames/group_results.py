"""Results as a notebook opens them: frames of what was measured, charts, and scores by another metric."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.frames.other_scores import MetricOfAnswers, scores_of
from analyzer.read.group_connection import open_group
from analyzer.read.outcomes import LATENCIES, export_rows
from analyzer.results import result_rows
from analyzer.results.result_rows import Row
from analyzer.results.results import Results, of_task
from analyzer.results.suite_results import SuiteResults

OUTCOME_COLUMNS = (
    *("task", "model_name", "series", "kv_budget", "repeat_idx", "example_id", "sample_idx", "turn_idx", "bin_idx"),
    *("context_sha256", "prompt_tokens", "kept_tokens", "state", "score", "failure_label", "error_type"),
    *("completion_tokens", "cached_tokens", "cache_state", *LATENCIES, "request_id", "run_id"),
)
ANSWER_COLUMNS = (
    *("task", "model_name", "series", "kv_budget", "repeat_idx", "example_id", "sample_idx", "turn_idx", "bin_idx"),
    *("question", "golds", "text", "tool_calls_json", "finish_reason", "state", "score", "metric", "request_id"),
)


@dataclass(frozen=True)
class GroupResults(Results):
    """Results that know where they lie, so that frames of single answers can be read too. `place`: the database."""

    place: Path = Path()

    @classmethod
    def of(cls, results: Results, place: Path) -> "GroupResults":
        """These results, which were read from the database at `place`."""
        return cls(**{field.name: getattr(results, field.name) for field in fields(Results)}, place=place)

    def outcomes(self) -> pl.DataFrame:
        """A row for every finished request, in the order of the data and of the levels.

        state: answered or failed. score: from 0 to 1; null where it is not scored; a failed request has 0. kept_tokens:
        as the server counted, else from the effective budget; null without evidence. Latencies in seconds; null where
        a stamp is missing. context_sha256: examples of one context are no independent ones.
        """
        return self._rows().select(OUTCOME_COLUMNS)

    def answers(self) -> pl.DataFrame:
        """A row for every finished request with its question, golds (a list), text and score."""
        return self._rows().select(ANSWER_COLUMNS)

    def curves(self) -> pl.DataFrame:
        """A row for every run in every bin (-1: all lengths): accuracy, loss, evidence, memory and latency, with
        intervals; what `kvt results` prints."""
        return _frame(result_rows.level_rows(self), result_rows.LEVEL_COLUMNS)

    def drops_frame(self) -> pl.DataFrame:
        """The rows of curves() that are compared with full cache."""
        return self.curves().filter(pl.col("drop_mean").is_not_null())

    def verdicts_frame(self) -> pl.DataFrame:
        """A row for every series over all lengths (bin_idx -1) and in each bin: proven budgets, and the sentence."""
        return _frame(result_rows.verdict_rows(self), result_rows.VERDICT_COLUMNS)

    def comparisons_frame(self) -> pl.DataFrame:
        """A row for every two series at one budget in a bin."""
        return _frame(result_rows.comparison_rows(self), result_rows.COMPARISON_COLUMNS)

    def figure(self, name: str, *, width: int = 680, title: bool = True) -> Any:
        """A chart of the report as an Altair chart: accuracy, loss, verdict, ..., or its file's name.

        `width` of the panels in pixels. Raises ConfigError for a chart that there is not."""
        from analyzer.frames.figures import task_figure

        return task_figure(self, name, width, title=title)

    def rescore(self, metric: "str | MetricOfAnswers") -> pl.DataFrame:
        """outcomes() with `score` by another metric, and the stored one as `stored_score`; nothing is written or sent.

        `metric`: a name that analysis.metric takes, or a function of (answer, golds, the example's meta) that returns a
        score from 0 to 1. A failed request has 0. Raises ConfigError for an unknown name, ValueError for a score that
        is none. Judge the frame with analyzer.paired_losses.
        """
        with closing(open_group(self.place)) as conn:
            score = scores_of(conn, self.dataset_id, metric)
        rows = self._rows()
        return rows.select(OUTCOME_COLUMNS).with_columns(stored_score="score", score=score(rows))

    def _rows(self) -> pl.DataFrame:
        frames = list(self._portions())
        rows = (
            pl.concat(frames)
            if frames
            else pl.DataFrame(schema=dict.fromkeys([*OUTCOME_COLUMNS, *ANSWER_COLUMNS, "is_failure"]))
        )
        if not frames:
            return rows
        failed = pl.when("is_failure").then(pl.lit("failed")).otherwise(pl.lit("answered"))
        return rows.with_columns(state=failed)

    def _portions(self) -> Iterator[pl.DataFrame]:
        with closing(open_group(self.place)) as conn:
            for run in self.runs:
                yield from export_rows(conn, run, self.task)


@dataclass(frozen=True)
class GroupSuite(SuiteResults):
    """Results of several tasks that know where they lie."""

    place: Path = Path()

    @classmethod
    def of(cls, suite: SuiteResults, place: Path) -> "GroupSuite":
        """These results, which were read from the database at `place`."""
        tasks: list[Results] = [GroupResults.of(task, place) for task in suite.tasks]
        return cls(tasks, suite.stats, suite.verdicts, place)

    def task(self, name: str) -> GroupResults:
        """Of the task of this name. Raises MissingPrerequisiteError where the group has none."""
        return GroupResults.of(of_task(self.tasks, name), self.place)

    def outcomes(self) -> pl.DataFrame:
        """A row for every finished request of every task; see GroupResults.outcomes."""
        return pl.concat([self.task(task.task).outcomes() for task in self.tasks])

    def answers(self) -> pl.DataFrame:
        """A row for every answer of every task; see GroupResults.answers."""
        return pl.concat([self.task(task.task).answers() for task in self.tasks])

    def curves(self) -> pl.DataFrame:
        """A row for every level: the mean over tasks, then each task's own as in GroupResults.curves."""
        own = [row for task in self.tasks for row in result_rows.level_rows(task)]
        return _frame([*result_rows.suite_level_rows(self), *own], result_rows.LEVEL_COLUMNS)

    def verdicts_frame(self) -> pl.DataFrame:
        """A row for every series over all tasks, then each task's own."""
        own = [row for task in self.tasks for row in result_rows.verdict_rows(task)]
        return _frame([*result_rows.suite_verdict_rows(self), *own], result_rows.VERDICT_COLUMNS)

    def figure(self, name: str, *, width: int = 680, title: bool = True) -> Any:
        """A chart over the tasks as an Altair chart: tasks or map. Of one task: suite.task(NAME).figure(...)."""
        from analyzer.frames.figures import suite_figure

        return suite_figure(self, name, width, title=title)


def _frame(rows: list[Row], names: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=list(names), orient="row", infer_schema_length=None)
