"""A task's metric over a frame of answers."""

from functools import partial

import polars as pl

from analyzer.metrics import find
from analyzer.metrics.fast.column_rules import SCORED, by_rows, joined, rule
from analyzer.metrics.fast.overlap import best_pair_f1, overlap_scores

_OVERLAPS = {  # token overlap: over whole columns where the text is plain; the rule of one answer
    "qa_f1": "qa_f1",
    "qa_f1_first_line": "qa_f1",
    "squad_em": "squad_em",
    "squad_f1": "squad_f1",
}
_PLAIN = r"^[\t\n\r -~]*$"  # ASCII, where Python's and Polars' white space and word boundaries are the same
_PUNCTUATION = "[[:punct:]]"  # string.punctuation


def task_scores(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Add score in [0, 1] and format_ok (null where the task defines no form) to a frame.

    Needs said (text), golds (list of text); needed_json (a JSON object of the fields of the example's meta that the
    metric needs) where it needs any; em and f1 for these two.
    Raises ConfigError for an unknown metric or one whose package is missing.
    """
    task = find(name)
    if task is None:
        return frame.with_columns(score=pl.col(name), format_ok=pl.lit(None, dtype=pl.Boolean))
    said = pl.col("said")
    if task.first_line:
        said = said.str.strip_chars_start("\n").str.split_exact("\n", 0).struct.field("field_0")
    answers = frame.select(said.alias("said"), "golds", *(["needed_json"] if task.needs_meta else []))
    by_column = partial(_overlaps, name=_OVERLAPS[name]) if name in _OVERLAPS else rule(name)
    scores = by_column(answers) if by_column else by_rows(answers, task)
    return frame.with_columns(scores["score"], scores["format_ok"])


def _overlaps(answers: pl.DataFrame, name: str) -> pl.DataFrame:
    """Plain texts over columns, others one by one; the first-line rule has been applied to either."""
    task = find(name)
    if task is None:
        raise ValueError(f"{name} is no metric of its own")
    plain = _plain(answers)
    parts = [((~plain).arg_true(), by_rows(answers.filter(~plain), task))]
    if plain.any():
        overlap = _overlap(answers.filter(plain)) if name == "qa_f1" else _squad(answers.filter(plain), name)
        parts.append((plain.arg_true(), pl.DataFrame({"score": overlap, "format_ok": None}, schema=SCORED)))
    return joined(parts)


def _plain(answers: pl.DataFrame) -> pl.Series:
    golds = pl.col("golds").list.eval(pl.element().str.contains(_PLAIN)).list.all().fill_null(True)
    return answers.select(pl.col("said").str.contains(_PLAIN) & golds).to_series()


def _overlap(answers: pl.DataFrame) -> pl.Series:
    """Best F1 over golds of plain texts; nothing shared, empty texts included: 0."""
    has_gold = pl.col("golds").list.len() > 0
    pairs = (
        answers.with_row_index("row")
        .select("row", pred_norm=_tokens(pl.col("said")), golds=pl.when(has_gold).then("golds").otherwise(pl.lit([""])))
        .explode("golds")
        .select("row", "pred_norm", gold=_tokens(pl.col("golds")))
    )
    return best_pair_f1(pairs)["f1"]


def _squad(answers: pl.DataFrame, name: str) -> pl.Series:
    """squad.py's rules of plain texts."""
    golds = pl.col("golds").fill_null(pl.lit([], dtype=pl.List(pl.String)))
    words = golds.list.eval(_tokens(pl.element())).list.eval(pl.element().filter(pl.element() != ""))
    pairs = answers.select(pred_norm=_tokens(pl.col("said")), golds_norm=words)
    return overlap_scores(pairs)[name.removeprefix("squad_")]


def _tokens(text: pl.Expr) -> pl.Expr:
    """Words without punctuation and articles in lower case, by single spaces: words.english_tokens of a column."""
    bare = text.str.to_lowercase().str.replace_all(_PUNCTUATION, "").str.replace_all(r"\b(a|an|the)\b", " ")
    return bare.str.replace_all(r"\s+", " ").str.strip_chars()
