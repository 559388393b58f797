"""The loss below which a task's contexts can prove nothing, even where nothing is lost.

One imagined context at the worst value stands beside those there are, as heavy as the heaviest: the p value of "m or
more is lost" is at best the product over contexts of 1 / (1 + m / (1 - m) w_i / w_max), (1 - m)^n for equal ones.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable


def least_provable_loss(places: Iterable[tuple[str, int]], level: float = 0.025) -> float:
    """Of (context, bin) of every example, bins weighing equally: the least m that can be proven at one-sided `level`.

    1 - level^(1/n) of n contexts of equal weight: 0.088 with 40, 0.168 with 20; 1.0 without examples.
    """
    of = list(places)
    in_bin = Counter(bin_idx for _, bin_idx in of)
    weight: dict[str, float] = defaultdict(float)
    for context, bin_idx in of:
        weight[context] += 1 / in_bin[bin_idx]
    if not weight:
        return 1.0
    heaviest, low, high = max(weight.values()), 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        proof = sum(math.log1p(middle / (1 - middle) * each / heaviest) for each in weight.values())
        low, high = (low, middle) if proof >= -math.log(level) else (middle, high)
    return high
