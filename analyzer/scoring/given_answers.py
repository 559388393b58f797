"""What each answer to an example says, for `majority@K`: equal texts are equal answers."""

import sqlite3
from collections.abc import Callable, Iterator

import polars as pl

from analyzer import metrics
from analyzer.metrics.fast.overlap import answers, has_reasoning
from analyzer.read import outcomes
from analyzer.read.runs import Run, metric_of_scores
from kvt_async.contract.formulas.metric_needs import is_known


def given_answers(facts: sqlite3.Connection, run: Run, samples: int) -> pl.DataFrame:
    """example_id, sample_idx, answer of the first `samples` answers of each example that are scored.

    `answer`: what the reply states at its end (a number, a letter, what is in the box), where the metric of the scores
    reads that; the whole text, normalised, where it states nothing and under any other metric.
    """
    whole = outcomes.normalised_answers(facts, run, samples)
    if (states := _states(metric_of_scores(facts, run.run_id))) is not None:
        stated = pl.concat(list(_stated(facts, run, states)))
        whole = whole.join(stated, on=["example_id", "sample_idx"], how="left").with_columns(
            pred_norm=pl.coalesce("stated", "pred_norm")
        )
    return whole.select("example_id", "sample_idx", answer="pred_norm")


def _states(metric: str | None) -> Callable[[str], str | None] | None:
    task = metrics.find(metric) if metric is not None and is_known(metric) else None
    return task.format_ok.states if task is not None and isinstance(task.format_ok, metrics.AtTheEnd) else None


def _stated(facts: sqlite3.Connection, run: Run, states: Callable[[str], str | None]) -> Iterator[pl.DataFrame]:
    """example_id, sample_idx, stated (null: nothing) of every reply of a run, in chunks."""
    yield pl.DataFrame(schema={"example_id": pl.String, "sample_idx": pl.Int64, "stated": pl.String})
    for chunk in outcomes.score_inputs(facts, [run], None):
        replies = chunk.filter(~pl.col("is_failure")).with_columns(pl.col("text").fill_null(""))
        marked = replies.select(marked=has_reasoning(pl.col("text")))["marked"]
        texts = answers(replies["text"], marked).to_list()
        stated = pl.Series("stated", [_told_apart(states(answer)) for answer in texts], dtype=pl.String)
        yield replies.select("example_id", "sample_idx", stated)


def _told_apart(stated: str | None) -> str | None:
    """From every normalised answer: none begins with a space."""
    return None if stated is None else f" {stated}"
