"""Settings -> levels: full cache once, readable unique series, nothing mixed up silently."""

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.engine.request.kv_fields import NOBODY_COUNTED, PromptSize, kv_fields
from kvt_async.session.experiment_rows import make_run_id
from tests.worlds import levels_of


def labels(*overrides: str) -> list[str]:
    return [level.label for level in levels_of(*overrides).levels]


def test_the_defaults_give_full_cache_two_budgets_and_one_repeat_of_full() -> None:
    made = levels_of().levels
    assert [level.label for level in made] == ["full", "snapkv/aware 0.5", "snapkv/aware 0.2", "full (repeat 1)"]
    assert [level.is_full for level in made] == [True, False, False, True]
    assert [level.level_idx for level in made] == [0, 1, 2, 3]
    assert made[0].policy == "full"


def test_full_cache_runs_once_for_all_policies_that_ask_for_it() -> None:
    assert labels(
        "kv.policies=[snapkv, {policy: snapkv, mode: question_agnostic}, {policy: random, params: {seed: 3}}]",
        "kv.budgets=[0.5, 1.0]", "kv.control_repeats=2",
    ) == [
        "full", "snapkv/aware 0.5", "snapkv/agnostic 0.5", "random/aware seed=3 0.5", "full (repeat 1)",
        "full (repeat 2)",
    ]  # fmt: skip


def test_budgets_run_from_the_mildest_to_the_harshest_whatever_order_they_are_given_in() -> None:
    assert labels("kv.budgets=[0.2, 1.0, 0.5]", "kv.control_repeats=0") == [
        "full",
        "snapkv/aware 0.5",
        "snapkv/aware 0.2",
    ]


def test_explicit_levels_keep_their_order_behind_full_cache() -> None:
    made = levels_of(
        "kv.levels=[{policy: snapkv, budget: 0.2}, {policy: full}, {policy: h2o, budget: 256, unit: tokens}, "
        "{policy: snapkv, budget: 1.0}]",
        "kv.control_repeats=0",
    )
    assert [level.label for level in made.levels] == ["full", "snapkv/aware 0.2", "h2o/aware 256 tokens"]
    assert "runs once" in made.notes[0]


def test_a_config_without_full_cache_is_allowed_and_says_that_there_is_no_baseline() -> None:
    made = levels_of("kv.budgets=[0.5, 0.2]")
    assert [level.label for level in made.levels] == ["snapkv/aware 0.5", "snapkv/aware 0.2"]
    assert "without full cache there is nothing to compare with" in made.notes[0]
    assert "control_repeats is ignored" in made.notes[1]


def test_an_equal_level_is_merged_with_a_note() -> None:
    made = levels_of("kv.levels=[{budget: 1.0}, {budget: 0.3}, {budget: 0.30000000000000004}]", "kv.control_repeats=0")
    assert [level.label for level in made.levels] == ["full", "snapkv/aware 0.3"]
    assert made.notes == ("snapkv/aware 0.3 is asked for twice; it runs once",)


@pytest.mark.parametrize("interval", [0, -4, 16.5, "'16'", "true"])
def test_an_interval_between_compressions_is_a_whole_number(interval: object) -> None:
    with pytest.raises(ConfigError, match="is no number of tokens between compressions"):
        levels_of("kv.when=decode", f"kv.params={{compression_interval: {interval}}}")


def test_nearly_equal_budgets_are_refused() -> None:
    with pytest.raises(ConfigError, match="nearly the same"):
        levels_of("kv.budgets=[1.0, 0.5, 0.50001]")


@pytest.mark.parametrize(
    ("overrides", "series"),
    [
        (["kv.policies=[snapkv]"], "snapkv/aware"),
        (["kv.mode=question_agnostic"], "snapkv/agnostic"),
        (["kv.policies=[{policy: snapkv, params: {window: 32, kernel: 5}}]"], "snapkv/aware kernel=5 window=32"),
        (["kv.apply={via: none}", "kv.policy=fp8"], "fp8"),
        (["kv.when=decode"], "snapkv/aware/decode"),
        (["kv.when=both", "kv.mode=question_agnostic"], "snapkv/agnostic/both"),
        (
            ["kv.apply={via: none}", "kv.when=decode", "kv.params={compression_interval: 16}"],
            "snapkv/decode compression_interval=16",
        ),
        (["kv.apply={via: none}", "kv.policy=fp8", "kv.mode=question_agnostic"], "fp8/agnostic"),
        (["kv.apply={via: launch, command: x}", "kv.policy=kv", "kv.params={dtype: q8_0}"], "kv dtype=q8_0"),
    ],
)
def test_a_series_has_a_readable_label(overrides: list[str], series: str) -> None:
    assert levels_of(*overrides).levels[1].series == series


def test_a_budget_says_when_it_applies_and_one_that_applies_after_prefill_stays_what_it_was() -> None:
    made = levels_of(
        "kv.policies=[snapkv, {policy: snapkv, when: decode}, {policy: snapkv, when: both}]", "kv.budgets=[1.0, 0.5]"
    ).levels
    assert [level.label for level in made] == [
        *("full", "snapkv/aware 0.5", "snapkv/aware/decode 0.5", "snapkv/aware/both 0.5", "full (repeat 1)"),
    ]
    assert [level.when for level in made] == ["prefill", "prefill", "decode", "both", "prefill"]
    fields = {"policy": "{policy}", "budget": "{budget}", "mode": "{mode}", "context_chars": "{context_chars}"}
    assert made[0].apply == made[1].apply == {"via": "body", "body": {"kv": fields}}
    assert made[2].apply == {"via": "body", "body": {"kv": fields | {"when": "{when}", "params": "{params}"}}}
    assert [make_run_id("g", 1, level, "d") for level in made[:2]] == ["full-2d4fd019", "snapkv-aware-0.5-6b540db3"]


def test_an_interval_for_all_levels_is_none_of_those_that_evict_after_prefill_alone() -> None:
    both = "kv.policies=[snapkv, {policy: snapkv, when: decode}]"
    body = "kv.apply={via: body, body: {kv: {budget: '{budget}', when: '{when}', params: '{params}'}}}"
    interval = "kv.params={window: 8, compression_interval: 16}"
    made = levels_of(both, body, interval, "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0").levels
    assert [level.label for level in made] == [
        "full", "snapkv/aware window=8 0.5", "snapkv/aware/decode compression_interval=16 window=8 0.5",
    ]  # fmt: skip
    assert levels_of(interval, body).levels[1].params == {"window": 8, "compression_interval": 16}  # nobody else's name
    named = "kv.levels=[{budget: 0.5, params: {compression_interval: 4}}, {budget: 0.5, when: both}]"
    assert levels_of(named, body).levels[0].params == {"compression_interval": 4}


def test_our_own_body_says_a_cap_on_what_is_held_while_an_answer_is_generated_in_tokens() -> None:
    level = levels_of("kv.levels=[{budget: 96, unit: tokens, when: decode, params: {compression_interval: 16}}]")
    assert kv_fields(level.levels[0], PromptSize(prompt_tokens=40, context_chars=7)) == {
        "kv": {"policy": "snapkv", "keep_tokens": 96, "mode": "question_aware", "context_chars": 7, "when": "decode",
               "params": {"compression_interval": 16}}
    }  # fmt: skip


def test_a_share_of_what_is_seen_while_an_answer_is_generated_is_no_number_of_tokens() -> None:
    level = levels_of(
        "kv.when=decode", "kv.apply={via: body, body: {a: '{budget}', b: '{keep_tokens}', c: '{when}'}}"
    ).levels[1]  # fmt: skip
    assert kv_fields(level, PromptSize(prompt_tokens=1000)) == {"a": 0.5, "c": "decode"}


@pytest.mark.parametrize(
    ("level", "why"),
    [
        ("{policy: truncate_prompt, budget: 0.5, when: decode}", "cuts the prompt before it is sent"),
        ("{budget: 8, unit: bits, when: both}", "a width in bits holds for every entry"),
        ("{budget: 0.5, mode: question_agnostic, when: decode}", "evicts only once the answer has begun"),
    ],
)
def test_what_cannot_evict_while_an_answer_is_generated_is_refused(level: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)can't be had of .*{why}.*Write `(when: prefill|mode: question_aware)`"):
        levels_of(f"kv.levels=[{level}]")


def test_levels_that_differ_in_when_they_evict_are_refused_where_nothing_tells_the_server() -> None:
    two = "kv.policies=[snapkv, {policy: snapkv, when: decode}]"
    with pytest.raises(
        ConfigError, match=r"(?s)snapkv/aware 0\.5 and snapkv/aware/decode 0\.5 are served alike.*{when}"
    ):
        levels_of(two, "kv.apply={via: body, body: {budget: '{budget}'}}")
    assert len(levels_of(two, "kv.apply={via: body, body: {budget: '{budget}', at: '{when}'}}").levels) == 6
    assert len(levels_of(two, "kv.apply={via: none}").levels) == 6


LAUNCH = "kv.apply={via: launch, command: 'serve --dtype {params.dtype}'}"


def test_bit_widths_are_one_series_whose_params_name_them_and_full_cache_may_need_one_too() -> None:
    made = levels_of(
        "kv.levels=[{policy: full, params: {dtype: f16}}, {budget: 8.5, unit: bits, params: {dtype: q8_0}}, "
        "{budget: 4.5, unit: bits, params: {dtype: q4_0}}]", "kv.policy=kv_dtype", "kv.control_repeats=1", LAUNCH,
    ).levels  # fmt: skip
    assert [level.label for level in made] == ["full", "kv_dtype 8.5 bits", "kv_dtype 4.5 bits", "full (repeat 1)"]
    assert [level.params["dtype"] for level in made] == ["f16", "q8_0", "q4_0", "f16"]


def test_two_formats_of_one_width_are_not_merged() -> None:
    with pytest.raises(ConfigError, match=r"(?s)kv_dtype 8 bits are one level.*another policy"):
        levels_of(
            "kv.levels=[{budget: 8, unit: bits, params: {dtype: fp8_e4m3}}, {budget: 8, unit: bits, params: "
            "{dtype: fp8_e5m2}}]", "kv.policy=kv_dtype", LAUNCH,
        )  # fmt: skip


def test_endpoints_are_found_by_policy_and_budget_by_budget_or_given_with_the_level() -> None:
    made = levels_of(
        "kv.apply={via: endpoint, endpoints: {full: 'http://a/v1/', '0.5': ['http://b/v1', 'http://c/v1'], "
        "'snapkv 0.2': 'http://d/v1', '0.2': 'http://e/v1'}}",
    ).levels
    assert [level.endpoints for level in made[:3]] == [
        ("http://a/v1",),
        ("http://b/v1", "http://c/v1"),
        ("http://d/v1",),
    ]
    assert made[1].apply == {"via": "endpoint"}
    own = levels_of("kv.levels=[{budget: 0.5, base_url: 'http://z/v1'}]", "kv.apply={via: endpoint}").levels
    assert own[0].endpoints == ("http://z/v1",)


def test_a_level_without_an_endpoint_is_a_config_error_that_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match=r'(?s)snapkv at 0\.2.*Add "snapkv 0\.2"'):
        levels_of("kv.apply={via: endpoint, endpoints: {full: 'http://a/v1', '0.5': 'http://b/v1'}}")


def test_full_body_makes_full_cache_another_level_and_urls_and_ports_do_not() -> None:
    plain = levels_of().levels
    other = levels_of("kv.apply={via: body, body: {kv: {budget: '{budget}'}}, full_body: {}}").levels
    assert other[0].apply == {"via": "body", "body": {}}
    assert plain[1].apply != other[1].apply
    assert levels_of("engine.base_url=http://other/v1").levels[1].apply == plain[1].apply


def test_run_ids_are_readable_unique_and_the_same_every_time() -> None:
    made = levels_of("kv.policies=[snapkv, {policy: snapkv, mode: question_agnostic}]", "kv.control_repeats=2").levels
    ids = [make_run_id("g", 1, level) for level in made]
    assert len({*ids, *(make_run_id("g", 2, level) for level in made)}) == 2 * len(made)
    assert ids == [make_run_id("g", 1, level) for level in made]
    assert ids[1].startswith("snapkv-aware-0.5-")
    assert all(":" not in run_id for run_id in ids)


BODY = "kv.apply={via: body, body: {kv: {budget: '{budget}'}, cache: '{params.cache}'}}"


def test_full_cache_under_other_restrictions_is_asked_for_as_full_cache_with_its_own_params() -> None:
    made = levels_of("kv.constrained={params: {cache: off}}", BODY, "kv.params={cache: on}").levels
    assert [level.label for level in made] == [
        "full", "constrained full", "snapkv/aware cache=true 0.5", "snapkv/aware cache=true 0.2", "full (repeat 1)",
    ]  # fmt: skip
    level = made[1]
    assert (level.policy, level.budget, level.is_full, level.params) == ("full", 1.0, False, {"cache": False})
    assert kv_fields(level, NOBODY_COUNTED) == {"kv": {"budget": 1.0}, "cache": False}
    assert kv_fields(made[0], NOBODY_COUNTED) == {"kv": {"budget": 1.0}}
    assert make_run_id("g", 1, level).startswith("constrained-full-")


def test_it_names_its_own_launch_and_endpoint() -> None:
    launch = "kv.apply={via: launch, command: 'serve {params.dtype} {params.prefix}'}"
    at_full = "kv.levels=[{policy: full, params: {dtype: f16, prefix: on}}]"
    launched = levels_of(launch, at_full, "kv.constrained.params={prefix: off}", "kv.control_repeats=0").levels
    assert launched[1].params == {"dtype": "f16", "prefix": False}
    table = "kv.apply={via: endpoint, endpoints: {full: 'http://a/v1', 'constrained full': 'http://b/v1'}}"
    served = levels_of(table, "kv.budgets=[1.0]", "kv.constrained={}").levels
    assert served[1].endpoints == ("http://b/v1",)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["kv.constrained={params: {cache: off}}"], "served just as full cache is"),  # no placeholder names it
        (["kv.constrained={}", BODY], "served just as full cache is"),
        (["kv.constrained={params: {x: 1}}", "kv.apply={via: none}"], "served just as full cache is"),
        (["kv.constrained={params: {cache: off}}", BODY, "kv.budgets=[0.5]"], "which no level is"),
        (["kv.constrained={}", "kv.apply={via: endpoint, endpoints: {full: 'http://a/v1', '0.5': 'http://b/v1', "
          "'0.2': 'http://b/v1'}}"], 'Add "constrained full": URL'),
        (["kv.policy=constrained full", "kv.apply={via: none}"], "has the name of a level of kv.constrained"),
    ],
)  # fmt: skip
def test_a_constrained_full_cache_that_could_show_nothing_is_refused(overrides: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){why}"):
        levels_of(*overrides)
