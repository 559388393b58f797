"""Metrics of short answers over whole columns: numbers, needles and class names. Each gives what its rule for one
answer (choice.py, qa.py) gives, several times faster than calling it.

A rule takes a frame with said (text), golds (list of text) and, for classes, needed_json, which holds the example's
list of them, and returns score in [0, 1] and format_ok for every row, in order.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TypeGuard

import polars as pl

from analyzer.metrics import Metric, find
from analyzer.metrics.choice import NamedScore, named_fixed_score, named_score
from analyzer.metrics.fast.row_scorer import needed_meta, score_rows

Rule = Callable[[pl.DataFrame], pl.DataFrame]
SCORED = {"score": pl.Float64, "format_ok": pl.Boolean}

_NEEDLE = r"^[!-~]([ -~]*[!-~])?$"  # printable ASCII, where Python and Polars agree on lower case, and trimmed
_LISTS = 4  # lists of classes that are searched for; a task has one, and what has more goes row by row


def rule(name: str) -> Rule | None:
    """The column rule of a metric; None where it is scored answer by answer."""
    return _rules().get(name)


@cache
def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {
        "count": partial(_numbers, pattern=None),
        "retrieval": partial(_numbers, pattern=r"Paragraph (\d+)"),
        "retrieval_zh": partial(_numbers, pattern=r"段落(\d+)"),
        "string_match_all": partial(_needles, name="string_match_all"),
        "string_match_part": partial(_needles, name="string_match_part"),
    }
    for first_line in ("", "_first_line"):
        for name, score in (("classification", named_score), ("classification_fixed", named_fixed_score)):
            rules[name + first_line] = partial(_classes, name=name + first_line, named=score)
    return rules


def by_rows(answers: pl.DataFrame, task: Metric) -> pl.DataFrame:
    """The metric called for each distinct answer."""
    needed = answers["needed_json"].to_list() if task.needs_meta else [""] * answers.height
    golds = (tuple(given or ()) for given in answers["golds"].to_list())
    given = list(zip(answers["said"].to_list(), golds, (text or "" for text in needed), strict=True))
    return pl.DataFrame(score_rows(task.name, given), schema=SCORED, orient="row")


def joined(parts: list[tuple[pl.Series, pl.DataFrame]]) -> pl.DataFrame:
    """Scores of parts of a frame, each with its rows' places in it, in the frame's order."""
    if len(parts) == 1:
        return parts[0][1]
    placed = [scores.select("score", "format_ok", at=where) for where, scores in parts]
    return pl.concat(placed).sort("at").drop("at")


def _numbers(frame: pl.DataFrame, pattern: str | None) -> pl.DataFrame:
    """Share of the answer's numbers that equal the gold's, best over golds (choice.count); format: has a number."""
    gold = pl.col("golds")
    if pattern is not None:
        gold = gold.list.eval(pl.coalesce(pl.element().str.extract(pattern), pl.element()))
    read = frame.lazy().select(numbers=pl.col("said").str.extract_all(r"\d+"), golds=gold).with_row_index("row")
    scored = (
        read.explode("golds")
        .explode("numbers")
        .group_by("row", "golds")
        .agg(score=(pl.col("numbers") == pl.col("golds")).mean())
        .group_by("row")
        .agg(pl.col("score").max())
    )
    return (
        read.join(scored, on="row", how="left", maintain_order="left")
        .select(pl.col("score").fill_null(0.0), format_ok=pl.col("numbers").list.len() > 0)
        .collect()
    )


def _needles(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Golds found in the answer, case ignored: the share of them, or whether any is (qa.string_match_all, _part).

    The rule for one answer first makes control characters line breaks and trims it. A gold that holds neither control
    characters nor white space at its ends is found before that exactly where it is found after.
    """
    task = _metric(name)
    gold_plain = pl.col("golds").list.eval(pl.element().str.contains(_NEEDLE)).list.all()
    ascii_said = pl.col("said").str.len_bytes() == pl.col("said").str.len_chars()
    plain = frame.select(ascii_said & gold_plain & (pl.col("golds").list.len() > 0)).to_series().fill_null(False)
    pairs = (
        frame.filter(plain)
        .with_row_index("row")
        .select(pl.col("row").set_sorted(), "golds", said=pl.col("said").str.to_lowercase())
        .explode("golds")
        .select("row", found=pl.col("said").str.contains(pl.col("golds").str.to_lowercase(), literal=True))
    )
    share = pl.col("found").mean() if name == "string_match_all" else pl.col("found").max().cast(pl.Float64)
    by_column = pairs.group_by("row", maintain_order=True).agg(score=share, format_ok=pl.lit(None, dtype=pl.Boolean))
    if plain.all():
        return by_column.drop("row")
    return joined([(plain.arg_true(), by_column), ((~plain).arg_true(), by_rows(frame.filter(~plain), task))])


def _classes(frame: pl.DataFrame, name: str, named: NamedScore) -> pl.DataFrame:
    """Rows that share a list of classes are searched for all of them at once."""
    task, lists = _metric(name), frame["needed_json"].unique(maintain_order=True).to_list()
    if not lists or len(lists) > _LISTS:
        return by_rows(frame, task)
    parts = []
    for text in lists:
        has_list = frame.select(pl.col("needed_json").eq_missing(pl.lit(text))).to_series()
        rows, names = frame if len(lists) == 1 else frame.filter(has_list), needed_meta(text or "").get("all_classes")
        scores = _one_class_list(rows, names, named) if _searchable(names) else by_rows(rows, task)
        parts.append((has_list.arg_true(), scores))
    return joined(parts)


def _searchable(names: object) -> TypeGuard[list[str]]:
    """Whether a search for all names at once counts as the list does: texts, none empty, none twice."""
    return (
        isinstance(names, list) and all(isinstance(n, str) and n for n in names) and 0 < len(names) == len(set(names))
    )


def _one_class_list(frame: pl.DataFrame, names: list[str], named: NamedScore) -> pl.DataFrame:
    """One name found is the gold or is not; several go through `named`."""
    read = frame.select("golds", found=pl.col("said").str.extract_many(names, overlapping=True))
    n, golds = read["found"].list.len(), pl.col("golds")
    is_gold = golds.list.contains(pl.col("found").list.first()).fill_null(False)
    scored = read.select(score=((pl.col("found").list.len() == 1) & is_gold).cast(pl.Float64), format_ok=n > 0)
    several = (n > 1).arg_true()
    if several.is_empty():
        return scored
    place = {name: at for at, name in enumerate(names)}
    exact, score_of = [], dict[tuple[tuple[str, ...], tuple[str, ...]], float]()
    for mentioned, right in read.select("found", "golds")[several].iter_rows():
        key = (tuple(mentioned), tuple(right or ()))
        if key not in score_of:
            in_order = sorted(set(mentioned), key=place.__getitem__)
            score_of[key] = max((named(in_order.copy(), gold) for gold in key[1]), default=0.0)
        exact.append(score_of[key])
    return pl.DataFrame({"score": scored["score"].scatter(several, exact), "format_ok": scored["format_ok"]})


def _metric(name: str) -> Metric:
    task = find(name)
    if task is None:
        raise ValueError(f"{name} is no metric of its own")
    return task
