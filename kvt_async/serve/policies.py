"""Which entries of a KV cache stay: one scoring function per policy, one rule for choosing.

A policy scores every entry of every layer and KV head: of the prompt as read, nothing evicted, or, while an answer is
generated, of the cache as it stands. The n highest stay, ties newest first, original positions kept. Scores don't
depend on the budget, so one ranking serves all budgets and a smaller cache is a subset of a larger one (h2o excepted:
half of its budget is for the newest).
Definitions are kvpress 0.5.5's where it has the policy. Where kvpress asserts or leaves a choice open, here:
- snapkv with a prompt no longer than the window: everything is window, so the newest stay;
- snapkv with n below the window: the newest n (all window scores are equal);
- streaming_llm with n below the sinks: the first n.
What differs from kvpress while an answer is generated stands in answer_budget.py.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.plugin_registry import Kind, Plugin
from kvt_async.serve.cache import Positions
from kvt_async.serve.views import View
from kvt_async.serve.weights import F32

Params = Mapping[str, int]


Score = Callable[[View, Params], F32]  # -> [layers, kv_heads, length], higher stays longer


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    score: Score
    defaults: Params  # its own parameters; protect_recent is everybody's
    recent_share: float = 0.0  # part of the budget reserved for the newest entries
    counts_attention: bool = False  # needs View.received while an answer is generated


POLICIES: dict[str, Policy] = {}


def policy(
    name: str, *, recent_share: float = 0.0, counts_attention: bool = False, **defaults: int
) -> Callable[[Score], Score]:
    """Register a scoring function under the name that a request asks for; a name given twice is a bug."""

    def register(score: Score) -> Score:
        if name in POLICIES:
            raise ValueError(f"policy {name!r} is registered twice")
        POLICIES[name] = Policy(name, score, {**defaults, "protect_recent": 0}, recent_share, counts_attention)
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
    return Policy(plugin.name, checked, defaults, plugin.options["recent_share"], plugin.options["counts_attention"])


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
        """Entries by falling score, [layers, kv_heads, length]; remembered by the view."""
        own = {**self.policy.defaults, **self.params}
        own.pop("protect_recent")
        key = (self.policy.name, view.length, *sorted(own.items()))
        if key not in view.ranks:
            scores = self.policy.score(view, own)
            newest_first = np.argsort(-scores[..., ::-1], axis=-1, kind="stable")
            view.ranks[key] = (view.length - 1 - newest_first).astype(np.int32)
        return view.ranks[key]

    def kept(self, view: View, n: int, *, read_again: bool = False) -> Positions:
        """The n entries each head keeps, rising, [layers, kv_heads, n].

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
    window, kernel = min(params["window"], view.length - view.first_query), params["kernel"]
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


@policy("observed_attention", counts_attention=True)
def observed_attention(view: View, params: Params) -> F32:
    """Mean attention from the queries that have seen the entry."""
    queries = (view.seen - view.positions).astype(np.float32)
    scores: F32 = (view.received() / queries[:, :, None]).mean(axis=2)
    return scores


@policy("h2o", recent_share=0.5, counts_attention=True)
def h2o(view: View, params: Params) -> F32:
    """Attention summed over all queries; half of the budget is for the newest entries (Zhang et al., 2023)."""
    scores: F32 = view.received().mean(axis=2)
    return scores


@policy("expected_attention", sinks=4, future=512)
def expected_attention(view: View, params: Params) -> F32:
    """Attention expected from the next `future` queries, times the value's norm (kvpress' ExpectedAttentionPress).

    Future queries are taken as normal with the mean and covariance of the view's, turned by RoPE's mean rotation over
    the future positions; the first `sinks` entries rank above everything and don't count in the statistics.
    """
    c, sinks = view.model.config, min(params["sinks"], view.length)
    scores = np.zeros(view.shape(), np.float32)
    if sinks < view.length:
        queries = view.queries(max(sinks, view.first_query))
        mean = queries.mean(axis=2)
        centred = queries - mean[:, :, None]
        turn = view.model.mean_rotation(view.seen, params["future"])
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
