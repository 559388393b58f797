"""How often `kvt bench compare` calls two runs of one configuration different, over all its figures together.

    python scripts/bench/compare_level.py --runs 2000

Both sides have R repeats of 7 figures at so many loads. A figure varies from repeat to repeat: by 10% on both sides, by
5% on one and 30% on the other, or by a log-normal factor of 30%. Right: at most 5%. The last column is how often a
figure that is half again as high is found, at 5% noise.
"""

import argparse

import numpy as np

from analyzer.bench.compare import ALPHA, PER_SECOND, TIMES, welch

NOISE = {"10%": (0.1, 0.1), "5% and 30%": (0.05, 0.3), "log-normal 30%": (0.3, 0.3)}


def claims(rng: np.random.Generator, repeats: int, figures: int, noise: str, shift: float = 0.0) -> np.ndarray:
    """[figures] whether each was called different."""
    x, y = (rng.normal(0, spread, (figures, repeats)) for spread in NOISE[noise])
    x, y = (np.exp(x), np.exp(y)) if noise.startswith("log") else (1 + x, 1 + shift + y)
    return np.array([abs(b.mean() - a.mean()) > welch(a, b, ALPHA / figures) for a, b in zip(x, y, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    NOISE["5%"] = (0.05, 0.05)
    print("| repeats | loads | noise 10% | 5% and 30% | log-normal 30% | finds +50% |")
    print("|---|---|---|---|---|---|")
    for repeats in (3, 5, 8):
        for loads in (1, 4):
            rng, figures = np.random.default_rng([asked.seed, repeats, loads]), loads * (len(PER_SECOND) + len(TIMES))
            wrong = [
                np.mean([claims(rng, repeats, figures, noise).any() for _ in range(asked.runs)])
                for noise in ("10%", "5% and 30%", "log-normal 30%")
            ]
            found = np.mean([claims(rng, repeats, figures, "5%", 0.5).mean() for _ in range(asked.runs)])
            print(
                f"| {repeats} | {loads} | {' | '.join(f'{share:.1%}' for share in wrong)} | {found:.0%} |", flush=True
            )


if __name__ == "__main__":
    main()
