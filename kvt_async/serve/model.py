"""A Llama forward pass in numpy: prompts in blocks of queries, then one token at a time on a preallocated cache.

Logits equal transformers' LlamaForCausalLM (float32) within 2e-3. RoPE is Hugging Face's half-split layout; a group of
query heads shares one key head by being extra query rows. Keys keep the rotation of their original position, so a cache
whose entries were evicted goes on at the position of the full prompt, not at its own length.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kvt_async.serve.cache import KVCache
from kvt_async.serve.model_files import ModelFiles
from kvt_async.serve.weights import F32, Ints, LayerWeights, LlamaConfig, read_weights

FIRST_POSITIONS = 2048  # rotation tables to begin with: a context of 128k would take gigabytes
QUERY_BLOCK = 128  # rows per block: scores of one key head stay near the L2 cache, memory stays bounded


@dataclass(frozen=True, slots=True)
class Observation:
    """What one layer did with one block of queries, the first of them at position `row`."""

    layer: int
    row: int
    queries: F32  # [rows, heads, head_dim] before rotation, already divided by sqrt(head_dim)
    probabilities: F32  # [kv_heads, group, rows, row + rows]


class Llama:
    """The model and its scratch memory: for one thread at a time."""

    def __init__(self, files: ModelFiles, query_block: int = QUERY_BLOCK) -> None:
        """`query_block`: rows of a prompt that are read together; other numbers round differently."""
        self.config, self.query_block = LlamaConfig.read(files), query_block
        c = self.config
        self.weights = read_weights(files, c)
        self.q_width, self.kv_width = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        self.group = c.n_heads // c.n_kv_heads
        rotated = (c.n_heads + c.n_kv_heads, c.head_dim)
        half = c.head_dim // 2
        self._swap = np.roll(np.arange(math.prod(rotated)).reshape(rotated), half, axis=1).ravel()
        self._positions = 0  # of the rotation tables, which grow as longer texts come
        self._cos = self._sin = self._cos_row = self._sin_row = np.empty((0, 0), np.float32)
        self._reach(min(c.max_positions, FIRST_POSITIONS))
        self._causal = np.triu(np.full((query_block, query_block), -np.inf, np.float32), 1)

    def _reach(self, positions: int) -> None:
        """Have the rotations of so many positions."""
        if positions <= self._positions:
            return
        c = self.config
        self._positions = min(c.max_positions, max(positions, 2 * self._positions))
        self._cos, self._sin = _rope(np.arange(self._positions), c)
        # A row of these tables rotates all q and k heads of one token at once: x * cos + swapped(x) * signed sin.
        heads = c.n_heads + c.n_kv_heads
        self._cos_row = np.tile(self._cos, (1, 2 * heads))
        self._sin_row = np.tile(np.concatenate([-self._sin, self._sin], axis=1), (1, heads))

    # ---- blocks of tokens

    def extend(self, cache: KVCache, ids: Ints, position: int) -> F32:
        """Append `ids`, the first at `position`, to the cache; return the logits after the last one, [vocab]."""
        for start in range(0, len(ids), self.query_block):
            block = ids[start : start + self.query_block]
            last = start + len(block) == len(ids)
            x = self._block(cache, block, position + start, only_last_row=True, need_output=last)
        logits: F32 = self._logits(x[-1:])[0]
        return logits

    def mean_rotation(self, position: int, count: int) -> F32:
        """The mean of RoPE's rotation matrices over `count` positions from `position` on, [head_dim, head_dim]."""
        c = self.config
        cos, sin = _rope(np.arange(position, position + count), c)
        half, turn = c.head_dim // 2, np.diag(np.tile(cos.mean(axis=0), 2))
        turn[:half, half:] = np.diag(-sin.mean(axis=0))
        turn[half:, :half] = np.diag(sin.mean(axis=0))
        return turn

    def logits(self, ids: Ints) -> F32:
        """Logits after every position of a prompt read from nothing, [len(ids), vocab]."""
        cache = KVCache.empty(self.config, len(ids))
        rows = self.query_block
        blocks = [ids[start : start + rows] for start in range(0, len(ids), rows)]
        return np.concatenate([self._logits(self._block(cache, block, cache.length)) for block in blocks])

    def observe(self, cache: KVCache, ids: Ints, first: int) -> Iterator[Observation]:
        """Read ids[first:] again on the cache that already holds them; yield what each layer does, block by block.

        Every entry of the cache must be in place (nothing evicted); the cache is not changed.
        """
        for row in range(first, len(ids), self.query_block):
            block = ids[row : min(row + self.query_block, len(ids))]
            seen: list[Observation] = []
            view = KVCache(cache.keys, cache.values, row)
            self._block(view, block, row, append=False, observed=seen)
            yield from seen

    def attention(self, cache: KVCache, queries: F32, position: int) -> F32:
        """Attention that each entry of the cache receives from its newest entries' `queries`, summed over these.

        `queries` [layers, heads, n, head_dim] before rotation, the first of them at `position`. Result [layers,
        kv_heads, group, cache.length].
        """
        c, n, end = self.config, queries.shape[2], cache.length
        self._reach(position + n)
        rotated = queries.copy()
        self._rotate(rotated, self._cos[position : position + n], self._sin[position : position + n])
        grouped = rotated.reshape(c.n_layers, c.n_kv_heads, self.group, n, c.head_dim)
        later = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        out = np.empty((c.n_layers, c.n_kv_heads, self.group, end), np.float32)
        for layer in range(c.n_layers):
            scores = grouped[layer] @ cache.keys[layer, :, None, :end].transpose(0, 1, 3, 2)
            scores[..., end - n :] += later
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[layer] = scores.sum(axis=2)
        return out

    def _block(
        self,
        cache: KVCache,
        ids: Ints,
        position: int,
        *,
        append: bool = True,
        only_last_row: bool = False,
        need_output: bool = True,
        observed: list[Observation] | None = None,
    ) -> F32:
        """Hidden states of a block before the final norm, [rows, d_model]; only its last row if that is all we need.

        In the last layer, keys and values are needed of every row, the rest of the layer only where it is read.
        """
        c, rows, start = self.config, len(ids), cache.length
        end = start + rows
        x = self.weights.embed[ids]
        self._reach(position + rows)
        cos, sin = self._cos[position : position + rows, None], self._sin[position : position + rows, None]
        for i, w in enumerate(self.weights.layers):
            qkv = self._normed(x) @ w.qkv
            if w.qkv_bias is not None:
                qkv += w.qkv_bias
            if w.qk_norm is not None:
                self._norm_heads(qkv[:, : self.q_width + self.kv_width].reshape(rows, -1, c.head_dim), w.qk_norm)
            unrotated = qkv[:, : self.q_width].copy() if observed is not None else None
            self._rotate(qkv[:, : self.q_width + self.kv_width].reshape(rows, -1, c.head_dim), cos, sin)
            if append:
                kv = qkv[:, self.q_width :].reshape(rows, 2, c.n_kv_heads, c.head_dim)
                cache.keys[i, :, start:end] = kv[:, 0].transpose(1, 0, 2)
                cache.values[i, :, start:end] = kv[:, 1].transpose(1, 0, 2)
            q = qkv[:, : self.q_width]
            if i == c.n_layers - 1 and only_last_row and cache.received is None:
                if not need_output:
                    break
                x, q = x[-1:], q[-1:]
            watched = observed is not None or cache.received is not None
            mixed, probabilities = self._attend(cache, i, q, end, keep_probabilities=watched)
            if cache.received is not None and probabilities is not None:
                cache.received[i, ..., :end] += probabilities.sum(axis=2)
            if observed is not None and unrotated is not None and probabilities is not None:
                observed.append(Observation(i, start, unrotated.reshape(rows, -1, c.head_dim), probabilities))
            x = x + mixed @ w.out
            x += self._mlp(x, w)
        if append:
            cache.length = end
        return x

    def _attend(
        self, cache: KVCache, layer: int, q: F32, end: int, *, keep_probabilities: bool
    ) -> tuple[F32, F32 | None]:
        """Causal attention of the last len(q) of `end` entries over all of them, [rows, q_width]."""
        c, rows = self.config, len(q)
        out = np.empty((rows, c.n_kv_heads, self.group, c.head_dim), np.float32)
        probabilities = np.empty((c.n_kv_heads, self.group, rows, end), np.float32) if keep_probabilities else None
        grouped = q.reshape(rows, c.n_kv_heads, self.group, c.head_dim).transpose(1, 2, 0, 3)
        for head in range(c.n_kv_heads):
            scores = grouped[head].reshape(-1, c.head_dim) @ cache.keys[layer, head, :end].T
            if rows > 1:
                scores.reshape(self.group, rows, end)[:, :, end - rows :] += self._causal[:rows, :rows]
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            total = scores.sum(axis=1, keepdims=True)
            if probabilities is not None:
                np.divide(scores, total, out=probabilities[head].reshape(-1, end))
            mixed = scores @ cache.values[layer, head, :end]
            mixed /= total
            out[:, head] = mixed.reshape(self.group, rows, c.head_dim).transpose(1, 0, 2)
        return out.reshape(rows, -1), probabilities

    def _mlp(self, x: F32, w: LayerWeights) -> F32:
        gate_up = self._normed(x) @ w.gate_up
        width = gate_up.shape[1] // 2
        half_gate, up = gate_up[:, :width], gate_up[:, width:]
        hidden = np.tanh(half_gate)  # silu(g) = g/2 * (1 + tanh(g/2)): unlike exp(-g), it can't overflow
        hidden += 1.0
        hidden *= half_gate
        hidden *= up
        out: F32 = hidden @ w.down
        return out

    def _normed(self, x: F32) -> F32:
        mean_square = np.einsum("ij,ij->i", x, x) / np.float32(self.config.d_model)
        scale = 1.0 / np.sqrt(mean_square + np.float32(self.config.norm_eps))
        normed: F32 = x * scale[:, None]
        return normed

    def _logits(self, x: F32) -> F32:
        logits: F32 = self._normed(x) @ self.weights.head
        return logits

    def _norm_heads(self, heads: F32, weight: F32) -> None:
        """Norm each head of [..., heads, head_dim] in place, as Qwen3 does before rotation."""
        mean_square = np.einsum("...d,...d->...", heads, heads) / np.float32(self.config.head_dim)
        heads *= (1.0 / np.sqrt(mean_square + np.float32(self.config.norm_eps)))[..., None]
        heads *= weight

    @staticmethod
    def _rotate(heads: F32, cos: F32, sin: F32) -> None:
        """Rotate [rows, heads, head_dim] in place."""
        half = heads.shape[-1] // 2
        low, high = heads[..., :half], heads[..., half:]
        turned = low * cos
        turned -= high * sin
        high *= cos
        high += low * sin
        low[...] = turned

    # ---- one token: the same arithmetic with as few numpy calls as possible, because calls are what it costs

    def step(self, cache: KVCache, token: int, position: int, queries: F32 | None = None) -> F32:
        """Append one token to the cache and return the logits after it, [vocab].

        `queries` [layers, heads, head_dim] takes the token's queries, before rotation.
        """
        c = self.config
        n = cache.length
        end = n + 1
        d, eps, q_width, qk_width = c.d_model, c.norm_eps, self.q_width, self.q_width + self.kv_width
        self._reach(position + 1)
        cos, sin, swap, received = self._cos_row[position], self._sin_row[position], self._swap, cache.received
        q_shape, kv_shape = (c.n_kv_heads, self.group, c.head_dim), (c.n_kv_heads, c.head_dim)
        x = self.weights.embed[token].copy()
        for i, w in enumerate(self.weights.layers):
            qkv = (x * (1.0 / math.sqrt(x.dot(x) / d + eps))).dot(w.qkv)
            if w.qkv_bias is not None:
                qkv += w.qkv_bias
            qk = qkv[:qk_width]
            if w.qk_norm is not None:
                self._norm_heads(qk.reshape(-1, c.head_dim), w.qk_norm)
            if queries is not None:
                queries[i] = qk[:q_width].reshape(-1, c.head_dim)
            turned = qk.take(swap)
            turned *= sin
            qk *= cos
            qk += turned
            keys, values = cache.keys[i], cache.values[i]
            keys[:, n] = qkv[q_width:qk_width].reshape(kv_shape)
            values[:, n] = qkv[qk_width:].reshape(kv_shape)
            # Keys on the left and a small copy: twice as fast in BLAS as two query rows times transposed keys.
            scores = (
                np.matmul(keys[:, :end], qkv[:q_width].reshape(q_shape).transpose(0, 2, 1)).transpose(0, 2, 1).copy()
            )
            scores -= scores.max(axis=2, keepdims=True)
            np.exp(scores, out=scores)
            mixed = np.matmul(scores, values[:, :end])
            total = scores.sum(axis=2, keepdims=True)
            mixed /= total
            if received is not None:
                received[i, ..., :end] += scores / total
            x += mixed.reshape(q_width).dot(w.out)
            gate_up = (x * (1.0 / math.sqrt(x.dot(x) / d + eps))).dot(w.gate_up)
            width = gate_up.shape[0] // 2
            hidden = np.tanh(gate_up[:width])
            hidden += 1.0
            hidden *= gate_up[:width]
            hidden *= gate_up[width:]
            x += hidden.dot(w.down)
        cache.length = end
        logits: F32 = (x * (1.0 / math.sqrt(x.dot(x) / d + eps))).dot(self.weights.head)
        return logits


def _rope(positions: Ints, config: LlamaConfig) -> tuple[F32, F32]:
    """Cosine and sine of every pair's angle, [positions, head_dim / 2]."""
    frequencies = config.rope_base ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    if config.rope_divisors is not None:
        frequencies = frequencies / np.array(config.rope_divisors)
    angles = positions[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
