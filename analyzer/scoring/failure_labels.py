"""Failure labels and flags of finished requests, as column rules. Conservative: in doubt an answer is just wrong.

A label on a request without a response says why there is none. A label on an answered request says what is odd about
the answer; it keeps its score. Flags are observations, not failures.
"""

import polars as pl

from kvt_async.contract.errors import ErrorType, FailureLabel
from kvt_async.contract.formulas.finish_reasons import CUT_OFF

_TIMEOUTS = [ErrorType.CONNECT_TIMEOUT, ErrorType.TTFB_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT]
_ENGINE = [
    ErrorType.CONNECTION,
    ErrorType.TLS,
    ErrorType.HTTP,
    ErrorType.RATE_LIMITED,
    ErrorType.QUOTA,
    ErrorType.STREAM_ERROR,
    ErrorType.STREAM_CUT,
    ErrorType.MALFORMED,
]
# Only openings that can hardly begin an answer, and only where nothing right follows.
_REFUSAL = (
    r"(?i)^\W*(i['’]?m sorry,? (but )?(i|as an)\b|i (cannot|can['’]?t|am unable to|['’]?m unable to|won['’]?t) "
    r"(help|assist|comply|provide|fulfil|answer)\b|as an ai( language)? model\b|i must decline\b)"
)
_LOOP_WORDS = 20  # a loop needs this many words ...
_LOOP_DISTINCT = 0.25  # ... of which at most this share are distinct

FLAGS = ("repetition_loop", "identical_to_full", "prompt_truncated")


def failure_label() -> pl.Expr:
    """FailureLabel, or null for a normal answer; the first that fits, in FailureLabel's order.

    Needs is_failure, error_type, answer (without reasoning), called (tool calls were made), pred_norm, gold_norm,
    score, finish_reason, format_ok (null: the task defines no form), cut_reasoning (the reply ended at its length
    before its reasoning did). TRUNCATED needs a finish_reason about length and no correct answer: neither a full score
    nor the best gold inside the text. A reply that was cut while reasoning is TRUNCATED rather than EMPTY_OUTPUT: more
    tokens would help.
    """
    failed, error = pl.col("is_failure"), pl.col("error_type").fill_null("")
    answered, wrong = ~failed, pl.col("score") < 1
    has_gold = (
        pl.col("gold_norm").is_not_null()
        & (pl.col("gold_norm") != "")
        & pl.col("pred_norm").str.contains(pl.col("gold_norm"), literal=True, strict=False)
    ).fill_null(False)
    rules: list[tuple[pl.Expr, FailureLabel]] = [
        (failed & error.is_in([str(e) for e in _TIMEOUTS]), FailureLabel.TIMEOUT),
        (failed & error.is_in([str(e) for e in _ENGINE]), FailureLabel.ENGINE_ERROR),
        (failed & (error == ErrorType.CONTEXT_OVERFLOW), FailureLabel.CONTEXT_OVERFLOW),
        (failed & (error == "earlier_turn_failed"), FailureLabel.EARLIER_TURN_FAILED),
        (failed, FailureLabel.UNKNOWN_FAILURE),
        (
            answered & wrong & (pl.col("answer") == "") & ~pl.col("called") & ~pl.col("cut_reasoning"),
            FailureLabel.EMPTY_OUTPUT,
        ),
        (answered & (pl.col("score") == 0) & pl.col("answer").str.contains(_REFUSAL), FailureLabel.REFUSAL),
        (
            answered & (pl.col("score") == 0) & ~pl.col("format_ok").fill_null(True) & ~pl.col("cut_reasoning"),
            FailureLabel.FORMAT_ERROR,
        ),
        (answered & wrong & ~has_gold & at_its_length(), FailureLabel.TRUNCATED),
    ]
    return pl.coalesce(pl.when(rule).then(pl.lit(str(label))) for rule, label in rules)


def at_its_length() -> pl.Expr:
    """`is_cut_off` of the column: the reply became too long, in any server's word; null where there is none."""
    word = pl.col("finish_reason").str.strip_chars().str.replace(r"^.*\.", "")
    word = word.str.replace_all("([a-z])([A-Z])", "${1}_${2}").str.to_lowercase().str.replace_all("[- ]", "_")
    return word.str.strip_prefix("finish_reason_").is_in(sorted(CUT_OFF))


def cut_off() -> pl.Expr:
    """Whether an answer was ended by its length before anything right was in it. Needs finish_reason and failure_label:
    a right answer has no label, and more tokens would not have helped a refusal."""
    labels = [str(label) for label in (FailureLabel.TRUNCATED, FailureLabel.EMPTY_OUTPUT, FailureLabel.FORMAT_ERROR)]
    return (at_its_length() & pl.col("failure_label").is_in(labels)).fill_null(False)


def flags(*, server_counts: bool, of_calls: bool = False) -> pl.Expr:
    """Comma-separated flags, "" for none. Needs answer, identical, prompt_tokens, token_len; where
    answers are judged as tool calls (`of_calls`) also is_failure and call_fault (their first fault; null: none).

    prompt_truncated: the server counted fewer prompt tokens than we sent, beyond a template's worth of difference;
    only where `server_counts` says that both count with the same tokenizer.
    """
    words = pl.col("answer").str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    n_words = words.list.len()
    loop = (n_words >= _LOOP_WORDS) & (words.list.n_unique() <= _LOOP_DISTINCT * n_words)
    cut = pl.col("prompt_tokens") < pl.col("token_len") - pl.max_horizontal(pl.lit(8.0), 0.02 * pl.col("token_len"))
    rules = [loop, pl.col("identical").cast(pl.Boolean), cut & pl.lit(server_counts)]
    named = [pl.when(rule.fill_null(False)).then(pl.lit(name)) for rule, name in zip(rules, FLAGS, strict=True)]
    if of_calls:
        named.append(pl.when(~pl.col("is_failure")).then("call_fault"))
    return pl.concat_str(named, separator=",", ignore_nulls=True).fill_null("")
