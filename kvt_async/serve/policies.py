"""Which entries of a prompt's KV cache stay: one scoring function per policy, one rule for choosing.

A policy scores every entry of every layer and KV head from the cache of the prompt as read, nothing evicted;
the n highest stay, ties newest first, original positions kept. Scores don't depend on the budget, so one ranking serves
all budgets and a smaller cache is a subset of a larger one (h2o excepted: half of its budget is for the newest).
Definitions are kvpress 0.5.5's where it has the policy. Where kvpress asserts or leaves a choice open, here:
- snapkv with a prompt no longer than the window: everything is window, so the newest stay;
- snapkv with n below the window: the newest n (all window scores are equal);
- streaming_llm with n below the sinks: the first n.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.plugin_registry import Kind, Plugin
from kvt_async.serve.cache import Positions, Prefill
from kvt_async.serve.model import Llama
from kvt_async.serve.weights import F32, Ints

Params = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class View:
    """What a policy may look at: the first `length` tokens of a prompt and their untouched keys, values, attention."""

    model: Llama
    prefill: Prefill
    length: int

    @property
    def ids(self) -> Ints:
        return self.prefill.ids[: self.length]

    @property
    def keys(self) -> F32:
        return self.prefill.cache.keys[:, :, : self.length]  # [layers, kv_heads, length, head_dim]

    @property
    def values(self) -> F32:
        return self.prefill.cache.values[:, :, : self.length]

    def attention_from(self, first: int) -> F32:
        """Attention each entry receives, summed over the queries from `first` on, [layers, kv_heads, group, length]."""
        c = self.model.config
        out = np.zeros((c.n_layers, c.n_kv_heads, self.model.group, self.length), np.float32)
        for seen in self.model.observe(self.prefill.cache, self.ids, first):
            out[seen.layer, ..., : seen.probabilities.shape[3]] += seen.probabilities.sum(axis=2)
        return out

    def queries(self, first: int) -> F32:
        """Queries from `first` on, before rotation, divided by sqrt(head_dim), [layers, heads, n, head_dim]."""
        c = self.model.config
        out = np.empty((c.n_layers, c.n_heads, self.length - first, c.head_dim), np.float32)
        for seen in self.model.observe(self.prefill.cache, self.ids, first):
            start = seen.row - first
            out[seen.layer, :, start : start + len(seen.queries)] = seen.queries.transpose(1, 0, 2)
        return out

    def shape(self) -> tuple[int, int, int]:
        return (self.model.config.n_layers, self.model.config.n_kv_heads, self.length)


Score = Callable[[View, Params], F32]  # -> [layers, kv_heads, length], higher stays longer


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    score: Score
    defaults: Params  # its own parameters; protect_recent is everybody's
    recent_share: float = 0.0  # part of the budget reserved for the newest entries


POLICIES: dict[str, Policy] = {}


def policy(name: str, *, recent_share: float = 0.0, **defaults: int) -> Callable[[Score], Score]:
    """Register a scoring function under the name that a request asks for; a name given twice is a bug."""

    def register(score: Score) -> Score:
        if name in POLICIES:
            raise ValueError(f"policy {name!r} is registered twice")
        POLICIES[name] = Policy(name, score, {**defaults, "protect_recent": 0}, recent_share)
        return score

    return register


def find_policy(name: str) -> Policy | None:
    """The policy of that name, plugins' among them; None: there is none. Raises ConfigError: it can't be loaded."""
    if name in POLICIES:
        return POLICIES[name]
    plugin = plugin_registry.find(Kind.POLICY, name)
    return None if plugin is None else _of_plugin(plugin)


def policy_names() -> list[str]:
    """Every name that `find_policy` finds."""
    return [*POLICIES, *(name for name in plugin_registry.names(Kind.POLICY) if name not in POLICIES)]


def refuse_equal_names() -> None:
    """Raises ConfigError where a plugin that is loaded gives a policy by a name of ours."""
    for plugin in plugin_registry.added(Kind.POLICY):
        if plugin.name in POLICIES or plugin.name == "full":
            raise plugin_registry.taken(Kind.POLICY, plugin.name, "one of kvt's own", plugin.origin)


def _of_plugin(plugin: Plugin) -> Policy:
    """A plugin's policy, whose scores are looked at: the others are tested."""

    def checked(view: View, params: Params) -> F32:
        try:
            scores = np.asarray(plugin.function(view, params), dtype=np.float32)
        except Exception as error:
            raise plugin.failed(error) from None
        if scores.shape != view.shape() or np.isnan(scores).any():
            wrong = "NaN" if scores.shape == view.shape() else f"scores of shape {scores.shape}"
            raise ConfigError(
                f"{plugin.says} gave {wrong}; it gives a number for each entry, shape {view.shape()}",
                where=plugin.origin.path,
            )
        return scores

    defaults = {**plugin.options["defaults"], "protect_recent": 0}
    return Policy(plugin.name, checked, defaults, plugin.options["recent_share"])


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy with all its parameters, as one request asks for it."""

    policy: Policy
    params: Params = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, params: Params) -> "Choice":
        """Of a policy that there is. Raises ConfigError where it is a package's that can't be loaded."""
        if (policy := find_policy(name)) is None:
            raise ValueError(f"{name} is no policy")
        return cls(policy, params)

    def rank(self, view: View) -> Positions:
        """Positions by falling score, [layers, kv_heads, length]; remembered by the prefill."""
        own = {**self.policy.defaults, **self.params}
        own.pop("protect_recent")
        key = (self.policy.name, view.length, *sorted(own.items()))
        if key not in view.prefill.ranks:
            scores = self.policy.score(view, own)
            newest_first = np.argsort(-scores[..., ::-1], axis=-1, kind="stable")
            view.prefill.ranks[key] = (view.length - 1 - newest_first).astype(np.int32)
        return view.prefill.ranks[key]

    def kept(self, view: View, n: int, *, read_again: bool = False) -> Positions:
        """The n positions each head keeps, rising, [layers, kv_heads, n].

        With `read_again` the last token is left out and counted: n - 1 others stay, because it is read again on them
        and becomes the n-th entry.
        """
        rank = self.rank(view)
        length, again = view.length, int(read_again)
        protected = max(self.params.get("protect_recent", 0), int(n * self.policy.recent_share))
        newest = min(protected, n)
        if again or newest:
            oldest_protected = length - max(newest, again)
            layers, heads, _ = rank.shape
            rank = rank[rank < oldest_protected].reshape(layers, heads, oldest_protected)
            recent = np.arange(oldest_protected, length - again, dtype=np.int32)
            rank = np.concatenate([np.broadcast_to(recent, (layers, heads, len(recent))), rank], axis=2)
        return np.sort(rank[..., : n - again], axis=2)


@policy("streaming_llm", sinks=4)
def streaming_llm(view: View, params: Params) -> F32:
    """The first `sinks` entries and the newest (Xiao et al., 2023), original positions kept."""
    scores = np.arange(view.length, dtype=np.float32)
    sinks = min(params["sinks"], view.length)
    scores[:sinks] = view.length + np.arange(sinks, 0, -1)
    return np.broadcast_to(scores, view.shape())


@policy("snapkv", window=32, kernel=5)
def snapkv(view: View, params: Params) -> F32:
    """Mean attention from the last `window` queries, average-pooled over `kernel` neighbours (Li et al., 2024).

    The pooling pads with zeros and counts them; the window itself ranks above everything.
    """
    window, kernel = min(params["window"], view.length), params["kernel"]
    older = view.length - window
    scores = np.empty(view.shape(), np.float32)
    if older:
        received = view.attention_from(older)[..., :older].mean(axis=2) / window
        padded = np.pad(received, [(0, 0), (0, 0), (kernel // 2, kernel // 2)])
        pooled = sum(padded[..., shift : shift + older] for shift in range(kernel))
        scores[..., :older] = pooled / np.float32(kernel)
    scores[..., older:] = scores[..., :older].max(initial=0.0) + 1
    return scores


@policy("random", seed=0)
def random(view: View, params: Params) -> F32:
    """Uniform noise, independent per layer and head, drawn from the tokens and `seed`: equal requests, equal choice."""
    content = hashlib.sha256(view.ids.tobytes()).digest()
    generator = np.random.default_rng([params["seed"], int.from_bytes(content[:8], "little")])
    return generator.random(view.shape(), dtype=np.float32)


@policy("tova")
def tova(view: View, params: Params) -> F32:
    """Attention from the last token, averaged over all heads of a layer, which rank alike (Oren et al., 2024)."""
    scores = np.empty(view.shape(), np.float32)
    scores[:] = view.attention_from(view.length - 1).mean(axis=(1, 2))[:, None]
    scores[..., -1] = scores[..., :-1].max(initial=0.0) + 1
    return scores


@policy("knorm")
def knorm(view: View, params: Params) -> F32:
    """Keys of small norm stay (Devoto et al., 2024)."""
    keys = view.keys
    scores: F32 = -np.sqrt(np.einsum("lhnd,lhnd->lhn", keys, keys))
    return scores


@policy("observed_attention")
def observed_attention(view: View, params: Params) -> F32:
    """Mean attention from the queries that can see the entry."""
    queries = np.arange(view.length, 0, -1, dtype=np.float32)
    scores: F32 = (view.attention_from(0) / queries).mean(axis=2)
    return scores


@policy("h2o", recent_share=0.5)
def h2o(view: View, params: Params) -> F32:
    """Attention summed over all queries; half of the budget is for the newest entries (Zhang et al., 2023)."""
    scores: F32 = view.attention_from(0).mean(axis=2)
    return scores


@policy("expected_attention", sinks=4, future=512)
def expected_attention(view: View, params: Params) -> F32:
    """Attention expected from the next `future` queries, times the value's norm (kvpress' ExpectedAttentionPress).

    Future queries are taken as normal with the mean and covariance of the prompt's, turned by RoPE's mean rotation over
    the future positions; the first `sinks` entries rank above everything and don't count in the statistics.
    """
    c, sinks = view.model.config, min(params["sinks"], view.length)
    scores = np.zeros(view.shape(), np.float32)
    if sinks < view.length:
        queries = view.queries(sinks)
        mean = queries.mean(axis=2)
        centred = queries - mean[:, :, None]
        turn = view.model.mean_rotation(view.length, params["future"])
        covariance = turn @ (centred.transpose(0, 1, 3, 2) @ centred / np.float32(queries.shape[2])) @ turn.T
        mean = (mean @ turn.T).reshape(c.n_layers, c.n_kv_heads, view.model.group, c.head_dim)
        keys = view.keys[:, :, None, sinks:]
        covariance = covariance.reshape(*mean.shape, c.head_dim)
        logits = np.einsum("lhgd,lhnd->lhgn", mean, keys[:, :, 0])
        logits += (
            np.einsum("lhgnd,lhgnd->lhgn", keys @ covariance, np.broadcast_to(keys, (*logits.shape, c.head_dim))) / 2
        )
        weights = np.exp(logits - logits.max(axis=3, keepdims=True))
        weights /= weights.sum(axis=3, keepdims=True)
        scores[..., sinks:] = weights.mean(axis=2) * np.linalg.norm(view.values[:, :, sinks:], axis=-1)
    scores[..., :sinks] = scores[..., sinks:].max(initial=0.0) + 1
    return scores
