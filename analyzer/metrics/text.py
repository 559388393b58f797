"""Text normalisation, exact match and token-overlap F1: over whole columns in Polars, and the same rules for one text.

Normalisation (EM, F1): lower-case, delete punctuation, collapse white space, trim. Inline `<think>...</think>` is
removed first, an unclosed `<think>` with all that follows it. Punctuation is ASCII punctuation and symbols plus
Unicode category P; accents and digits stay.
"""

import re
import string
import unicodedata
from collections import Counter

import polars as pl

_THINK = r"(?s)<think>.*?(</think>|$)"
_PUNCTUATION = r"[\p{P}" + re.escape(string.punctuation).replace("~", r"\~") + "]"


def strip_reasoning(text: str) -> str:
    """The answer alone: without inline reasoning."""
    return re.sub(_THINK, "", text).strip()


def normalise(text: str) -> str:
    """Normalised form of one text; the columns' rule is `normalised`."""
    kept = (c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def has_reasoning(text: pl.Expr) -> pl.Expr:
    return text.str.contains("<think>", literal=True)


def answer(text: pl.Expr) -> pl.Expr:
    """`strip_reasoning` of a column."""
    return text.str.replace_all(_THINK, "").str.strip_chars()


def normalised(text: pl.Expr) -> pl.Expr:
    """`normalise` of a column."""
    return text.str.to_lowercase().str.replace_all(_PUNCTUATION, "").str.replace_all(r"\s+", " ").str.strip_chars()


def token_f1(prediction: str, gold: str) -> float:
    """Token-overlap F1 of two normalised texts, multiplicities counted, in [0, 1]; both empty: 1, one empty: 0."""
    a, b = prediction.split(), gold.split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


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
