"""`kvt serve --prefix-block`: beginnings of prompts are found in kept prefills, and nothing changes but the time."""

from functools import partial

import numpy as np
import pytest

from kvt_async.serve.cache import KVCache, Prefill, PrefillStore
from kvt_async.serve.engine import Engine
from kvt_async.serve.weights import REFERENCE_DIR, Ints
from kvt_async.serve.work import Finished, Work

BLOCK = 16


@pytest.fixture(scope="module")
def prompts() -> list[Ints]:
    """Prompts that begin alike for 0 to 150 tokens, ending inside of blocks and at their edges."""
    rng = np.random.default_rng(7)
    stem = rng.integers(5, 540, 150)
    shares = (150, 149, 148, 144, 145, 33, 16, 15, 0)
    return [np.concatenate((stem[:n], rng.integers(5, 540, 60 - n % 7))) for n in shares] + [stem[:144], stem[:145]]


def test_a_reused_beginning_gives_the_same_bytes_as_none(prompts: list[Ints]) -> None:
    kept = Engine(REFERENCE_DIR, 256 << 20, prefix_block=BLOCK)
    nothing = Engine(REFERENCE_DIR, 0, prefix_block=BLOCK)
    cached = []
    for ids in (*prompts, prompts[0]):
        ours, _ = kept.prefill(ids)
        alone, _ = nothing.prefill(ids)
        assert np.array_equal(ours.logits, alone.logits)
        assert np.array_equal(ours.cache.keys[:, :, : len(ids)], alone.cache.keys[:, :, : len(ids)])
        assert np.array_equal(ours.cache.values[:, :, : len(ids)], alone.cache.values[:, :, : len(ids)])
        *texts, end = kept.generate(Work(ids, 4, ignore_eos=True))
        *others, alone_end = nothing.generate(Work(ids, 4, ignore_eos=True))
        assert isinstance(end, Finished)
        assert isinstance(alone_end, Finished)
        assert [one.text for one in texts] == [one.text for one in others]  # type: ignore[union-attr]
        assert alone_end.usage.cached_tokens == 0
        cached.append(end.usage.cached_tokens)
    assert cached == [len(ids) for ids in (*prompts, prompts[0])], "each was kept by the prefill before"


def test_cached_tokens_are_whole_blocks_that_an_earlier_prompt_begins_with(prompts: list[Ints]) -> None:
    engine, found = Engine(REFERENCE_DIR, 256 << 20, prefix_block=BLOCK), []
    for ids in (*prompts, prompts[0]):
        *_, end = engine.generate(Work(ids, 1, ignore_eos=True))
        assert isinstance(end, Finished)
        found.append((end.usage.cached_tokens, end.usage.prefill_cached))
    assert found == [
        *((n, False) for n in (0, 144, 144, 144, 144, 32, 16, 0, 0)),
        (128, False),  # of 144 tokens that are all there: the last one's logits are nowhere
        (144, False),
        (len(prompts[0]), True),
    ]  # fmt: skip
    assert engine.store.hit_tokens == sum(n for n, _ in found)
    assert engine.store.queried_tokens == sum(map(len, prompts)) + len(prompts[0])


def test_without_the_option_only_whole_prompts_are_found(prompts: list[Ints]) -> None:
    engine = Engine(REFERENCE_DIR, 256 << 20)
    for ids in prompts:
        engine.prefill(ids)
    assert engine.store.hit_tokens == 0


def test_what_is_let_go_is_not_found_and_what_another_prompt_holds_is() -> None:
    def prefill(config_of: Engine, ids: Ints) -> Prefill:
        return Prefill(ids, KVCache.empty(config_of.model.config, 40), np.zeros(8, np.float32))

    engine = Engine(REFERENCE_DIR, 0)
    stem, other = np.arange(32), np.arange(100, 140)
    first, second = np.concatenate((stem, [1] * 8)), np.concatenate((stem, [2] * 8))
    store = PrefillStore(2 * prefill(engine, first).nbytes, BLOCK)
    for ids in (first, second, other):  # the first one is let go; the second has the same beginning
        store.get(ids, partial(prefill, engine, ids))
    assert store.beginning(np.concatenate((stem, [3] * 8)))[1] == 32
    for ids in (other, np.arange(200, 240)):  # the second was just used, so the other one goes
        store.get(ids, partial(prefill, engine, ids))
    assert store.beginning(np.concatenate((stem, [3] * 8)))[1] == 0
    assert store.used_bytes <= store.limit_bytes
    assert len(store._heads) == 2 * (40 // BLOCK)
