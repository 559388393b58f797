"""The shipped recipes, one per server: valid to the last placeholder, honest about what shows their budgets."""

from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.kv_fields import PromptSize, kv_fields
from kvt_async.validate import validate
from kvt_async.ways.launch_command import LaunchCommand
from kvt_async.ways.levels import make_levels

CONFIGS = Path(__file__).parents[2] / "configs/experiments"
RECIPES = sorted(CONFIGS.glob("recipe-*.yaml"))


def recipe(name: str) -> Settings:
    return load_settings(CONFIGS / f"recipe-{name}.yaml", environ={})


def sent(name: str) -> list[dict[str, Any]]:
    size = PromptSize(prompt_tokens=3000, context_tokens=2900)
    return [kv_fields(level, size) for level in make_levels(recipe(name)).levels]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_with_a_full_cache_to_compare_with_and_one_run_of_each_level(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-a-hosted-api")  # without one, a note says so
    facts = validate(load_settings(path, environ={}))
    assert facts["series"][0] == "full"
    assert facts["levels"] >= 3
    assert "notes" not in facts


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_whether_it_was_run_by_us(path: Path) -> None:
    header = path.read_text(encoding="utf-8").partition("experiment:")[0].lower()
    assert any(words in header for words in ("run by us", "documentation only", "reference model in place of yours"))


def test_llama_cpp_levels_are_one_curve_and_every_command_names_its_data_type() -> None:
    settings = recipe("llama-cpp")
    levels = make_levels(settings).levels
    assert [level.label for level in levels] == [
        "full", "kv_dtype 8.5 bits", "kv_dtype 5.5 bits", "kv_dtype 4.5 bits", "full (repeat 1)",
    ]  # fmt: skip
    commands = [" ".join(LaunchCommand.of_level(settings, level).words) for level in levels]
    named = [command.partition("-ctk ")[2].partition(" ")[0] for command in commands]
    assert named == ["f16", "q8_0", "q5_0", "q4_0", "f16"]


def test_transformers_gets_its_cache_as_a_json_string_and_nothing_at_full_cache() -> None:
    import json

    full, four, two, again = sent("transformers")
    assert (full, again) == ({}, {})
    bits = [json.loads(fields["generation_config"])["cache_config"]["nbits"] for fields in (four, two)]
    assert bits == [4, 2]


def test_kvcompress_gets_whole_numbers_and_minus_one_at_full_cache() -> None:
    caps = [fields["max_cache_tokens"] for fields in sent("kvcompress")]
    assert caps == [-1, 2048, 1024, 512, 128, -1]
    assert all(isinstance(cap, int) for cap in caps)
