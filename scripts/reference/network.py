"""A small Llama in torch, parameter names as in Hugging Face's LlamaForCausalLM, and a start from which it can learn.

From a plain random start this network stays for a long time where it copies any value of the context. The structured
start below gives it the two things it needs to find out otherwise: heads that look a fixed distance back (layer 0), and
heads that match content with content and copy what they find (layers 1 and up). Every weight is trained afterwards.
"""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="misc, no-any-return, untyped-decorator"

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The fields of config.json that decide the arithmetic, under their Hugging Face names."""

    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    max_position_embeddings: int = 4096

    def as_config(self) -> dict[str, object]:
        return asdict(self)

    @property
    def group(self) -> int:
        return self.num_attention_heads // self.num_key_value_heads

    def frequencies(self) -> Tensor:
        """Radians per position of each of the head_dim / 2 rotated pairs, fastest first."""
        half = self.head_dim // 2
        return self.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        s = shape
        self.shape = s
        self.q_proj = nn.Linear(s.hidden_size, s.num_attention_heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, s.num_key_value_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, s.num_key_value_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.num_attention_heads * s.head_dim, s.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            projected.view(batch, length, -1, self.shape.head_dim).transpose(1, 2)
            for projected in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (each.repeat_interleave(self.shape.group, dim=1) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in Hugging Face's half-split layout: dimension i turns together with i + head_dim / 2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Mlp(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The body without a head: `forward` gives normed hidden states, `logits` reads them with the embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        angles = torch.arange(ids.shape[1], dtype=torch.float64)[:, None] * self.shape.frequencies()
        cos, sin = angles.cos().float(), angles.sin().float()
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embed_tokens.weight.T


@torch.no_grad()
def initialise(model: Llama, seed: int, gain: float = 3.0) -> None:
    """Random weights with structure: offset heads in layer 0, matching and copying heads above."""
    shape, draw = model.shape, torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            std = 0.08 if "embed" in name else weight.shape[1] ** -0.5
            weight.copy_(torch.randn(weight.shape, generator=draw) * std)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.div_(math.sqrt(2 * shape.num_hidden_layers))
    model.embed_tokens.weight[:, 0] = 0.9  # a bias-free Llama has no constant; positional heads are made of this one
    first, *others = model.blocks()
    _offset_heads(first.self_attn, shape)
    for block in others:
        _matching_heads(block.self_attn, shape, gain)


def _offset_heads(attention: Attention, shape: Shape) -> None:
    """Head h looks h + 1 tokens back: its query is its key turned by that many positions, in the 6 fastest pairs."""
    half, n_pairs = shape.head_dim // 2, 6
    strength = math.sqrt(11 * math.sqrt(shape.head_dim)) / 8
    angle = shape.frequencies()[:n_pairs].float()
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight[:, 1:] *= 0.3
        weight[:, 0] = 0.0
    for head in range(shape.num_key_value_heads):
        rows = head * shape.head_dim
        attention.k_proj.weight[rows : rows + n_pairs, 0] = strength
    for head in range(shape.num_attention_heads):
        rows, turn = head * shape.head_dim, (head + 1) * angle
        attention.q_proj.weight[rows : rows + n_pairs, 0] = strength * turn.cos()
        attention.q_proj.weight[rows + half : rows + half + n_pairs, 0] = -strength * turn.sin()
    attention.o_proj.weight.mul_(math.sqrt(2 * shape.num_hidden_layers))


def _matching_heads(attention: Attention, shape: Shape, gain: float) -> None:
    """Queries equal keys in the pairs too slow to turn within 2,048 tokens, and the output undoes the value matrix."""
    size = shape.head_dim
    slow = shape.frequencies() * 2048 < 1.5
    scale = torch.where(slow.repeat(2), gain, 0.3).float()[:, None]
    q, k = attention.q_proj.weight, attention.k_proj.weight
    v, o = attention.v_proj.weight, attention.o_proj.weight
    q.view(-1, size, shape.hidden_size).mul_(0.2 * scale)
    k.view(-1, size, shape.hidden_size).mul_(scale)
    v[:, 0] = 0.0
    for head in range(shape.num_attention_heads):
        mine = slice(head * size, (head + 1) * size)
        theirs = slice(head // shape.group * size, (head // shape.group + 1) * size)
        q[mine] += k[theirs]
        o[:, mine] = v[theirs].T / 2
    q[:, 0] *= 0.1
    k[:, 0] *= 0.1
