"""Muon in single precision: momentum, then every matrix's update made orthogonal (Jordan et al., 2024).

torch has this optimiser too, but it orthogonalises in bfloat16, which takes longer than the whole rest of a step on a
CPU without bfloat16 arithmetic. Here matrices of one shape are also handled as one batch.
"""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="misc, no-any-return, untyped-decorator, override, union-attr"

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # pushes all singular values into about 0.7 to 1.2 within 5 rounds


class Muon(torch.optim.Optimizer):
    """For 2-D weights only. Updates are scaled to the root mean square that AdamW's have (0.2), so rates compare."""

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                by_shape[weight.shape].append(weight)
            for weights in by_shape.values():
                updates = orthogonal(torch.stack([self._direction(weight, group["momentum"]) for weight in weights]))
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum: the gradient mixed with its running mean."""
        mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T of a [n, rows, columns] batch, by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
