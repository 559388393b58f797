"""Which shard sends what: whole contexts, evenly, and the same in every process."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.formulas.shard_of import shard_of

CONTEXTS = st.lists(st.integers(0, 30).map(str), max_size=60)


@given(CONTEXTS, st.integers(1, 9), st.integers(0, 3))
def test_every_entry_is_in_one_shard_and_entries_of_one_context_are_in_the_same(
    contexts: list[str], n: int, seed: int
) -> None:
    shards = shard_of(contexts, n, seed)
    assert len(shards) == len(contexts)
    assert set(shards) <= set(range(1, n + 1))
    assert len(set(zip(contexts, shards, strict=True))) == len(set(contexts))


@given(CONTEXTS, st.integers(1, 9))
def test_shards_hold_equally_many_contexts_within_one(contexts: list[str], n: int) -> None:
    of_context = dict(zip(contexts, shard_of(contexts, n, 1), strict=True))
    sizes = Counter(of_context.values())
    assert max(sizes.values(), default=0) - min((sizes[i] for i in range(1, n + 1)), default=0) <= 1


@given(CONTEXTS, CONTEXTS, st.integers(1, 9))
def test_a_manifest_that_grows_moves_no_entry(contexts: list[str], more: list[str], n: int) -> None:
    before = shard_of(contexts, n, 1)
    assert list(shard_of([*contexts, *more], n, 1))[: len(contexts)] == list(before)


def test_the_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    contexts = [str(i) for i in range(40)]
    assert list(shard_of(contexts, 4, 1)) == list(shard_of(iter(contexts), 4, 1)) != list(shard_of(contexts, 4, 2))
    assert list(shard_of(contexts, 4, 1337))[:8] == [1, 3, 2, 4, 2, 3, 1, 4], "shards of an earlier kvt fit to today's"
