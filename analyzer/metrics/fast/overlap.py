"""Answers, normalisation, exact match and token-overlap F1 over whole columns in Polars; the rules for one text are
normal.py's and formulas/reasoning.py's, and these give what those give.
"""

import polars as pl

from analyzer.metrics.normal import SPECIAL, WHITE, normalise, punctuation
from kvt_async.contract.formulas import reasoning

_ASCII_MARKS = "[[:punct:]]"
_ASCII = "^[\\x00-\\x7f]*$"


def has_reasoning(text: pl.Expr) -> pl.Expr:
    """`reasoning.has_reasoning` of a column."""
    return text.str.contains(reasoning.HINT) & text.str.contains(reasoning.MARK)


def closes_reasoning(text: pl.Expr) -> pl.Expr:
    """Whether each text ends reasoning somewhere."""
    return text.str.contains(reasoning.CLOSING)


def answers(text: pl.Series, marked: pl.Series) -> pl.Series:
    """`reasoning.strip_reasoning` of a column; `marked` is its `has_reasoning`."""
    if marked.any():
        text = text.scatter(marked.arg_true(), _unreasoned(text.filter(marked)))
    return text.str.strip_chars()


def _unreasoned(text: pl.Series) -> pl.Series:
    whole, bare = pl.col("text"), pl.col("text")
    for pattern in (reasoning.UP_TO_FINAL, reasoning.AFTER_FINAL):
        bare = bare.str.replace(pattern, "")
    bare = pl.when(whole.str.contains(reasoning.CHANNEL, literal=True)).then(bare).otherwise(whole)
    for pattern in reasoning.REST:
        bare = bare.str.replace_all(pattern, "")
    return text.to_frame("text").select(bare).to_series()


def normalised(text: pl.Expr) -> pl.Expr:
    """`normalise` of a column."""
    return text.map_batches(_normalised, return_dtype=pl.String, is_elementwise=True)


def _normalised(text: pl.Series) -> pl.Series:
    """Most texts hold no punctuation but what goes, and one pass takes it; the others are normalised one by one."""
    name, text = text.name, text.alias("text")
    plain = text.len() == 0 or bool(text.str.contains(_ASCII).all())
    lower = (text if plain else text.str.normalize("NFC")).str.to_lowercase()
    bare = lower.str.replace_all(_ASCII_MARKS if plain else punctuation(), "")
    bare = bare.str.replace_all(f"[{WHITE}]+", " ").str.strip_chars(" ")
    special = (lower.str.contains(SPECIAL) | (bare == "")).fill_null(False)
    if special.any():
        bare = bare.scatter(special.arg_true(), [normalise(one) for one in text.filter(special)])
    return bare.alias(name)


def overlap_scores(frame: pl.DataFrame) -> pl.DataFrame:
    """EM and F1, best over golds, of a frame with `pred_norm` (text) and `golds_norm` (list of text); rows in order.

    Adds em, f1 in [0, 1] and gold_norm, the first gold that scored best. An example without golds is one whose right
    answer is no answer: an empty prediction scores 1, any other 0, and gold_norm is null.
    """
    no_gold = pl.col("golds_norm").list.len() == 0
    pairs = (
        frame.select("pred_norm", gold=pl.when(no_gold).then(pl.lit([""])).otherwise("golds_norm"))
        .with_row_index("row")
        .explode("gold")
    )
    scored = (
        pairs.join(_pair_f1(pairs), on=["pred_norm", "gold"], how="left", maintain_order="left")
        .with_columns(em=(pl.col("pred_norm") == pl.col("gold")).cast(pl.Float64))
        .with_columns(f1=pl.when(pl.col("em") == 1).then(1.0).otherwise(pl.col("f1").fill_null(0.0)))
    )
    if scored.height > frame.height:
        scored = scored.group_by("row", maintain_order=True).agg(
            pl.col("em").max(), pl.col("f1").max(), pl.col("gold").get(pl.col("f1").arg_max())
        )
    best = scored.select("em", "f1", gold_norm="gold")
    return pl.concat([frame, best], how="horizontal").with_columns(
        gold_norm=pl.when(no_gold).then(None).otherwise("gold_norm")
    )


def best_pair_f1(pairs: pl.DataFrame) -> pl.DataFrame:
    """Best F1 over a row's golds, of a frame with row, pred_norm and gold (texts of words with single spaces between).

    One line per row, in order: row, f1; 1 for equal texts, 0 where either is empty.
    """
    equal = (pl.col("pred_norm") == pl.col("gold")) & (pl.col("gold") != "")
    scored = pairs.join(_pair_f1(pairs), on=["pred_norm", "gold"], how="left", maintain_order="left").select(
        "row", f1=pl.when(equal).then(1.0).otherwise(pl.col("f1").fill_null(0.0))
    )
    return scored.group_by("row", maintain_order=True).agg(pl.col("f1").max())


def _pair_f1(pairs: pl.DataFrame) -> pl.DataFrame:
    """F1 of each distinct (pred_norm, gold) that differ and share a token; any other pair has no row."""
    distinct = (
        pairs.lazy()
        .select("pred_norm", "gold")
        .filter((pl.col("pred_norm") != pl.col("gold")) & (pl.col("pred_norm") != "") & (pl.col("gold") != ""))
        .unique()
        .with_row_index("pair")
        .collect()
    )
    common = (
        _token_counts(distinct, "gold")
        .join(_token_counts(distinct, "pred_norm"), on=["pair", "token"])
        .group_by("pair")
        .agg(common=pl.min_horizontal("len", "len_right").sum())
    )
    words = pl.col("pred_norm").str.count_matches(" ", literal=True) + pl.col("gold").str.count_matches(
        " ", literal=True
    )
    return (
        distinct.lazy()
        .join(common, on="pair")
        .select("pred_norm", "gold", f1=2.0 * pl.col("common") / (words + 2))
        .collect()
    )


def _token_counts(distinct: pl.DataFrame, column: str) -> pl.LazyFrame:
    """How often each token (by its hash) occurs in each pair's text; normalised texts hold single spaces only."""
    return (
        distinct.lazy()
        .select("pair", token=pl.col(column).str.split(" "))
        .explode("token")
        .with_columns(pl.col("token").hash(seed=1))
        .group_by("pair", "token")
        .len()
    )
