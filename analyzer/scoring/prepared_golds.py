"""Golds as scoring wants them: read for the examples that are scored, and kept for the next answers to these."""

import sqlite3

import polars as pl

from analyzer import metrics
from analyzer.metrics.fast.overlap import normalised
from analyzer.read import examples
from analyzer.read.examples import BinnedDataset


class Golds:
    """The golds of one data set, as far as they were asked for."""

    def __init__(self, dataset: BinnedDataset) -> None:
        self._dataset = dataset
        self._frame: pl.DataFrame | None = None

    def beside(self, facts: sqlite3.Connection, answers: pl.DataFrame) -> pl.DataFrame:
        """The answers, each with the golds of its example: the columns of `prepared_golds`."""
        asked = answers.select(pl.col("example_id").unique(maintain_order=True))
        if self._frame is not None:
            asked = asked.join(self._frame, on="example_id", how="anti")
        if asked.height or self._frame is None:
            more = prepared_golds(facts, self._dataset, asked["example_id"])
            self._frame = more if self._frame is None else pl.concat([self._frame, more])
        return answers.join(self._frame, on="example_id", how="left", maintain_order="left")


def prepared_golds(facts: sqlite3.Connection, dataset: BinnedDataset, only: pl.Series | None = None) -> pl.DataFrame:
    """example_id, token_len, golds, golds_norm and, where the metric needs fields of meta, needed_json; of every entry,
    or of `only` these example_ids."""
    task = metrics.find(dataset.metric)
    frame = examples.golds(facts, dataset.dataset_id, needs_meta=task.needs_meta if task is not None else (), only=only)
    lists = (
        frame.lazy()
        .with_row_index("row")
        .select("row", gold=pl.col("golds"))
        .explode("gold")
        .drop_nulls()
        .with_columns(gold=normalised(pl.col("gold")))
        .group_by("row", maintain_order=True)
        .agg(golds_norm=pl.col("gold"))
        .collect()
    )
    return (
        frame.with_row_index("row")
        .join(lists, on="row", how="left", maintain_order="left")
        .drop("row")
        .with_columns(pl.col("golds_norm").fill_null(pl.lit([], dtype=pl.List(pl.String))))
    )
