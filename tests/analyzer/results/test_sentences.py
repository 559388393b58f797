"""What the first screen says, sentence by sentence: pure functions of persisted rows."""

import json
from dataclasses import replace
from typing import Any

import pytest

from analyzer.results import costs, sentences, verdict_sentence
from analyzer.results.length_bins import Bin
from analyzer.results.number_format import amount, budget, change, interval, listed, number, percent, seconds, signed
from analyzer.results.rows import ClientRow
from analyzer.results.zones import BinZone
from analyzer.store.tables import BinStat, Evidence, OutcomeChange, Verdict
from kvt_async.contract.cache_state import cache_state
from tests.analyzer.report_blank import TRANSITION, drop, says, stat, verdict


def test_a_transition_names_both_budgets_and_what_safe_and_broken_mean() -> None:
    assert says(TRANSITION) == (
        "Safe down to 30% of the cache kept; broken from 10% down (safe: accuracy is proven to fall by less than 0.05; "
        "broken: by more)."
    )


def test_half_of_the_loss_is_no_part_of_the_verdict_and_says_so() -> None:
    assert sentences.half_of_loss(TRANSITION, "fraction") == (
        "Half of what the smallest budget loses is lost at 12% [10%, 15%] of the cache kept. That tells where the "
        "curve is steep, not where it is safe: it may lie outside of the transition zone."
    )
    assert sentences.half_of_loss(replace(TRANSITION, half_loss_budget=None), "fraction") == ""
    assert sentences.half_of_loss(None, "fraction") == ""


def lengths(overall: float | None, *of_bins: float | None) -> verdict_sentence.LengthReach:
    bins = [Bin(i, 1000 * i + 1, 1000 * (i + 1)) for i in range(len(of_bins))]
    rows = [
        (b, verdict("transition", bin_idx=b.bin_idx, safe_budget=safe)) for b, safe in zip(bins, of_bins, strict=True)
    ]
    return verdict_sentence.at_lengths(verdict("transition", safe_budget=overall), rows, "fraction")


def test_safe_at_every_length_leads_only_where_every_length_is_proven() -> None:
    v = verdict("transition", safe_budget=0.3, zone_high=0.3, zone_low=0.2)

    def head(*of_bins: float) -> str:
        return verdict_sentence.verdict(v, "fraction", 0.05, lengths(0.3, *of_bins)).partition(";")[0]

    assert head(0.3, 0.2, 0.3) == "Safe at every length down to 30% of the cache kept"
    average = "Safe on average over lengths down to 30% of the cache kept, but "
    assert head(0.4, 0.2, 0.4) == f"{average}at 1–1,000 and 2,001–3,000 tokens only to 40%"
    assert head(1.0, 0.4, 0.3) == f"{average}at 1–1,000 tokens at no budget, at 1,001–2,000 tokens only to 40%"
    assert head(1.0, 1.0) == f"{average}proven at no single length"
    nothing = verdict_sentence.LengthReach()
    assert lengths(1.0, 0.3, 0.2) == nothing  # the mean claims nothing
    assert lengths(0.3, 0.4) == nothing  # one length


def test_a_zone_that_is_open_above_or_below_says_so() -> None:
    above = replace(TRANSITION, safe_budget=1.0, zone_high=1.0, half_loss_budget=None)
    assert says(above).startswith(
        "No budget below full cache is proven safe; broken from 10% of the cache kept down (safe: accuracy"
    )
    below = replace(TRANSITION, zone_low=None, collapse_margin_budget=None)
    assert says(below) == (
        "Safe down to 30% of the cache kept; from 20% down a real loss is proven, but not that it is beyond 0.05 "
        "(safe: accuracy is proven to fall by less than 0.05)."
    )
    assert "kept; no loss beyond 0.05 is proven" in says(replace(below, collapse_budget=None))


def test_a_proven_loss_below_the_margin_and_a_floor_that_hides_one_are_in_the_sentence() -> None:
    whole = verdict("no_transition_in_range", safe_budget=0.2, collapse_budget=0.2)
    assert says(whole).endswith("pairs); from 20% down a real loss is proven, and it is below 0.05.")
    floor = json.dumps({"floor": {"kind": "other golds", "floor": 0.125, "high": 0.9, "shown": False}})
    assert (
        "not proven to have more than 0.05 to lose (0.99 against a floor of 0.13), so no budget is called safe."
        in says(verdict("cannot_tell", n=4, acc_full=0.99, safe_budget=1.0, zone_json=floor))
    )


def test_no_transition_in_range_is_a_result_with_its_range() -> None:
    assert says(verdict("no_transition_in_range", safe_budget=0.2)) == (
        "Safe down to 20% of the cache kept, the smallest budget tested (safe: accuracy is proven to fall by less than "
        "0.05; 400 pairs)."
    )


def test_cannot_tell_says_how_many_pairs_would_be_needed() -> None:
    text = says(verdict("cannot_tell", n=25, safe_budget=1.0, n_needed=72))
    assert text == (
        "Cannot tell with 25 pairs: neither safety nor a loss of accuracy beyond 0.05 is proven. "
        "To tell, about 72 pairs are needed (25 here)."
    )
    partly = says(verdict("cannot_tell", safe_budget=0.5, collapse_budget=0.1))
    assert partly == (
        "Safe down to 50% of the cache kept; below that, 400 pairs can't tell: a real loss is proven from 10% down, "
        "but not one beyond 0.05 (safe: accuracy is proven to fall by less than 0.05)."
    )


def test_without_baseline_or_with_nothing_to_lose_there_is_no_verdict() -> None:
    assert says(verdict("no_baseline")) == ("No verdict: there is no full-cache run to compare with (add budget 1.0).")
    assert "accuracy at full cache is 0.02, so there is nothing to lose (a floor)" in says(
        verdict("nothing_to_lose", acc_full=0.02)
    )


@pytest.mark.parametrize(
    ("v", "expected"),
    [
        (TRANSITION, "safe to 30%, broken from 10% down"),
        (replace(TRANSITION, safe_budget=1.0), "no budget proven safe, broken from 10% down"),
        (replace(TRANSITION, zone_low=None), "safe to 30%, some loss from 20% down"),
        (replace(TRANSITION, safe_budget=1.0, zone_low=None), "no budget proven safe, some loss from 20% down"),
        (replace(TRANSITION, zone_low=None, collapse_budget=None), "safe to 30%, zone open below"),
        (verdict("no_transition_in_range", safe_budget=0.2), "safe down to 20%, the smallest tested"),
        (verdict("cannot_tell", n=25, safe_budget=1.0, n_needed=72), "can't tell, needs about 72 pairs"),
        (verdict("cannot_tell", safe_budget=0.5), "safe to 50%; below: can't tell"),
        (verdict("nothing_to_lose"), "nothing to lose at full cache"),
        (verdict("no_baseline"), "no full-cache baseline"),
    ],
)
def test_short_verdicts_for_titles_and_tables(v: Verdict, expected: str) -> None:
    assert verdict_sentence.in_few_words(v, "fraction") == expected


def test_budgets_in_tokens_are_named_as_tokens() -> None:
    v = verdict("transition", safe_budget=256, zone_high=256, zone_low=64)
    assert says(v, "tokens").startswith("Safe down to 256 tokens kept; broken from 64 tokens down (")
    assert says(v, "bits").startswith("Safe down to 256 bits per element of the cache; broken from 64 bits down (")


def test_what_changed_gives_both_ends_the_paired_loss_and_the_largest_step() -> None:
    full = stat(acc_mean=0.97, acc_ci_low=0.95, acc_ci_high=0.99)
    levels = [
        (0.5, drop(0.02, -0.01, 0.05, acc_mean=0.95, acc_ci_low=0.92, acc_ci_high=0.97)),
        (0.2, drop(0.57, 0.52, 0.62, acc_mean=0.40, acc_ci_low=0.35, acc_ci_high=0.45)),
    ]
    assert sentences.what_changed("snapkv", full, levels, "fraction", TRANSITION) == (
        "Accuracy of SnapKV falls from 0.97 [0.95, 0.99] at full cache to 0.40 [0.35, 0.45] with 20% of the cache "
        "kept, 41% of full cache's: a paired loss of 0.57 [0.52, 0.62] over 400 pairs. The largest step between "
        "two means, 0.55, lies between 50% and 20%."
    )
    flat = sentences.what_changed("snapkv", full, levels[:1], "fraction", verdict("cannot_tell"))
    assert "goes, within its uncertainty, from 0.97" in flat
    assert "largest step" not in flat
    assert "nothing to compare" in sentences.what_changed("snapkv", None, levels, "fraction", TRANSITION)


def test_an_accuracy_falls_or_rises_in_words_only_at_the_level_of_the_verdicts_own_claims() -> None:
    """Intervals stay at 95% where series or looks share alpha: an interval without 0 is not yet a proof there."""
    full = stat(acc_mean=0.97, acc_ci_low=0.95, acc_ci_high=0.99)
    lost = [(0.5, drop(0.05, 0.01, 0.09, acc_mean=0.92, acc_ci_low=0.90, acc_ci_high=0.95))]
    detail: dict[str, Any] = {"level": 0.0125, "gains": {"level": 0.0125, "p": {"0.5": 0.02}}}
    unproven = verdict("cannot_tell", zone_json=json.dumps(detail))
    assert "goes, within its uncertainty," in sentences.what_changed("snapkv", full, lost, "fraction", unproven)
    detail["gains"]["p"]["0.5"] = 0.001
    gained = verdict("cannot_tell", zone_json=json.dumps(detail))
    assert "SnapKV rises from" in sentences.what_changed("snapkv", full, lost, "fraction", gained)


def test_safe_budgets_by_length_join_bins_that_say_the_same() -> None:
    bins = [Bin(0, 128, 240), Bin(1, 241, 480), Bin(2, 481, 860)]
    rows = [(b, replace(TRANSITION, safe_budget=s)) for b, s in zip(bins, (0.5, 0.2, 0.2), strict=True)]
    assert sentences.safe_by_length("snapkv", rows, "fraction") == (
        "SnapKV: safe to 50% at 128–240 tokens, safe to 20% at 241–860 tokens."
    )
    same = [(b, TRANSITION) for b in bins]
    assert sentences.safe_by_length("snapkv", same, "fraction") == "SnapKV: safe to 30% in every length bin."
    none = [(b, verdict("cannot_tell", n=5, safe_budget=1.0, n_needed=72)) for b in bins]
    assert sentences.safe_by_length("snapkv", none, "fraction") == (
        "SnapKV: no budget is proven safe in any length bin (to prove one in each, up to about 72 pairs per bin are "
        "needed)."
    )
    hole = [(bins[0], replace(TRANSITION, n=0)), (bins[1], TRANSITION)]
    assert "no examples at 128–240 tokens" in sentences.safe_by_length("snapkv", hole, "fraction")


@pytest.mark.parametrize(
    ("failures", "answers", "expected"),
    [
        (
            0.0,
            0.5,
            "Of the loss of 0.50 of SnapKV with 20% of the cache kept, all is wrong answers; none comes from",
        ),
        (0.5, 0.0, "all comes from failed requests (200 failed requests of 400), none from wrong answers"),
        (0.2, 0.3, "0.30 is wrong answers and 0.20 failed requests"),
        (-0.1, 0.6, "0.60 is wrong answers; failures were fewer than at full cache (−0.10;"),
    ],
)
def test_a_loss_is_split_into_failures_and_wrong_answers(failures: float, answers: float, expected: str) -> None:
    d = drop(0.5, 0.45, 0.55, drop_failures=failures, drop_answers=answers)
    failed = stat(n_failures=200 if failures > 0 else 0)
    assert expected in sentences.failures_or_answers(sentences.Loss("snapkv", 0.2, d, failed, proven=True), "fraction")


@pytest.mark.parametrize(
    ("failures", "cut_off", "wrong", "expected"),
    [
        (
            0.0,
            0.5,
            0.0,
            "with 20% of the cache kept, all is answers cut off at their length; none comes from failed requests",
        ),
        (0.0, 0.2, 0.3, "0.30 is wrong answers and 0.20 answers cut off at their length; none comes from failed"),
        (
            0.1,
            0.4,
            0.0,
            "0.40 is answers cut off at their length and 0.10 failed requests (200 failed requests of 400)",
        ),
        (0.1, 0.2, 0.2, "0.20 is wrong answers, 0.20 answers cut off at their length and 0.10 failed requests (200"),
        (-0.1, 0.4, 0.2, "and 0.40 answers cut off at their length; failures were fewer than at full cache (−0.10;"),
        (0.0, 0.004, 0.496, "all is wrong answers; none comes from failed requests"),
    ],
)
def test_answers_cut_off_are_a_cause_of_their_own(failures: float, cut_off: float, wrong: float, expected: str) -> None:
    causes = json.dumps({"CUT_OFF": cut_off, "WRONG_ANSWER": wrong})
    d = drop(0.5, 0.45, 0.55, drop_failures=failures, drop_answers=cut_off + wrong, drop_json=causes)
    failed = stat(n_failures=200 if failures > 0 else 0)
    assert expected in sentences.failures_or_answers(sentences.Loss("snapkv", 0.2, d, failed, proven=True), "fraction")


def test_no_proven_loss_is_not_split() -> None:
    d = drop(0.01, -0.02, 0.04, drop_failures=0.0, drop_answers=0.01)
    loss = sentences.Loss("snapkv", 0.2, d, stat(), proven=False)
    assert "no loss is proven" in sentences.failures_or_answers(loss, "fraction")


def test_evidence_is_verified_with_its_count_or_a_label_or_contradicted_with_both_values() -> None:
    def row(status: str, **values: Any) -> Evidence:
        defaults = {"run_id": "r", "status": status, "source": "echoed", "reason": "", "n": 100, "n_off": 0}
        return Evidence(**{"requested": 0.5, "effective_p50": 0.5, **defaults, **values})

    assert sentences.evidence([row("verified"), row("verified")]) == (
        "Evidence: verified on every level (echoed): 0 of 200 responses off."
    )
    assert sentences.evidence([row("unverified")]) == (
        "Evidence: UNVERIFIED on every level: the budget is a label; nothing shows that the server applied it."
    )
    mixed = sentences.evidence([row("verified"), row("contradicted", effective_p50=1.0, n_off=100)])
    assert "CONTRADICTED on 1 level: 0.500 asked, 1.000 applied" in mixed
    assert "verified on 1 level" in mixed
    one = row("unverified", reason="1 of 80 prompts was read shorter than sent (205 → 102): the server cut it")
    assert sentences.why_unverified([one]) == "prompts were read shorter than sent"
    other = row("unverified", reason="the server became another one meanwhile: build")
    assert sentences.why_unverified([one, other]) == (
        "prompts were read shorter than sent and the server became another one meanwhile"
    )
    assert sentences.why_unverified([one, other, row("unverified")]) == sentences.UNVERIFIED
    for said in (sentences.evidence([row("verified")], one), sentences.evidence([row("verified"), one])):
        assert "UNVERIFIED" in said
        assert "prompts were read shorter than sent; the budget was applied as asked on" in said
        assert "verified on" not in said.replace("UNVERIFIED on", "")
    assert sentences.evidence([]) == "Evidence: none was evaluated."


def test_partial_carries_its_counts() -> None:
    assert sentences.partial(30, 1200).startswith("PARTIAL: 30 of 1,200 requests (2.5%) had no outcome")


def zone(label: str, safe: float | None, safe_tokens: float | None, broken_tokens: float | None) -> BinZone:
    return BinZone(label, safe, safe_tokens, broken_tokens)


def test_the_absolute_cliff_is_told_with_the_count_that_lies_in_every_closed_zone() -> None:
    zones = [zone("128–240", 0.4, 74, 55), zone("241–480", 0.2, 72, 36), zone("481–860", 0.1, 67, 34)]
    assert sentences.breaks_at_tokens("snapkv", zones, "tokens") == (
        "SnapKV: every length bin breaks between about 55 and 67 kept tokens, so at a fixed ratio the short bins break "
        "first: an absolute number decides and not a ratio (exploratory)."
    )
    apart = [zone("short", 0.5, 90, 70), zone("long", 0.2, 300, 200)]
    assert sentences.breaks_at_tokens("snapkv", apart, "tokens") == (
        "SnapKV: every length bin breaks at about the same number of kept tokens, so at a fixed ratio the short bins "
        "break first (safe to 50% at short tokens, to 20% at long tokens): an absolute number decides and not a ratio "
        "(exploratory)."
    )
    assert "short bins break first: an absolute" in sentences.breaks_at_tokens("snapkv", [], "tokens")
    assert sentences.breaks_at_ratio(["random", "streaming"]).startswith(
        "Random eviction and streaming break at about the same ratio"
    )


@pytest.mark.parametrize("constant", ["unclear", "fraction", None])
def test_safe_budgets_that_differ_between_bins_alone_say_nothing_about_tokens(constant: str | None) -> None:
    """A bin with more examples is proven safe further down, whatever decides."""
    assert (
        sentences.breaks_at_tokens("snapkv", [zone("short", 0.5, 90, 70), zone("long", 0.2, 300, 200)], constant) == ""
    )


CLEAN = ClientRow("s", "client-clean", 0.42, "loop lag p99", 0.4, 1.0, 0.2, 0.5)


def timed(share: float | None, **values: Any) -> BinStat:
    measured = {"latency_p50_s": 0.05, "ttft_p50_s": 0.03, "tpot_p50_s": 0.004}
    return stat(cached_share=share, **{**measured, **values})


def test_every_latency_carries_cache_state_and_the_clients_error_bound() -> None:
    text = costs.latency(0.5, timed(0.99), timed(0.99, latency_p50_s=0.03, tpot_p50_s=0.0041), [CLEAN], "fraction")
    assert text.startswith("Latency with 50% of the cache kept against full cache (p50; warm cache; ±0.42 ms)")
    assert "TPOT 4.1 ms vs 4.0 ms (no difference beyond the client's error)" in text
    assert "total 30.0 ms vs 50.0 ms (−40%)" in text
    bound = replace(CLEAN, verdict="CLIENT-BOUND", error_bound_ms=30)
    text = costs.latency(0.5, timed(None), timed(None), [CLEAN, bound], "fraction")
    assert "±30.00 ms" in text
    assert "CLIENT-BOUND" not in text


def time_of(measure: str, change: float, low: float | None, high: float | None) -> OutcomeChange:
    return OutcomeChange("a", 0.5, 0, measure, 40, 0.05, 0.03, change, low, high, None)


def test_a_latency_s_change_has_its_interval_request_by_request_and_full_caches_own_beside_it() -> None:
    full, here = timed(0.99), timed(0.99, latency_p50_s=0.03, ttft_p50_s=0.04)
    rows = {row.measure: row for row in (time_of("latency", 0.61, 0.58, 0.64), time_of("ttft", 1.3, 0.9, 1.8))}
    again = {"latency": time_of("latency", 0.97, 0.95, 1.002)}
    text = costs.latency(0.5, full, here, [CLEAN], "fraction", costs.Repeated(rows, [again]))
    assert "total 30.0 ms vs 50.0 ms (request by request −39% [−42%, −36%])" in text
    assert "TTFT 40.0 ms vs 30.0 ms (request by request +30% [−10%, +80%]: no difference is shown)" in text
    assert text.endswith(" Full cache run again, by the same measure: total −3% [−5%, ±0%].")
    few = costs.Repeated({"latency": time_of("latency", 0.61, None, None)})
    text = costs.latency(0.5, full, here, [CLEAN], "fraction", few)
    assert "total 30.0 ms vs 50.0 ms (request by request −39%: too few requests for an interval)" in text


@pytest.mark.parametrize(
    ("error_ms", "here", "says"),
    [
        (0.42, {}, ""),  # nothing that is claimed is too coarse
        (2.0, {}, "of TTFT 30.0 ms ± 2.0 ms."),
        (30.0, {}, "of TTFT 30.0 ms ± 30.0 ms; TPOT 4.0 ms ± 606 µs; total 50.0 ms ± 30.0 ms."),  # TPOT: over 99 gaps
        (0.42, {"latency_p50_s": 0.055}, "of the difference of total, 5.0 ms ± 840 µs."),
        (0.42, {"latency_p50_s": 0.0505}, ""),  # no difference is claimed
        (0.42, {"latency_p50_s": 0.055, "cached_share": 0.0}, ""),  # nor across cache states
    ],
)
def test_client_bound_is_said_of_a_figure_or_a_claimed_difference_that_is_too_coarse(
    error_ms: float, here: dict[str, Any], says: str
) -> None:
    clients = [replace(CLEAN, verdict="CLIENT-BOUND", error_bound_ms=error_ms)]
    level = replace(timed(0.99, completion_tokens_p50=100.0), **here)
    text = costs.client_bound(timed(0.99), level, clients)
    assert text == (f"CLIENT-BOUND: the client's own error is more than 5% {says}" if says else "")


def test_latencies_of_different_cache_states_are_not_compared() -> None:
    text = costs.latency(0.5, timed(0.0), timed(0.99), [CLEAN], "fraction")
    assert "Not compared: full cache was measured cold, this level warm." in text
    assert "vs" not in text
    assert "differ (cold, warm)" in costs.cache_sentence([timed(0.0), timed(0.99)])
    assert "none was measured" in costs.latency(0.5, timed(0.0), stat(), [CLEAN], "fraction")


@pytest.mark.parametrize(("share", "state"), [(None, "unknown"), (0.0, "cold"), (0.5, "mixed"), (0.99, "warm")])
def test_cache_states(share: float | None, state: str) -> None:
    assert cache_state(share) == state


def test_memory_is_told_in_bytes_else_in_tokens_else_as_unknown() -> None:
    full = stat(kv_bytes_p50=2_000_000.0, prompt_tokens_p50=1000)
    here = stat(kv_bytes_p50=600_000.0, kept_tokens_p50=300, kept_fraction_p50=0.3)
    assert costs.memory("snapkv", 0.3, full, here, "fraction") == (
        "Memory with 30% of the cache kept: 600 kB of KV cache per request (median, 300 tokens kept) instead of "
        "2 MB, −70%."
    )
    tokens = costs.memory("snapkv", 0.3, full, replace(here, kv_bytes_p50=None), "fraction")
    assert "300 of 1,000 prompt tokens kept (median), 30%; bytes are not reported" in tokens
    assert "not known" in costs.memory("snapkv", 0.3, full, here, "fraction", verified=False)
    assert "there is no full-cache run" in costs.memory("snapkv", 0.3, None, here, "fraction")
    uncounted = replace(here, kv_bytes_p50=None, kept_tokens_p50=None)
    assert "nor how many tokens" in costs.memory("snapkv", 0.3, full, uncounted, "fraction")
    silent = replace(uncounted, kept_fraction_p50=None)
    assert "the server doesn't say what it kept" in costs.memory("snapkv", 0.3, full, silent, "fraction")


@pytest.mark.parametrize(("share", "in_two_digits", "in_percent"), [
    (0.085, "0.09", "9%"), (0.415, "0.42", "42%"), (0.595, "0.60", "60%"), (83 / 200, "0.42", "42%"),
    (0.4149, "0.41", "41%"),
])  # fmt: skip
def test_a_score_and_its_share_of_1_are_rounded_alike(share: float, in_two_digits: str, in_percent: str) -> None:
    assert (number(share), percent(share), number(-share)) == (in_two_digits, in_percent, f"−{in_two_digits}")


def test_numbers_read_the_same_everywhere() -> None:
    assert [number(-0.001), number(-0.25), signed(0.25), signed(0.001)] == ["0.00", "−0.25", "+0.25", "0.00"]
    assert [percent(0.0), percent(0.0004, 1), percent(0.9999), percent(1.0)] == ["0%", "<0.1%", ">99%", "100%"]
    assert [seconds(0.0004), seconds(0.0123), seconds(0.5), seconds(2.5)] == ["400 µs", "12.3 ms", "500 ms", "2.50 s"]
    assert [amount(999), amount(1_234_567), change(0.7, 1.0)] == ["999 B", "1.23 MB", "−30%"]
    assert [budget(1.0), budget(0.05), budget(256, "tokens"), budget(4, "bits")] == [
        "full cache", "0.05", "256 tokens", "4 bits",
    ]  # fmt: skip
    assert interval(None, None, None) == "–"
    assert listed(["a", "b", "c"]) == "a, b and c"
