r"""How often intervals of reports hold the mean, as they are meant to in 95 of 100 cases, by the number of edits.

    python scripts/developer/interval_coverage.py

What edits cost is drawn from known distributions, skewed ones among them, as a few edits cost much more than most.
"""

from dataclasses import dataclass, field

import numpy as np

from hf_editable.cli.shared.running import parse_arguments, run_main, tell
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


@dataclass
class CoverageArguments:
    """How many intervals are made."""

    trials: int = field(default=1000, metadata={"help": "Intervals of each kind and number of edits."})
    seed: int = field(default=0, metadata={"help": "Seed of the costs."})


def coverage(kind: str, count: int, trials: int, seed: int) -> float:
    """The share of trials in which the interval of so many edits holds the mean."""
    draw, mean = COSTS[kind]
    rng = np.random.default_rng([seed, count, list(COSTS).index(kind)])
    held = 0
    for trial in range(trials):
        low, high = percentile_interval(resampled_means(draw(rng, count)[:, None], trial)[:, 0])
        held += low <= mean <= high
    return held / trials


def _cover(argv: list[str] | None) -> None:
    (arguments,) = parse_arguments([CoverageArguments], argv, __doc__)
    lines = ["| Edits | " + " | ".join(COSTS) + " |", "|" + "---:|" * (1 + len(COSTS))]
    for count in COUNTS:
        shares = [coverage(kind, count, arguments.trials, arguments.seed) for kind in COSTS]
        lines.append(f"| {count} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    tell("\n".join(lines))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/interval_coverage.py`; returns the exit code."""
    return run_main(_cover, argv)


if __name__ == "__main__":
    raise SystemExit(main())
