"""How often intervals of reports hold the mean, as they are meant to in 95 of 100 cases, by the number of edits.

python scripts/developer/interval_coverage.py

What edits cost is drawn from known distributions, skewed ones among them, as a few edits cost much more than most.
"""

import argparse

import numpy as np

from hf_editable.measures.statistics import LEAST_RESAMPLED, percentile_interval, resampled_means


COUNTS = (1, 2, 5, 10, 15, LEAST_RESAMPLED, 30, 50, 100)
# How costs are drawn, and their mean.
COSTS = {
    "normal": (lambda rng, count: rng.normal(1, 1, count), 1.0),
    "exponential (skewness 2)": (lambda rng, count: rng.exponential(1, count), 1.0),
    "log-normal, σ 0.8 (skewness 3.7)": (lambda rng, count: rng.lognormal(0, 0.8, count), np.exp(0.32)),
    "log-normal, σ 1 (skewness 6.2)": (lambda rng, count: rng.lognormal(0, 1, count), np.exp(0.5)),
    "60 % cost nothing, others exponential": (
        lambda rng, count: rng.exponential(1, count) * (rng.random(count) < 0.4),
        0.4,
    ),
}


def coverage(kind: str, count: int, trials: int, seed: int) -> float:
    """The share of trials in which the interval of so many edits holds the mean."""
    draw, mean = COSTS[kind]
    rng = np.random.default_rng([seed, count, list(COSTS).index(kind)])
    held = 0
    for trial in range(trials):
        low, high = percentile_interval(resampled_means(draw(rng, count)[:, None], trial)[:, 0])
        held += low <= mean <= high
    return held / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="Intervals of each kind and number.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the costs.")
    arguments = parser.parse_args()
    print("| Edits |", " | ".join(COSTS), "|")
    print("|" + "---:|" * (1 + len(COSTS)))
    for count in COUNTS:
        shares = (coverage(kind, count, arguments.trials, arguments.seed) for kind in COSTS)
        print(f"| {count} |", " | ".join(f"{share:.1%}" for share in shares), "|", flush=True)


if __name__ == "__main__":
    main()
