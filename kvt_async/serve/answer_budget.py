"""A KV budget while an answer is generated: after every `interval` tokens each head is brought down to its budget.

kvpress 0.5.5's DecodingPress, CompressionRatioDecodingPress and PrefillDecodingPress. The first answer token comes from
the prompt; each token that is fed back counts, and the compression after the interval-th sees its entry and its query,
while its logits are from before. The policy scores the cache as it stands: what was evicted never comes back, what
stays keeps its position. The target is `keep_tokens`, or `budget` of all tokens seen, prompt and evicted ones included.
A cache within its target is left alone, which is no compression; the interval starts anew all the same, and so do the
queries that a policy can look back on: those since then, at most the newest 257 (kvpress buffers 256 hidden states).

Where kvpress leaves something open or is at odds with itself, here, and on the kvpress backend too:
- entries stay in the order of their positions. kvpress leaves them by falling score, so that from the second
  compression on "the first four" of streaming_llm and the neighbours that snapkv pools over are any entries;
- snapkv's window of queries is rotated to the positions where those tokens stand. kvpress has the newest token's
  rotation for all of them with sdpa attention, and the newest query alone with eager attention;
- expected_attention's future begins after the newest token, and all queries that are kept count. kvpress begins as many
  positions from 0 as it has buffered, and leaves out the first `sinks` of those it has buffered;
- a target of one token is reached after every interval. kvpress then compresses after every token;
- snapkv's window is no longer than there are queries to look back on: with an interval of 16 it is the 16 tokens since
  the last compression. kvpress asserts that there are more;
- observed_attention and h2o add up the attention of all queries, those of the prompt and every generated token's, each
  on the cache as it stood. kvpress has the newest query's alone. Where the last prompt token is read again after an
  eviction, its second reading counts and not its first.
"""

import numpy as np

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.cache import KVCache
from kvt_async.serve.catalogue import broken
from kvt_async.serve.model import Llama
from kvt_async.serve.policies import Choice
from kvt_async.serve.views import RECENT_QUERIES, AnswerView, RecentQueries
from kvt_async.serve.weights import F32
from kvt_async.serve.work import Held, Work


class AnswerBudget:
    """Feeds one answer's tokens to the working cache and keeps that to the request's budget."""

    def __init__(self, model: Llama, cache: KVCache, work: Work, held: Held) -> None:
        """The cache holds what is left of the prompt; `held` is kept up to date.

        Raises ConfigError for a package's policy that can't be loaded.
        """
        self._model, self._cache, self._kv, self._held = model, cache, work.kv, held
        self._choice = Choice.of(work.kv.policy, work.kv.params)
        self._recent = RecentQueries(model, min(work.kv.interval, work.max_tokens, RECENT_QUERIES))
        self._ids = work.ids.tolist()
        self._since = 0

    def step(self, token: int, position: int) -> F32:
        """Append the token; return the logits after it, [vocab]. ApiError 500 where a plugin's policy fails."""
        logits = self._model.step(self._cache, token, position, self._recent.slot())
        self._ids.append(token)
        self._held.hold(self._cache.length)
        self._since += 1
        if self._since == self._kv.interval:
            self._since = 0
            self._compress()
            self._recent.clear()
        return logits

    def _compress(self) -> None:
        seen = len(self._ids)
        keep = self._kv.keep_of_seen(seen)
        if keep >= self._cache.length:
            return
        view = AnswerView(self._model, self._cache, np.array(self._ids), self._cache.positions(seen), self._recent, {})
        try:
            kept = self._choice.kept(view, keep)
        except ConfigError as error:
            raise broken(error) from None
        self._cache.evict(kept, seen)
        self._held.n_compressions += 1
        self._held.compressed(keep, seen)
