"""GiB at the user's own load: from config.json, told as real or as arithmetic, and not beyond the lengths tested."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyzer.report.answers import AnswerKey, first_screen
from analyzer.report.cost_tables import pareto
from analyzer.results import memory
from analyzer.results.number_format import amount
from analyzer.results.results import Results, read_results
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from tests.analyzer.report_cases import DEGENERATE, GROUP, SMALL, Rows, Series
from tests.analyzer.report_rows import write

LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
         "torch_dtype": "bfloat16"}  # fmt: skip


def facts_of(tmp_path: Path, **changes: Any) -> Results:
    with closing(write(tmp_path / "facts.sqlite", Rows(**{**SMALL, "n": 80, **changes}))) as conn:
        return read_results(conn, GROUP)


def asked(tmp_path: Path, config: Any = LLAMA, **serving: Any) -> Settings:
    file = tmp_path / "config.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    given = {"context_tokens": 8192, "batch": 4, **serving}
    overrides = [f"experiment.exp_group_id={GROUP}", f"model.config={tmp_path}", f"analysis.serving={given}"]
    return load_settings(None, overrides, environ={})


def said(facts: Results, settings: Settings, level: int = 0) -> str:
    return " ".join(memory.serving(facts, settings, facts.levels(facts.series[0])[level]))


def test_gib_are_told_for_the_users_load_with_where_the_bytes_come_from(tmp_path: Path) -> None:
    text = said(facts_of(tmp_path), asked(tmp_path))
    assert "4 requests of 8,192 tokens take 4 GiB at full cache (131,072 bytes a token, from config.json)" in text
    assert "with 50% of the cache kept, the safe budget 2 GiB: 2 GiB saved." in text


def test_a_saving_is_never_told_without_whether_it_is_real(tmp_path: Path) -> None:
    verified = said(facts_of(tmp_path), asked(tmp_path))
    assert (
        "The server says (echoed) that it keeps that share in bytes; free memory itself was not measured." in verified
    )
    assert "paged cache (vLLM, SGLang)" in verified
    (tmp_path / "facts.sqlite").unlink()
    unverified = said(facts_of(tmp_path, **DEGENERATE["unverified"]), asked(tmp_path))
    assert "Not shown: nothing says that the server applied the budget, so this is arithmetic." in unverified


def test_lengths_beyond_the_tested_ones_are_said_to_be_untested(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    assert "Prompts of 8,192 tokens were not tested (the longest had 360)" in said(facts, asked(tmp_path))
    assert "not tested" not in said(facts, asked(tmp_path, context_tokens=360))


def test_a_budget_that_is_not_proven_safe_is_not_called_safe(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, n=10)
    assert "with 50% of the cache kept, which is not proven safe, 2 GiB: 2 GiB saved." in said(facts, asked(tmp_path))


def test_the_cache_may_have_fewer_bits_than_the_weights(tmp_path: Path) -> None:
    assert "take 2 GiB at full cache" in said(facts_of(tmp_path), asked(tmp_path, cache_bits=8))


def test_a_cap_in_tokens_keeps_a_smaller_share_of_a_longer_prompt(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["token_caps"])
    load = memory.load_of(facts, asked(tmp_path))
    assert load is not None
    assert [memory.kept_share(facts, run, load) for run in facts.levels("snapkv/aware")] == [1 / 16, 1 / 64, 1 / 256]


def test_without_config_json_the_servers_own_bytes_are_used(tmp_path: Path) -> None:
    settings = load_settings(
        None, [f"experiment.exp_group_id={GROUP}", "analysis.serving={context_tokens: 400}"], environ={}
    )
    load = memory.load_of(facts_of(tmp_path), settings)
    assert load is not None
    assert load.source == "as the server reports for full cache"
    assert load.token_bytes == pytest.approx(2048, rel=0.01)


def test_without_a_load_the_report_says_which_keys_give_the_gib(tmp_path: Path) -> None:
    settings = load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={})
    facts = facts_of(tmp_path)
    assert said(facts, settings) == memory.HOW
    assert memory.HOW in pareto(facts, settings).note


def test_the_pareto_table_has_the_gib_and_marks_the_front(tmp_path: Path) -> None:
    table = pareto(facts_of(tmp_path), asked(tmp_path))
    column = table.head.index("Saved at 8,192 tokens × 4")
    assert [row[column] for row in table.rows] == ["0 GiB", "2 GiB", "3.2 GiB"]
    assert [row[-1] for row in table.rows] == ["no", "yes", "yes"], "0.5 is as good as full cache in half the memory"


@pytest.mark.parametrize(
    ("config", "says"),
    [("{", "it is no JSON"), ("[]", "no JSON object"), ({"model_type": "mamba"}, "doesn't say how many bytes")],
)
def test_a_config_json_that_does_not_tell_is_an_error_with_its_path(tmp_path: Path, config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        memory.load_of(facts_of(tmp_path), asked(tmp_path, config))
    assert "config.json" in str(refusal.value)


def test_a_pattern_of_layers_that_is_not_understood_says_bytes_unknown_and_no_figure(tmp_path: Path) -> None:
    settings, facts = asked(tmp_path, {**LLAMA, "hybrid_layer_pattern": [0, 1]}), facts_of(tmp_path)
    text = said(facts, settings)
    assert "bytes unknown" in text
    assert "hybrid_layer_pattern" in text
    assert "GiB" not in text
    assert memory.load_of(facts, settings) is None
    assert not any("Saved at" in name for name in pareto(facts, settings).head)


def test_the_bytes_of_a_model_with_windows_are_said_to_be_an_upper_bound(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    assert "upper bound" in said(facts, asked(tmp_path, {**LLAMA, "sliding_window": 512}))
    assert "upper bound" not in said(facts, asked(tmp_path))


DTYPES = {"series": (Series("kv_dtype", lambda *_: 0.996, policy="kv_dtype"),), "unit": "bits", "budgets": (1.0, 8.5)}


def of_data_types(tmp_path: Path, **changes: Any) -> Results:
    """A group whose levels are data types, of a server that counts no bytes."""
    facts = facts_of(tmp_path, **{**DTYPES, **changes})
    stats = {key: replace(row, kv_bytes_p50=None, kept_tokens_p50=None) for key, row in facts.stats.items()}
    return replace(facts, stats=stats)


def bought(facts: Results, settings: Settings) -> str:
    screen = first_screen(facts, settings)
    return next(answer.claim for answer in screen.answers if answer.key == AnswerKey.BUYS)


def test_bytes_follow_from_bits_that_are_verified(tmp_path: Path) -> None:
    facts = of_data_types(tmp_path)
    full = facts.stat(facts.full)
    assert full is not None
    tokens = full.prompt_tokens_p50 or 0
    with_config = bought(facts, asked(tmp_path))
    assert (
        f"Memory with 8.5 bits per element of the cache (echoed): {amount(131072 * 8.5 / 16 * tokens)}" in with_config
    )
    assert f"instead of {amount(131072 * tokens)} with full cache's 16 bits, −47%" in with_config
    without = bought(facts, load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={}))
    assert "−47% against full cache's 16 bits, since every token is kept; for bytes set model.config." in without


def test_bits_that_nothing_shows_buy_no_bytes(tmp_path: Path) -> None:
    labels = Series("kv_dtype", lambda *_: 0.996, policy="kv_dtype", evidence="unverified")
    text = bought(of_data_types(tmp_path, series=(labels,)), asked(tmp_path))
    assert "not known, because what the server kept is unverified" in text


def test_the_gib_of_bits_are_those_of_the_elements_at_the_users_load(tmp_path: Path) -> None:
    facts = of_data_types(tmp_path)
    text = said(facts, asked(tmp_path))
    assert "with 8.5 bits per element of the cache, which is not proven safe, 2.12 GiB: 1.88 GiB saved." in text
    assert "The server says (echoed) that an element has so many bits" in text
    assert "2.12 GiB: 0 GiB saved" in said(facts, asked(tmp_path, cache_bits=8.5)), "the load has as many bits already"


def test_a_missing_config_json_is_an_error_with_its_path(tmp_path: Path) -> None:
    settings = asked(tmp_path)
    gone = settings.model_copy(update={"model": replace_config(settings, tmp_path / "none.json")})
    with pytest.raises(ConfigError, match="No such file"):
        memory.load_of(facts_of(tmp_path), gone)


def replace_config(settings: Settings, path: Path) -> Any:
    return settings.model.model_copy(update={"config": str(path)})


def test_a_shorter_prompt_is_a_real_saving(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    cut = replace(facts, runs=[replace(r, kv_policy="truncate_prompt") for r in facts.runs])
    assert "Yes: the prompt itself was shorter" in said(cut, asked(tmp_path))
