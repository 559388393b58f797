"""The packaged model that recites: as good as its card says, and in need of its cache while it writes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from kvt_async.contract.packaged_models import RECITE, packaged_model
from kvt_async.data.sources.kvtext import chat, generate
from kvt_async.records import Example
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Text, Work


@pytest.fixture(scope="module")
def folder() -> Path:
    path = packaged_model(RECITE)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def reciter(folder: Path) -> Engine:
    return Engine(folder, 256 << 20)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(generate("recite", contexts=8, min_tokens=256, max_tokens=1024, density=0.5, seed=11))


def items(engine: Engine, ex: Example, kv: dict[str, Any] | None = None) -> list[bool]:
    """Which golds the answer has; their share is string_match_all."""
    ids = engine.tokenizer.encode(" ".join(chat(ex)), special=False).ids
    made: Iterator[Text | Finished] = engine.generate(Work(ids, 280, parse_kv(kv)))
    answer = "".join(part.text for part in made if isinstance(part, Text))
    return [gold in answer for gold in ex.answers]


def test_the_folder_is_small_and_its_card_is_of_these_very_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 1_400_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    for path in (weights, REFERENCE_DIR / "model.safetensors"):  # what it is, and what its training went on from
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_it_reads_and_counts_as_the_reference_model_does(folder: Path, name: str) -> None:
    assert (folder / name).read_bytes() == (REFERENCE_DIR / name).read_bytes()


def test_with_its_whole_cache_it_recites_answers_of_60_to_250_tokens(reciter: Engine, examples: list[Example]) -> None:
    lengths = [5 * len(example.answers) for example in examples]
    assert min(lengths) < 75 < 200 < max(lengths)
    assert fmean(fmean(items(reciter, example)) for example in examples) >= 0.95


def test_it_still_finds_one_fact(reciter: Engine) -> None:
    short = generate("multikey", contexts=4, min_tokens=256, max_tokens=512, seed=11)
    assert [items(reciter, example) for example in short] == [[True]] * 4


def test_a_budget_while_it_writes_costs_items_the_later_ones_first(reciter: Engine, examples: list[Example]) -> None:
    def at(keep_tokens: int) -> list[list[bool]]:
        params = {"compression_interval": 16}
        kv = {"policy": "streaming_llm", "when": "decode", "keep_tokens": keep_tokens, "params": params}
        return [items(reciter, example, kv) for example in examples]

    mild, harsh = at(512), at(128)
    assert fmean(map(fmean, harsh)) < fmean(map(fmean, mild)) - 0.2
    assert fmean(map(fmean, harsh)) < 0.5
    halves = [(fmean(answer[: len(answer) // 2]), fmean(answer[len(answer) // 2 :])) for answer in harsh]
    assert fmean(first for first, _ in halves) > fmean(second for _, second in halves) + 0.1
