"""Single persisted rows for tests of sentences: every column None but those that matter."""

from dataclasses import fields
from typing import Any

from analyzer.results import verdict_sentence
from analyzer.store.tables import BinStat, Drop, Verdict

MARGIN = 0.05


def blank(row: type, **values: Any) -> Any:
    """A row with every column None but those given."""
    return row(**{f.name: values.get(f.name) for f in fields(row)})


def verdict(kind: str, **values: Any) -> Verdict:
    row: Verdict = blank(
        Verdict,
        series="snapkv",
        verdict=kind,
        **{"bin_idx": -1, "n": 400, "role": "confirmatory", "method": "", **values},
    )
    return row


def drop(mean: float, low: float, high: float, **values: Any) -> Drop:
    ends = {"drop_mean": mean, "drop_ci_low": low, "drop_ci_high": high}
    row: Drop = blank(Drop, **{"series": "snapkv", "n": 400, "drop_json": "{}", **ends, **values})
    return row


def stat(**values: Any) -> BinStat:
    row: BinStat = blank(BinStat, **{"n": 400, "n_failures": 0, **values})
    return row


def says(v: Verdict, unit: str = "fraction") -> str:
    return verdict_sentence.verdict(v, unit, MARGIN)


TRANSITION = verdict(
    "transition", safe_budget=0.3, zone_high=0.3, zone_low=0.1, collapse_margin_budget=0.1, collapse_budget=0.2,
    half_loss_budget=0.12, half_loss_ci_low=0.1, half_loss_ci_high=0.15,
)  # fmt: skip
