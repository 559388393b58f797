"""The paired loss over answers whose cache was compressed, and over those that were long enough at full cache.

    python scripts/calibrate_chosen.py             # about two minutes

Seeded: the same command prints the same figures. An answer is compressed where it is longer than a bound. Full cache's
lengths are log-normal; hard examples have long answers and score less. A compressed answer loses its point with a
chance; in some worlds what is lost becomes long as well, so that the level itself chooses what is compressed. An
interval holds the loss of the very answers that it is about, in a population of the same kind: at most 2.5% of them
lie above it and 2.5% below.
"""

import numpy as np
import numpy.typing as npt

from analyzer.stats.chosen_loss import chosen_loss
from analyzer.stats.length_ratio import length_ratio

ALPHA, SEED, EXPERIMENTS, LARGE = 0.05, 7, 1000, 400_000
BOUND, PROMPT, CAP = 300.0, 200.0, 250.0
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
World = tuple[Floats, Floats, Floats, Floats]


def world(rng: np.random.Generator, n: int, damage: float, grows: float, per_context: int) -> World:
    """(score, length) at full cache and here, of n examples. damage: chance that a compressed answer is lost; grows: a
    fifth of this share of the short answers repeats itself here until it is long, and is lost; 5% are drawn anew."""
    contexts = np.arange(n) // per_context
    hard = rng.random(contexts[-1] + 1)[contexts]
    length = np.exp(np.log(200) + 0.9 * hard + 0.5 * rng.normal(size=n))
    here = length * np.exp(0.1 * rng.normal(size=n))
    looped = (rng.random(n) < 0.2 * grows) & (here <= BOUND)
    here = np.where(looped, 3 * BOUND, here)
    score = (rng.random(n) > 0.5 * hard).astype(float)
    lost = looped | ((here > BOUND) & (rng.random(n) < damage))
    flipped = rng.random(n) < 0.05
    return score, length, np.where(lost | flipped, np.where(lost, 0.0, rng.random(n) < 0.5), score), here


def peaks(length: Floats, here: Floats) -> tuple[Floats, Floats]:
    """Most tokens held at full cache, and under a cap after every 50 tokens beyond the bound."""
    return PROMPT + length, np.where(here > BOUND, np.maximum(PROMPT + BOUND, CAP + 50), PROMPT + here)


def main() -> None:
    print("| n | per context | damage | grows | over | truth | answers | above | below |")
    print("|---:|---:|---:|---:|---|---:|---:|---:|---:|")
    for damage, grows in ((0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.1, 1.0)):
        for per_context in (1, 5):
            rng = np.random.default_rng([SEED, round(10 * damage), round(grows), per_context])
            score, length, own, here = world(rng, LARGE, damage, grows, per_context)
            truths = {name: float((score - own)[chosen].mean()) for name, chosen in choices(length, here).items()}
            full_peak, own_peak = peaks(length, here)
            ratio = own_peak.mean() / full_peak.mean()
            for n in (40, 120, 400):
                print_cells(rng, n, per_context, (damage, grows), truths, float(ratio))


def choices(length: Floats, here: Floats) -> dict[str, Bools]:
    return {"compressed": here > BOUND, "long at full cache": length > BOUND}


def print_cells(
    rng: np.random.Generator,
    n: int,
    per_context: int,
    kind: tuple[float, float],
    truths: dict[str, float],
    ratio: float,
) -> None:
    """One row for each choice of answers, and one for the ratio of peaks."""
    seen: dict[str, list[tuple[float, float, int]]] = {}
    cluster = np.arange(n) // per_context
    for _ in range(EXPERIMENTS):
        score, length, own, here = world(rng, n, *kind, per_context)
        for name, chosen in choices(length, here).items():
            if loss := chosen_loss(score[:, None], own[:, None], chosen[:, None], cluster, ALPHA):
                seen.setdefault(name, []).append((loss.low, loss.high, loss.n))
        peak = length_ratio(*peaks(length, here), cluster, np.full(n, 1 / n), ALPHA)
        if peak.low is not None and peak.high is not None:
            seen.setdefault("peak", []).append((peak.low, peak.high, n))
    for name, ends in seen.items():
        low, high, count = np.array(ends).T
        truth = truths.get(name, ratio)
        above, below = (low > truth).mean(), (high < truth).mean()
        where = f"| {n} | {per_context} | {kind[0]:g} | {kind[1]:g} | {name} | {truth:.3f} | {np.median(count):.0f} |"
        print(f"{where} {above:.1%} | {below:.1%} |", flush=True)


if __name__ == "__main__":
    main()
