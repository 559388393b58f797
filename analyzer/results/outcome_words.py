"""What else changes with the budget, in words: a table of every level, and a sentence for each change that is proven.

Pure. A change is said where its adjusted p value is below alpha and it lies outside of the interval that full cache's
own repeats have for it: what the control shows as well is not the budget's doing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analyzer.read.runs import Run
from analyzer.results.number_format import (
    NOTHING,
    budget,
    cache_kept,
    cache_share,
    count,
    listed,
    number,
    percent,
    plural,
    signed,
)
from analyzer.results.results import Results
from analyzer.results.series_names import series_name
from analyzer.results.text_table import Table
from analyzer.store.tables import OutcomeChange
from kvt_async.contract.vocabulary import CALL_FAULTS, PART, SUM, Measure

Rows = Mapping[str, OutcomeChange]  # of one level, by measure
Level = tuple[Run, Rows]


class _Share(NamedTuple):
    name: str
    says: str


_NAMED = 4  # parts that a sentence names

_SHARES = {
    Measure.CUT_OFF: _Share("Cut off", "are cut off at their length"),
    Measure.EMPTY: _Share("Empty", "are empty"),
    Measure.REPETITION: _Share("Repeating", "repeat themselves"),
    Measure.FORMAT_ERROR: _Share("Unreadable", "can't be read by the metric"),
    Measure.CALL_UNREADABLE: _Share("Calls unreadable", "make calls that can't be read"),
    Measure.CALL_SCHEMA: _Share("Calls unfit for their tool", "make calls that don't fit their tool's schema"),
    Measure.CALL_NAME: _Share("Wrong or no function", "call another function than asked for, or none"),
    Measure.CALL_ARGUMENTS: _Share("Wrong arguments", "call the right function with wrong arguments"),
}


def outcomes(results: Results, run: Run) -> dict[str, OutcomeChange]:
    """What else than the score changed at a level or repeat, by measure; empty for full cache."""
    key = run.series, run.kv_budget, run.repeat_idx
    return {row.measure: row for row in results.changes if (row.series, row.kv_budget, row.repeat_idx) == key}


def outcome_sentences(results: Results, alpha: float) -> list[str]:
    """A sentence for each measure of which a change is proven in the headline's series, at the lowest such budget, and
    one that names what changes in further series. None where prompts were read shorter than sent, since no pair
    compares then what its name says."""
    if results.prompts.are_short or not results.series:
        return []
    first, *further = results.series
    found = {series: _proven(results, series, alpha) for series in results.series}
    of = f" of {series_name(first)}" if further else ""
    lines = [f"{_sentence(levels, measure, of)}." for measure, levels in found[first].items()]
    others = [
        f"{listed([_in_a_word(levels[-1][1][m]) for m, levels in found[series].items()])} of {series_name(series)}"
        for series in further
        if found[series]
    ]
    lines += _lost_parts(results, first, of, alpha)
    return [*lines, f"Proven of other series: {'; '.join(others)}."] if others else lines


def _proven(results: Results, series: str, alpha: float) -> dict[Measure, list[Level]]:
    """The levels of a series at which a measure is proven to change, the lowest budget last; only what is proven."""
    controls = [outcomes(results, run) for run in results.controls]
    levels: list[Level] = [(run, outcomes(results, run)) for run in results.levels(series)]
    found = {m: [level for level in levels if is_proven(level[1].get(m), controls, alpha)] for m in Measure}
    return {measure: proven for measure, proven in found.items() if proven}


def is_proven(row: OutcomeChange | None, controls: Sequence[Rows], alpha: float) -> bool:
    """Whether a change may be said. `controls`: the rows of full cache's repeats."""
    if row is None or row.p_holm is None or row.change is None or row.p_holm >= alpha:
        return False
    beside = [control[row.measure] for control in controls if row.measure in control]
    return not any(_allows(control, row.change) for control in beside)


def _allows(control: OutcomeChange, change: float) -> bool:
    """Whether a change lies inside of the interval that a repeat of full cache has, which may be open on a side; False
    where the repeat is what the measure is compared with anyway."""
    low, high = control.change_ci_low, control.change_ci_high
    return control.change is not None and (low is None or low <= change) and (high is None or change <= high)


def outcome_table(results: Results, alpha: float) -> Table:
    """Every level and every repeat of full cache; a column for each measure that is known and not 0 everywhere."""
    runs = [*(run for series in results.series for run in results.levels(series)), *results.controls]
    levels = [(run, rows) for run in runs if (rows := outcomes(results, run))]
    if not levels:
        return Table((), ())
    controls = [outcomes(results, run) for run in results.controls]
    shares = [m for m in _SHARES if m not in CALL_FAULTS]
    seen = [m for m in shares if any(m in rows and _happens(rows[m]) for _, rows in levels)]
    never = [_SHARES[m].name.lower() for m in shares if m not in seen and any(m in rows for _, rows in levels)]
    has_lengths = any(Measure.TOKENS in rows for _, rows in levels)
    has_texts = any(_beside(rows) for _, rows in levels)
    head = ["Level", "Pairs"]
    head += ["Tokens, full → here", "Ratio [95% CI]"] if has_lengths else []
    head += [f"{_SHARES[m].name}, full → here [95% CI]" for m in seen]
    head += ["Same text as full", "Texts part at character"] if has_texts else []
    body = []
    for run, rows in levels:
        cells = [_level_name(run), count(max(row.n for row in rows.values()))]
        cells += _lengths(rows.get(Measure.TOKENS), controls, alpha) if has_lengths else []
        cells += [_share(rows.get(m), controls, alpha) for m in seen]
        cells += _texts(run, rows) if has_texts else []
        body.append(tuple(cells))
    notes = _notes(results, never, has_texts=has_texts, has_lengths=has_lengths)
    return Table(tuple(head), tuple(body), note=" ".join(notes))


def call_table(results: Results, alpha: float) -> Table:
    """What of tool calls is wrong first, at every level and repeat of full cache; empty for other tasks."""
    runs = [*(run for series in results.series for run in results.levels(series)), *results.controls]
    levels = [(run, rows) for run in runs if CALL_FAULTS[0] in (rows := outcomes(results, run))]
    controls = [outcomes(results, run) for run in results.controls]
    body = []
    for run, rows in levels:
        at_full, here = (
            1 - sum((row.full_value if full else row.value) or 0.0 for m in CALL_FAULTS if (row := rows.get(m)))
            for full in (True, False)
        )
        right = f"{percent(at_full)} → {percent(here)}"
        cells = [_share(rows.get(m), controls, alpha) for m in CALL_FAULTS]
        body.append((_level_name(run), count(rows[CALL_FAULTS[0]].n), right, *cells))
    if not body:
        return Table((), ())
    head = ("Level", "Pairs", "All right", *(_SHARES[m].name for m in CALL_FAULTS))
    note = (
        "Share of answers, full cache → here [95% CI of the difference, in points]. An answer counts under the first "
        "thing that is wrong with its calls, from left to right: they can't be read; arguments don't fit the tool's "
        "schema, empty ones among them where some are required; other functions than expected, or none; other "
        "arguments. * proven, as beside the scores."
    )
    return Table(head, tuple(body), note=note, folded="What of the tool calls is wrong first")


def part_table(results: Results, alpha: float) -> Table:
    """What the scores are made of (the instructions of a prompt), a row for each part and series, a column for each
    budget and A/A repeat: what is lost most at the headline's lowest budget first, sums of several parts last. Empty:
    the metric names none."""
    levels: dict[str, dict[float, Rows]] = {
        series: {run.kv_budget: rows for run in results.levels(series) if (rows := _parts(outcomes(results, run)))}
        for series in results.series
    }
    again = [_parts(outcomes(results, run)) for run in results.controls]
    every = [rows for of_series in levels.values() for rows in of_series.values()] + [rows for rows in again if rows]
    if not every:
        return Table((), ())
    controls = [outcomes(results, run) for run in results.controls]
    budgets = sorted({value for of_series in levels.values() for value in of_series}, reverse=True)
    lowest = _parts(outcomes(results, results.levels(results.series[0])[-1])) if results.series else {}

    def order(name: str) -> tuple[bool, float, str]:
        row, is_sum = lowest.get(name), name.startswith(SUM)
        return is_sum, (row.change or 0.0) if row and not is_sum else 0.0, name

    body = []
    for name in sorted({name for rows in every for name in rows}, key=order):
        fullest = max((rows[name] for rows in every if name in rows), key=lambda row: row.n)
        for series in levels or {"": {}}:
            own = [levels[series].get(value, {}).get(name) for value in budgets] if series else []
            body.append(
                (
                    name,
                    series,
                    count(fullest.n),
                    percent(fullest.full_value),
                    *(_here(row, controls, alpha) for row in (*own, *(rows.get(name) for rows in again))),
                )
            )
    note = (
        "Share of the answers in which it is right; in brackets the interval of the change from full cache, paired by "
        "example, in percentage points. * proven after Holm's adjustment over this table, and more than full cache's "
        "repeats show."
    )
    head = (
        *("Part of the score", "Series", "Pairs", "Full cache"),
        *(budget(value, results.unit) for value in budgets),
        *(f"A/A {run.repeat_idx}" for run in results.controls),
    )
    folded = f"All {len({row[0] for row in body})} parts, level by level"
    return Table(head, tuple(body), text_columns=2, note=note, folded=folded)


def _here(row: OutcomeChange | None, controls: Sequence[Rows], alpha: float) -> str:
    """`80% [−20, −2] *`: a share here, with the interval of its change."""
    return _share(row, controls, alpha).rpartition(" → ")[2]


def _parts(rows: Rows) -> dict[str, OutcomeChange]:
    """The rows of parts, by the name of the part."""
    return {measure.removeprefix(PART): row for measure, row in rows.items() if measure.startswith(PART)}


def _lost_parts(results: Results, series: str, of_series: str, alpha: float) -> list[str]:
    """A sentence that names the parts that are proven to be lost at the lowest budget of a series where any is."""
    controls = [outcomes(results, run) for run in results.controls]
    for run in reversed(results.levels(series)):
        rows = _parts(outcomes(results, run))
        proven = {name: row for name, row in rows.items() if is_proven(row, controls, alpha)}
        lost = [name for name, row in proven.items() if (row.change or 0.0) < 0 and not name.startswith(SUM)]
        if lost:
            worst = sorted(lost, key=lambda name: rows[name].change or 0.0)
            named = [
                f"{name} ({percent(rows[name].full_value)} → {percent(rows[name].value)})" for name in worst[:_NAMED]
            ]
            more = f", and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            return [f"With {cache_kept(run.kv_budget, run.kv_unit)}, answers{of_series} lose {listed(named)}{more}."]
    return []


def _grows(row: OutcomeChange) -> bool:
    return (row.change or 0.0) > (1.0 if row.measure == Measure.TOKENS else 0.0)


def _sentence(levels: Sequence[Level], measure: Measure, of_series: str) -> str:
    """Of the lowest of these levels; others that change the same way are named."""
    lowest, rows = levels[-1]
    row = rows[measure]
    others = [cache_share(run.kv_budget, run.kv_unit) for run, of in levels[:-1] if _grows(of[measure]) == _grows(row)]
    also = f" (also with {listed(others)})" if others else ""
    start = f"With {cache_kept(lowest.kv_budget, lowest.kv_unit)}{also},"
    if measure == Measure.TOKENS:
        return f"{start} answers{of_series} {'grow' if _grows(row) else 'shrink to'} {_ratio(row)}"
    if measure == Measure.IDENTICAL:
        same, again = percent(row.value), percent(row.full_value)
        return f"{start} {same} of the texts{of_series} are full cache's, {again} when it was run again{_where(rows)}"
    says = _SHARES[measure].says
    return f"{start} {percent(row.value)} of the answers{of_series} {says}, {percent(row.full_value)} at full cache"


def _where(rows: Rows) -> str:
    """Where texts part, as the end of a sentence about how many do."""
    parts = rows.get(Measure.DIVERGENCE)
    if parts is None or parts.value is None:
        return ""
    if parts.value < 1:
        return "; half of the others differ from the first character on"
    return f"; half of the others part from it within {plural(round(parts.value), 'character')}"


def _in_a_word(row: OutcomeChange) -> str:
    if row.measure == Measure.TOKENS:
        return "longer answers" if _grows(row) else "shorter answers"
    if row.measure == Measure.IDENTICAL:
        return "other texts"
    return f"{'more' if _grows(row) else 'fewer'} {_SHARES[Measure(row.measure)].name.lower()}"


def _ratio(row: OutcomeChange) -> str:
    """`1.4 x [1.2, 1.6]`; an end where it is open reads as an en dash."""
    value = f"{number(row.change)} x"
    if row.change_ci_low is None and row.change_ci_high is None:
        return value
    return f"{value} [{number(row.change_ci_low)}, {number(row.change_ci_high)}]"


def _lengths(row: OutcomeChange | None, controls: Sequence[Rows], alpha: float) -> list[str]:
    if row is None:
        return [NOTHING, NOTHING]
    tokens = f"{number(row.full_value, 1)} → {number(row.value, 1)}"
    return [tokens, f"{_ratio(row)}{_star(row, controls, alpha)}" if row.change is not None else NOTHING]


def _share(row: OutcomeChange | None, controls: Sequence[Rows], alpha: float) -> str:
    if row is None:
        return NOTHING
    both = f"{percent(row.full_value)} → {percent(row.value)}"
    if not _happens(row) or row.change_ci_low is None or row.change_ci_high is None:
        return both
    low, high = (signed(100 * end, 0) for end in (row.change_ci_low, row.change_ci_high))
    return f"{both} [{low}, {high}]{_star(row, controls, alpha)}"


def _star(row: OutcomeChange, controls: Sequence[Rows], alpha: float) -> str:
    return " *" if is_proven(row, controls, alpha) else ""


def _happens(row: OutcomeChange) -> bool:
    return bool(row.value or row.full_value)


def _beside(rows: Rows) -> bool:
    """Whether a level's texts have a repeat of full cache to stand beside."""
    same = rows.get(Measure.IDENTICAL)
    return same is not None and same.full_value is not None


def _texts(run: Run, rows: Rows) -> list[str]:
    """Share of full cache's text, and where the others part from it, each with the repeat's own figure."""
    same, parts = rows.get(Measure.IDENTICAL), rows.get(Measure.DIVERGENCE)
    if same is None or not (run.is_full or _beside(rows)):
        return [NOTHING, NOTHING]
    place = NOTHING if parts is None else count(parts.value)
    if run.is_full:
        return [percent(same.value), place]
    if parts is not None and parts.change_ci_low is not None:
        place += f" [{count(parts.change_ci_low)}, {count(parts.change_ci_high)}]"
    again = "none" if parts is None or parts.full_value is None else count(parts.full_value)
    return [f"{percent(same.value)} (A/A {percent(same.full_value)})", f"{place} (A/A {again})" if parts else NOTHING]


def _level_name(run: Run) -> str:
    if run.is_full:
        return f"full cache (A/A {run.repeat_idx})"
    if run.is_constrained:
        return run.series
    return f"{run.series} {budget(run.kv_budget, run.kv_unit)}"


def _notes(results: Results, never: Sequence[str], *, has_texts: bool, has_lengths: bool) -> list[str]:
    notes = [
        "Answers are compared with full cache's to the same example; intervals of shares are in percentage points. "
        "* proven after Holm's adjustment over the whole table, and more than full cache's repeats show."
    ]
    if has_lengths:
        notes.append("Tokens are the server's count, reasoning included; answers that were cut off count as they came.")
    if has_texts:
        notes.append("A/A: the same of full cache run again. Texts part: median, of those that differ.")
    elif not results.controls:
        notes.append("Where texts part from full cache's isn't shown: it was not run again (kv.control_repeats).")
    elif any(row.measure == Measure.IDENTICAL for row in results.changes):
        notes.append(
            "Where texts part from full cache's isn't shown: answers are drawn, and its repeats don't show that the "
            "server keeps to its seeds."
        )
    if never:
        notes.append(f"Never seen: {listed(list(never))}.")
    return notes
