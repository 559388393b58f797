"""Metrics of short answers over whole columns: numbers, needles and class names. Each gives what its rule for one
answer (choice.py, qa.py) gives, several times faster than calling it.

A rule takes a frame with said (text), golds (list of text) and, for classes, meta_json, and returns score in [0, 1]
and format_ok for every row, in order.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TypeGuard

import orjson
import polars as pl

from analyzer.metrics import Metric, find
from analyzer.metrics.choice import NamedScore, named_fixed_score, named_score
from analyzer.metrics.rows import score_rows

Rule = Callable[[pl.DataFrame], pl.DataFrame]
SCORED = {"score": pl.Float64, "format_ok": pl.Boolean}

_NEEDLE = r"^[!-~]([ -~]*[!-~])?$"  # printable ASCII, where Python and Polars agree on lower case, and trimmed
_CLASSES_KEY = '"all_classes":'
_LISTS = 4  # lists of classes that are searched for; a task has one, and what has more goes row by row


def rule(name: str) -> Rule | None:
    """The column rule of a metric; None where it is scored answer by answer."""
    return _rules().get(name)


@cache
def _rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {
        "count": partial(_numbers, pattern=None),
        "retrieval": partial(_numbers, pattern=r"Paragraph (\d+)"),
        "retrieval_zh": partial(_numbers, pattern=r"段落(\d+)"),
        "string_match_all": partial(_needles, name="string_match_all"),
        "string_match_part": partial(_needles, name="string_match_part"),
    }
    for first_line in ("", "_first_line"):
        for name, score in (("classification", named_score), ("classification_fixed", named_fixed_score)):
            found[name + first_line] = partial(_classes, name=name + first_line, named=score)
    return found


def by_rows(answers: pl.DataFrame, task: Metric) -> pl.DataFrame:
    """The metric called for each distinct answer."""
    meta = answers["meta_json"].to_list() if task.needs_meta else [""] * answers.height
    golds = (tuple(given or ()) for given in answers["golds"].to_list())
    given = list(zip(answers["said"].to_list(), golds, (m or "" for m in meta), strict=True))
    return pl.DataFrame(score_rows(task.name, given), schema=SCORED, orient="row")


def joined(parts: list[tuple[pl.Series, pl.DataFrame]]) -> pl.DataFrame:
    """Scores of parts of a frame, each with its rows' places in it, in the frame's order."""
    if len(parts) == 1:
        return parts[0][1]
    placed = [scores.select("score", "format_ok", at=where) for where, scores in parts]
    return pl.concat(placed).sort("at").drop("at")


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
    found = pl.col("found").mean() if name == "string_match_all" else pl.col("found").max().cast(pl.Float64)
    by_column = pairs.group_by("row", maintain_order=True).agg(score=found, format_ok=pl.lit(None, dtype=pl.Boolean))
    if plain.all():
        return by_column.drop("row")
    return joined([(plain.arg_true(), by_column), ((~plain).arg_true(), by_rows(frame.filter(~plain), task))])


def _classes(frame: pl.DataFrame, name: str, named: NamedScore, lists: int = _LISTS) -> pl.DataFrame:
    """Rows that share the first row's list of classes are searched for all of them at once; the others come after."""
    if frame.is_empty():
        return pl.DataFrame(schema=SCORED)
    task, meta = _metric(name), frame["meta_json"][0]
    names = (orjson.loads(meta) if meta else {}).get("all_classes")
    if not lists or not _searchable(names):
        return by_rows(frame, task)
    found = pl.col("said").str.extract_many(names, overlapping=True)
    read = frame.select("golds", same=_has_classes(names), found=found)  # one query: its columns are made side by side
    same = read["same"]
    if same.all():
        return _one_class_list(read, names, named)
    if not same[0]:  # a meta that was not written by kvt
        return by_rows(frame, task)
    here, others = _one_class_list(read.filter(same), names, named), frame.filter(~same)
    return joined([(same.arg_true(), here), ((~same).arg_true(), _classes(others, name, named, lists - 1))])


def _has_classes(names: list[str]) -> pl.Expr:
    """Whether `meta_json` has this list as all_classes, without parsing it: kvt writes JSON without spaces, so a flat
    object that holds this key and list as text has them as its own.
    """
    meta = pl.col("meta_json")
    after_key = meta.str.splitn(_CLASSES_KEY, 2).struct.field("field_1")
    flat = meta.str.count_matches("{", literal=True) == 1
    return (flat & after_key.str.starts_with(orjson.dumps(names).decode())).fill_null(False)


def _searchable(names: object) -> TypeGuard[list[str]]:
    """Whether a search for all names at once counts as the list does: texts, none empty, none twice."""
    return (
        isinstance(names, list) and all(isinstance(n, str) and n for n in names) and 0 < len(names) == len(set(names))
    )


def _one_class_list(read: pl.DataFrame, names: list[str], named: NamedScore) -> pl.DataFrame:
    """Of rows with golds and the names found: one name is the gold or is not; several go through `named`."""
    n, golds = read["found"].list.len(), pl.col("golds")
    is_gold = golds.list.contains(pl.col("found").list.first()).fill_null(False)
    scored = read.select(score=((pl.col("found").list.len() == 1) & is_gold).cast(pl.Float64), format_ok=n > 0)
    several = (n > 1).arg_true()
    if several.is_empty():
        return scored
    place = {name: at for at, name in enumerate(names)}
    exact, known = [], dict[tuple[tuple[str, ...], tuple[str, ...]], float]()
    for told, right in read.select("found", "golds")[several].iter_rows():
        key = (tuple(told), tuple(right or ()))
        if key not in known:
            in_order = sorted(set(told), key=place.__getitem__)
            known[key] = max((named(in_order.copy(), gold) for gold in key[1]), default=0.0)
        exact.append(known[key])
    return pl.DataFrame({"score": scored["score"].scatter(several, exact), "format_ok": scored["format_ok"]})


def _metric(name: str) -> Metric:
    task = find(name)
    if task is None:
        raise ValueError(f"{name} is no metric of its own")
    return task
