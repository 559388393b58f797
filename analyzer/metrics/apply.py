"""A task's metric over a frame of answers."""

import polars as pl

from analyzer.metrics import Metric, find
from analyzer.metrics.rows import score_rows
from analyzer.metrics.text import best_pair_f1

_COLUMNS = ("qa_f1", "qa_f1_first_line")  # token overlap: over whole columns where the text is plain
_NUMBERS = {"count": None, "retrieval": r"Paragraph (\d+)", "retrieval_zh": r"段落(\d+)"}  # where the gold's number is
_PLAIN = r"^[\t\n\r -~]*$"  # ASCII, where Python's and Polars' white space and word boundaries are the same
_PUNCTUATION = "[[:punct:]]"  # string.punctuation


def task_scores(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Add score in [0, 1] and format_ok (null where the task defines no form) to a frame.

    Needs said (text), golds (list of text), meta_json (or null) where the metric reads it; em and f1 for these two.
    Raises ConfigError for an unknown metric or one whose package is missing.
    """
    task = find(name)
    if task is None:
        return frame.with_columns(score=pl.col(name), format_ok=pl.lit(None, dtype=pl.Boolean))
    if name in _NUMBERS:
        return pl.concat([frame, _numbers(frame, _NUMBERS[name])], how="horizontal")
    said = pl.col("said")
    if task.first_line:
        said = said.str.strip_chars_start("\n").str.split("\n").list.first()
    columns = ["said", "golds", *(["meta_json"] if task.needs_meta else [])]
    answers = frame.select(said.alias("said"), *columns[1:])
    plain = _plain(answers) if name in _COLUMNS else pl.Series([False] * frame.height, dtype=pl.Boolean)
    by_column = _overlap(answers.filter(plain)) if plain.any() else pl.Series([], dtype=pl.Float64)
    by_row = _one_by_one(answers.filter(~plain), task)
    where = pl.concat([plain.arg_true(), (~plain).arg_true()])
    scores = pl.concat([by_column, by_row["score"]])
    forms = pl.concat([pl.Series([None] * by_column.len(), dtype=pl.Boolean), by_row["format_ok"]])
    ordered = pl.DataFrame({"at": where, "score": scores, "format_ok": forms}).sort("at")
    return frame.with_columns(ordered["score"], ordered["format_ok"])


def _numbers(frame: pl.DataFrame, pattern: str | None) -> pl.DataFrame:
    """Share of the answer's numbers that equal the gold's, best over golds (choice.count_one); format: has a number."""
    gold = pl.col("golds")
    if pattern is not None:
        gold = gold.list.eval(pl.coalesce(pl.element().str.extract(pattern), pl.element()))
    found = frame.lazy().select(numbers=pl.col("said").str.extract_all(r"\d+"), golds=gold).with_row_index("row")
    scored = (
        found.explode("golds")
        .explode("numbers")
        .group_by("row", "golds")
        .agg(score=(pl.col("numbers") == pl.col("golds")).mean())
        .group_by("row")
        .agg(pl.col("score").max())
    )
    return (
        found.join(scored, on="row", how="left", maintain_order="left")
        .select(pl.col("score").fill_null(0.0), format_ok=pl.col("numbers").list.len() > 0)
        .collect()
    )


def _one_by_one(answers: pl.DataFrame, task: Metric) -> pl.DataFrame:
    meta = answers["meta_json"].to_list() if task.needs_meta else [""] * answers.height
    golds = (tuple(given or ()) for given in answers["golds"].to_list())
    rows = list(zip(answers["said"].to_list(), golds, (m or "" for m in meta), strict=True))
    types = {"score": pl.Float64, "format_ok": pl.Boolean}
    return pl.DataFrame(score_rows(task.name, rows), schema=types, orient="row")


def _plain(answers: pl.DataFrame) -> pl.Series:
    golds = pl.col("golds").list.eval(pl.element().str.contains(_PLAIN)).list.all().fill_null(True)
    return answers.select(pl.col("said").str.contains(_PLAIN) & golds).to_series()


def _overlap(answers: pl.DataFrame) -> pl.Series:
    """Best F1 over golds of plain texts; nothing shared, empty texts included: 0."""
    some = pl.col("golds").list.len() > 0
    pairs = (
        answers.with_row_index("row")
        .select("row", pred_norm=_tokens(pl.col("said")), golds=pl.when(some).then("golds").otherwise(pl.lit([""])))
        .explode("golds")
        .select("row", "pred_norm", gold=_tokens(pl.col("golds")))
    )
    return best_pair_f1(pairs)["f1"]


def _tokens(text: pl.Expr) -> pl.Expr:
    """Words without punctuation and articles in lower case, by single spaces: words.english_tokens of a column."""
    bare = text.str.to_lowercase().str.replace_all(_PUNCTUATION, "").str.replace_all(r"\b(a|an|the)\b", " ")
    return bare.str.replace_all(r"\s+", " ").str.strip_chars()
