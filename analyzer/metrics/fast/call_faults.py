"""What of tool calls is wrong first, over a frame of answers."""

import polars as pl

from analyzer.metrics import JudgeCalls
from analyzer.metrics.fast.row_scorer import needed_meta


def call_faults(frame: pl.DataFrame, judge: JudgeCalls) -> pl.Series:
    """The `Measure` of each answer's first fault, as text; null where its score is 1.

    Needs said, golds, needed_json and score, as `task_scores` leaves them. Each distinct wrong answer is judged once.
    """
    faults: dict[tuple[str, tuple[str, ...], str], str | None] = {}
    labels: list[str | None] = []
    for answer, golds, needed, score in frame.select("said", "golds", "needed_json", "score").iter_rows():
        if score == 1:
            labels.append(None)
            continue
        key = (answer, tuple(golds or ()), needed or "")
        if key not in faults:
            faults[key] = judge(key[0], key[1], needed_meta(key[2])).fault
        labels.append(faults[key])
    return pl.Series("call_fault", labels, dtype=pl.String)
