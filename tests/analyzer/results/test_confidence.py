"""How sure a verdict is, in words: pairs needed and for what, floors, ceilings, looks, noise, the zone's spread."""

import json
from dataclasses import replace

from analyzer.results import confidence, verdict_sentence
from analyzer.store.tables import Verdict
from tests.analyzer.report_blank import TRANSITION, drop, says, verdict


def test_the_pairs_needed_say_which_claim_at_which_budget_they_would_settle() -> None:
    def open_at(budget: float, claim: str) -> Verdict:
        detail = json.dumps({"needed": {"budget": budget, "claim": claim}})
        return verdict("cannot_tell", n=25, safe_budget=1.0, n_needed=310, zone_json=detail)

    assert says(open_at(0.8, "safe")).endswith(
        "To prove that 80% of the cache kept loses less than 0.05, about 310 pairs are needed (25 here)."
    )
    assert says(open_at(0.5, "beyond")).endswith(
        "To prove that 50% of the cache kept loses more than 0.05, about 310 pairs are needed (25 here)."
    )
    seen = json.dumps({"needed": {"budget": 0.8, "claim": "safe", "drop": 0.012}})
    assert says(verdict("cannot_tell", n=25, safe_budget=1.0, n_needed=310, zone_json=seen)).endswith(
        "about 310 pairs are needed if it loses what it lost here (0.012 over 25 pairs)."
    )
    unfinished = verdict("cannot_tell", n=0, safe_budget=1.0, n_needed=310, zone_json=seen, partial=1)
    assert says(unfinished).endswith("if it loses what it lost here (0.012)."), "n is the least of all levels"
    assert verdict_sentence.in_few_words(open_at(0.8, "safe"), "fraction") == "can't tell, needs about 310 pairs"
    enough = replace(open_at(0.8, "safe"), n=400)
    assert "needed" not in says(enough), "no number where there are already as many"


def test_a_transition_without_any_safe_budget_says_what_would_prove_one() -> None:
    detail = json.dumps({"needed": {"budget": 0.8, "claim": "safe"}})
    none = replace(TRANSITION, safe_budget=1.0, zone_high=1.0, n=60, n_needed=72, zone_json=detail)
    assert says(none).endswith(
        "To prove that 80% of the cache kept loses less than 0.05, about 72 pairs are needed (60 here)."
    )


def test_notes_name_floor_ceiling_and_look_once_with_the_series_they_are_about() -> None:
    def noted(series: str, *notes: str) -> Verdict:
        return replace(verdict("transition", zone_json=json.dumps({"notes": notes})), series=series)

    assert confidence.notes([noted("a", "ceiling: full cache is always right", "look 2: half of alpha is spent"),
                            noted("b", "look 2: half of alpha is spent")]) == [
        "Ceiling: full cache is always right (a).", "Look 2: half of alpha is spent.",
    ]  # fmt: skip
    assert confidence.ceiling_or_floor(noted("a", "ceiling: x", "floor: y", "noise: z")) == "ceiling, floor"
    assert confidence.ceiling_or_floor(None) == ""


def test_the_zones_bootstrap_distribution_is_told_with_its_shares() -> None:
    spread = {"budgets": [0.5, 0.2, 0.1], "first_beyond": [0.001, 0.54, 0.4], "never": 0.06}
    v = verdict("transition", zone_json=json.dumps({"spread": spread}))
    assert confidence.spread(v, "fraction", "0.05") == (
        "With other examples (bootstrap of SnapKV; share of resamples in brackets), the loss would first exceed 0.05 "
        "at 20% (54%), 10% (40%), nowhere (6%)."
    )
    assert confidence.spread(verdict("transition"), "fraction", "0.05") == ""
    flat = verdict("cannot_tell", zone_json=json.dumps({"spread": {**spread, "first_beyond": [0, 0, 0], "never": 1.0}}))
    assert confidence.spread(flat, "fraction", "0.05") == (
        "With other examples (bootstrap of SnapKV; share of resamples in brackets), the loss would exceed 0.05 nowhere "
        "(100%)."
    )


def test_a_later_look_has_a_smaller_chance_of_error_and_says_it() -> None:
    assert confidence.level_text(confidence.chance(verdict("transition"), 0.05)) == "2.5%"
    second = verdict("transition", zone_json=json.dumps({"level": 0.025 / 4}))
    assert confidence.level_text(confidence.chance(second, 0.05)) == "0.625%"


def test_the_control_tells_flips_and_which_effects_are_within_its_noise() -> None:
    control = drop(0.0, -0.02, 0.02, n_worse=6, n_better=6)
    assert confidence.control([control]) == (
        "A/A control (full cache run again): 12 of 400 answers changed score, mean difference 0.00 [−0.02, 0.02]."
    )
    levels = [(0.8, drop(0.01, -0.01, 0.03, within_noise=1)), (0.5, drop(0.3, 0.25, 0.35, within_noise=0))]
    assert confidence.noise(levels, "fraction") == ("The effect at 80% is no larger than the noise of the A/A control.")
    assert confidence.noise([(0.8, drop(0.01, -0.01, 0.03))], "fraction") == "", "no control, no word on noise"
    assert "the server's own noise is not known" in confidence.control([])
