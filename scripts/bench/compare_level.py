"""How often `kvt bench compare` calls two runs of one configuration different, over all its figures together.

    python scripts/bench/compare_level.py --runs 2000

Both sides have R repeats of 7 figures at so many loads. A figure varies from repeat to repeat by a log-normal factor of
10% or 30% on both sides, by 5% on one and 30% on the other, or by a skewed one (a gamma of shape 4: bursts). Right: at
most 5%. The last column is how often a figure that is half again as high is found, at 5% noise.
"""

import argparse

import numpy as np

from analyzer.bench.comparison import ALPHA, PER_SECOND, TIMES, welch

NOISE = {"10%": (0.1, 0.1), "5% and 30%": (0.05, 0.3), "30%": (0.3, 0.3), "5%": (0.05, 0.05)}
SKEWED = "gamma 4"


def claims(rng: np.random.Generator, repeats: int, figures: int, noise: str, shift: float = 0.0) -> np.ndarray:
    """[figures] whether each was called different."""
    if noise == SKEWED:
        x, y = (np.log(rng.gamma(4.0, size=(figures, repeats))) for _ in "ab")
    else:
        x, y = (rng.normal(0, spread, (figures, repeats)) for spread in NOISE[noise])
    y = y + np.log1p(shift)
    return np.array([abs(b.mean() - a.mean()) > welch(a, b, ALPHA / figures) for a, b in zip(x, y, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print("| repeats | loads | noise 10% | 30% | 5% and 30% | skewed | finds +50% |")
    print("|---|---|---|---|---|---|---|")
    for repeats in (3, 5, 8):
        for loads in (1, 4):
            rng, figures = np.random.default_rng([asked.seed, repeats, loads]), loads * (len(PER_SECOND) + len(TIMES))
            wrong = [
                np.mean([claims(rng, repeats, figures, noise).any() for _ in range(asked.runs)])
                for noise in ("10%", "30%", "5% and 30%", SKEWED)
            ]
            found = np.mean([claims(rng, repeats, figures, "5%", 0.5).mean() for _ in range(asked.runs)])
            print(
                f"| {repeats} | {loads} | {' | '.join(f'{share:.1%}' for share in wrong)} | {found:.0%} |", flush=True
            )


if __name__ == "__main__":
    main()
