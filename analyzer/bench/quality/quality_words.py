"""What answers lose under load, in words: a sentence for each load, and the table of the report."""

from collections.abc import Sequence

from analyzer.bench.quality.load_loss import LoadLoss
from analyzer.results.number_format import interval, loss_size, number, percent
from analyzer.results.text_table import Table, table
from analyzer.stats.load_losses import LoadVerdict

_WORDS = {
    LoadVerdict.BEYOND: "more than the margin is lost",
    LoadVerdict.LOSS: "something is lost",
    LoadVerdict.SMALL_LOSS: "something is lost, less than the margin",
    LoadVerdict.SAFE: "less than the margin is lost",
    LoadVerdict.CANNOT_TELL: "cannot tell",
    LoadVerdict.NOTHING_TO_LOSE: "nothing to lose",
    "control": "control",
}
_SHOWN_FROM = 0.02  # a share of failures, or of answers cut off, that has grown by so much is named in the sentence


def sentences(rows: Sequence[LoadLoss]) -> list[str]:
    """For each level what is proven of its loads together, then a sentence a load, then the control's."""
    lines = []
    for level in dict.fromkeys(row.level for row in rows):
        of_level = [row for row in rows if row.level == level]
        loads = [row for row in of_level if not row.is_control]
        head = f"{level}: " if level else ""
        lines += [head + together(loads)] if len(loads) > 1 else []
        lines += [head + load_sentence(row) for row in loads]
        lines += [head + _control(row, loads) for row in of_level if row.is_control]
    return lines


def together(loads: Sequence[LoadLoss]) -> str:
    """'Less than 0.05 is lost up to rate 4/s; a loss is proven at rate 8/s and rate 16/s.'"""
    safe = [row.load for row in loads if row.verdict in (LoadVerdict.SAFE, LoadVerdict.SMALL_LOSS)]
    lost = [row.load for row in loads if row.verdict in _LOST]
    parts = []
    if safe:
        reach = "at every load" if len(safe) == len(loads) else f"up to {safe[-1]}"
        parts.append(f"less than {_margin(loads[0])} is lost {reach} (proven)")
    else:
        parts.append("no load is proven to keep the answers' quality")
    parts.append(f"a loss is proven at {_listed(lost)}" if lost else "a loss is proven at no load")
    text = "; ".join(parts)
    return f"Quality under load: {text}."


def load_sentence(row: LoadLoss) -> str:
    """'At rate 8/s answers lose 0.03 [0.01, 0.06] against the same prompts unloaded: ...'"""
    if not row.n:
        return f"At {row.load} no prompt was answered that was answered unloaded too: nothing can be compared."
    size = interval(row.loss_mean, row.loss_ci_low, row.loss_ci_high)
    verb = "lose" if (row.loss_mean or 0.0) >= 0 else "gain"
    if verb == "gain" and row.loss_mean is not None and row.loss_ci_low is not None and row.loss_ci_high is not None:
        size = interval(-row.loss_mean, -row.loss_ci_high, -row.loss_ci_low)
    accuracies = f"{number(row.acc_unloaded)} unloaded, {number(row.acc_loaded)} here, {row.n:,} prompts"
    return f"At {row.load} answers {verb} {size} ({accuracies}): {_says(row)}{_beside(row)}."


def _says(row: LoadLoss) -> str:
    margin = _margin(row)
    needed = f"; about {row.n_needed:,} prompts would tell" if row.n_needed else ""
    match row.verdict:
        case LoadVerdict.BEYOND:
            return f"proven to be more than {margin}"
        case LoadVerdict.SMALL_LOSS:
            return f"a real loss, and less than {margin}, both proven"
        case LoadVerdict.LOSS:
            return f"a real loss, proven; whether it is more than {margin} cannot be told{needed}"
        case LoadVerdict.SAFE:
            return f"proven to be less than {margin}"
        case LoadVerdict.NOTHING_TO_LOSE:
            return "unloaded answers are worth no more than guesses, so there is nothing to lose"
        case _:
            return f"cannot tell whether {margin} is lost{needed}"


def _beside(row: LoadLoss) -> str:
    """What of the loss is failures, what was cut off, owed or not asked, and whether noise alone explains it."""
    parts = []
    if (row.fail_loaded or 0.0) > 0 or (row.fail_unloaded or 0.0) > 0:
        failed = f"{percent(row.fail_loaded, 1)} of the requests failed ({percent(row.fail_unloaded, 1)} unloaded)"
        parts.append(f"{failed}, which makes {number(row.loss_failures)} of it")
    if (row.cut_off_loaded or 0.0) - (row.cut_off_unloaded or 0.0) >= _SHOWN_FROM:
        parts.append(f"{percent(row.cut_off_loaded)} were cut off ({percent(row.cut_off_unloaded)} unloaded)")
    if row.n_pending:
        parts.append(f"{row.n_pending:,} requests are still owed")
    if row.n_unasked:
        parts.append(f"{row.n_unasked:,} prompts were not asked here")
    if row.within_noise and row.verdict in (LoadVerdict.CANNOT_TELL, LoadVerdict.SAFE) and row.loss_mean:
        parts.append("noise between two askings unloaded gives as much")
    return "".join(f"; {part}" for part in parts)


def _control(row: LoadLoss, loads: Sequence[LoadLoss]) -> str:
    """What asking the same prompts unloaded once more showed."""
    flips = row.n_worse + row.n_better
    size = interval(row.loss_mean, row.loss_ci_low, row.loss_ci_high)
    text = f"Control: unloaded again after the loads, {flips:,} of {row.n:,} prompts changed their score, loss {size}"
    if (row.p_loss if row.p_loss is not None else 1.0) <= row.asked["level"]:
        return f"{text}: proven, so the server drifted, or the loads left something behind."
    return f"{text}."


_LOST = (LoadVerdict.BEYOND, LoadVerdict.LOSS, LoadVerdict.SMALL_LOSS)


def _margin(row: LoadLoss) -> str:
    return loss_size(row.asked["margin"], row.asked["margin_kind"]).replace("full cache's", "the unloaded")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def quality_table(rows: Sequence[LoadLoss]) -> Table:
    """A line for each load, the control among them; columns in which nothing happened are left out."""
    failed = any((row.fail_unloaded or 0) > 0 or (row.fail_loaded or 0) > 0 for row in rows)
    cut = any((row.cut_off_unloaded or 0) > 0 or (row.cut_off_loaded or 0) > 0 for row in rows)
    repeated, open_ones = any(row.n_answers != row.n for row in rows), any(row.n_needed for row in rows)
    lines = []
    for row in rows:
        name = f"{row.level}, {row.load}" if row.level else row.load
        lines.append(
            {
                "Load": f"{name} (again)" if row.is_control else name,
                "Verdict": _WORDS[row.verdict],
                "Prompts": f"{row.n:,}",
                **({"Answers": f"{row.n_answers:,}"} if repeated else {}),
                "Unloaded": number(row.acc_unloaded, 3),
                "Under load": number(row.acc_loaded, 3),
                "Loss": interval(row.loss_mean, row.loss_ci_low, row.loss_ci_high, 3),
                **({"By failures": number(row.loss_failures, 3)} if failed else {}),
                "Worse, better": f"{row.n_worse:,}, {row.n_better:,}",
                "p, nothing lost": _p(row.p_loss),
                "p, margin lost": _p(row.p_safe),
                **({"Failed": _both(row.fail_unloaded, row.fail_loaded)} if failed else {}),
                **({"Cut off": _both(row.cut_off_unloaded, row.cut_off_loaded)} if cut else {}),
                **({"Prompts to tell": f"{row.n_needed:,}" if row.n_needed else ""} if open_ones else {}),
            }
        )
    own = rows[0].asked
    note = (
        "Each load against the same prompts asked one at a time, paired by prompt; a failed request scores 0. In "
        f"brackets: 95% confidence interval. Margin {_margin(rows[0])}; each kind of claim is wrong in at most "
        f"{percent(own['level'], 2 if own['level'] < 0.01 else 1)} of benches, over all loads."
    )
    if failed or cut:
        note += " Failed, cut off: unloaded, then under load."
    return table(lines, text_columns=2, note=note)


def _both(unloaded: float | None, loaded: float | None) -> str:
    return f"{percent(unloaded, 1)}, {percent(loaded, 1)}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else number(value, 3)
