"""Intervals by the bootstrap: over edits, over test sentences, over both; and two models on the same edits.

BLEU and chrF are computed from counts that add up over sentences, so a test set that is resampled has the weighted sum
of its sentences' counts, and an edit adds only the differences of the sentences that it changed.

Of a few edits or sentences the bootstrap makes intervals that are much too narrow, of one a point: there is none then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from ..errors import EditableValueError
from ..models.private_names import check_private_names


check_private_names(__name__)


BOOTSTRAP_RESAMPLES = 10_000
SENTENCE_RESAMPLES = 1_000
# Below so many edits or sentences there is no interval. `scripts/developer/interval_coverage.py` says what the least
# number is worth.
LEAST_RESAMPLED = 20
_PERCENTILES = [2.5, 97.5]
_log = np.frompyfunc(lambda value: math.log(value) if value else 0.0, 1, 1)
_exp = np.frompyfunc(math.exp, 1, 1)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> list[float] | None:
    """
    95 % interval of the mean: its 2.5 and 97.5 percentiles over 10,000 resamples with replacement; `None` of fewer
    than 20 values.

    Args:
        values (`Sequence[float]`): one value an edit.
        seed (`int`, *optional*, defaults to `0`): of the resamples.
    """
    if len(values) < LEAST_RESAMPLED:
        return None
    return percentile_interval(resampled_means(np.asarray(values, dtype=np.float64)[:, None], seed)[:, 0])


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means over resampled rows, shape `(BOOTSTRAP_RESAMPLES, columns)`; the rows are drawn jointly."""
    rng = np.random.default_rng(seed)
    # A thousand resamples at a time, so that 10,000 edits take 80 MB and not 800.
    blocks = (rng.integers(len(values), size=(1000, len(values))) for _ in range(BOOTSTRAP_RESAMPLES // 1000))
    return np.concatenate([values[block].mean(1) for block in blocks])


def percentile_interval(resampled: np.ndarray) -> list[float]:
    """95 % interval: the 2.5 and 97.5 percentiles of what the resamples gave."""
    low, high = np.percentile(resampled, _PERCENTILES)
    return [float(low), float(high)]


def two_level_interval(differences: np.ndarray, seed: int = 0) -> list[float] | None:
    """
    95 % interval of the mean over edits, with both the edits and the test sentences resampled; `None` of fewer than 20
    edits.

    Each resample of the sentences is met by one of the edits, drawn with replacement, the same for all sentences (the
    pigeonhole bootstrap of Owen, 2007, https://arxiv.org/abs/0712.1111, which is conservative).

    Args:
        differences (`np.ndarray` of shape `(edits, resamples)`):
            of each edit, its difference on each resample of the sentences; column by column the same resample.
        seed (`int`, *optional*, defaults to `0`): of the resamples of edits.
    """
    edits = len(differences)
    if edits < LEAST_RESAMPLED:
        return None
    # Not the stream that draws the sentences.
    rng = np.random.default_rng([seed, 1])
    means = [column[rng.integers(edits, size=edits)].mean() for column in differences.T]
    return percentile_interval(np.array(means))


def scores_from_counts(metric: BLEU | CHRF, counts: np.ndarray) -> np.ndarray:
    """
    The scores, in per cent, that sacrebleu computes from the counts of whole test sets, for many sets at once.

    Args:
        metric (`BLEU` or `CHRF`): sacrebleu's metric.
        counts (`np.ndarray` of shape `(sets, counts)`): what sacrebleu counts, summed over sentences.

    Returns:
        `np.ndarray` of shape `(sets,)`, equal to sacrebleu's own to the last bit.
    """
    columns = np.asarray(counts, dtype=np.float64).T
    if isinstance(metric, BLEU) and metric.smooth_method == "exp" and not metric.effective_order:
        return _bleu(columns, metric.max_ngram_order)
    if isinstance(metric, CHRF) and not metric.eps_smoothing:
        return _chrf(columns, metric.order, metric.beta**2)
    rows = np.asarray(counts).astype(np.int64).tolist()
    return np.array([metric._compute_score_from_stats(row).score for row in rows])


def _bleu(columns: np.ndarray, orders: int) -> np.ndarray:
    # BLEU.compute_bleu, its order of operations kept.
    length, reference_length = columns[:2]
    correct, total = columns[2 : 2 + orders], columns[2 + orders :]
    smoothing = np.ones_like(length)
    log_sum = np.zeros_like(length)
    possible = correct.any(0)
    for matches, ngrams in zip(correct, total, strict=True):
        possible = possible & (ngrams > 0)
        smoothing = np.where(matches == 0, 2 * smoothing, smoothing)
        precision = np.where(matches == 0, 100 / (smoothing * np.maximum(ngrams, 1)), 100 * matches)
        precision = np.where(matches == 0, precision, precision / np.maximum(ngrams, 1))
        log_sum = log_sum + _log(precision).astype(np.float64)
    short = length < reference_length
    penalty = np.where(short, _exp(np.where(short, 1 - reference_length / np.maximum(length, 1), 0)), 1.0)
    return np.where(possible, penalty.astype(np.float64) * _exp(log_sum / orders).astype(np.float64), 0.0)


def _chrf(columns: np.ndarray, orders: int, factor: int) -> np.ndarray:
    # CHRF._compute_f_score without its smoothing, its order of operations kept.
    precision, recall, counted = (np.zeros_like(columns[0]) for _ in range(3))
    for hypothesis, reference, matches in columns.reshape(orders, 3, -1):
        both = (hypothesis > 0) & (reference > 0)
        precision = precision + np.where(both, matches / np.maximum(hypothesis, 1), 0)
        recall = recall + np.where(both, matches / np.maximum(reference, 1), 0)
        counted = counted + both
    precision, recall = precision / np.maximum(counted, 1), recall / np.maximum(counted, 1)
    below = factor * precision + recall
    score = (1 + factor) * precision * recall / np.where(below > 0, below, 1)
    return np.where(below > 0, 100 * score, 0.0)


class SentenceBootstrap:
    """
    Resamples of a test set, with replacement, and the scores of translations on each of them.

    Args:
        metric (`BLEU` or `CHRF`): sacrebleu's metric.
        counts (`np.ndarray` of shape `(sentences, counts)`): what sacrebleu counts for each translation.
        resamples (`int`, *optional*, defaults to 1000): how often the test set is resampled.
        seed (`int`, *optional*, defaults to `0`): two bootstraps of test sets of the same size and with the same seed
            draw the same sentences, so that their results are paired.

    Attributes:
        scores (`np.ndarray` of shape `(resamples,)`): of the translations.

    Raises:
        EditableValueError: if there is no sentence, or no resample.
    """

    def __init__(self, metric: BLEU | CHRF, counts: np.ndarray, resamples: int = SENTENCE_RESAMPLES, seed: int = 0):
        sentences = len(counts)
        if not sentences or resamples < 1:
            raise EditableValueError(f"{resamples} resamples of {sentences} test sentences: give one or more of both.")
        self._metric = metric
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(sentences, size=sentences) for _ in range(resamples))
        # One row a sentence, so that those of an edit lie together. The sums are whole numbers, exact as floats.
        self._weights = np.stack([np.bincount(each, minlength=sentences) for each in drawn], 1).astype(np.float64)
        self._totals = self._weights.T @ np.asarray(counts, dtype=np.float64)
        self.scores = scores_from_counts(metric, self._totals)

    def differences(self, indices: Sequence[int], changes: np.ndarray) -> np.ndarray:
        """
        How much lower the score is on each resample when some translations are replaced.

        Args:
            indices (`Sequence[int]`): the sentences whose translations changed.
            changes (`np.ndarray` of shape `(len(indices), counts)`): their new counts minus the old ones.

        Returns:
            `np.ndarray` of shape `(resamples,)`: score before minus score after.
        """
        if not len(indices):
            return np.zeros_like(self.scores)
        totals = self._totals + self._weights[list(indices)].T @ np.asarray(changes, dtype=np.float64)
        return self.scores - scores_from_counts(self._metric, totals)


class Report(Protocol):
    """What a comparison reads of an [`EditReport`]."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass
class PairedComparison:
    """
    Two models on the same edits. Intervals are 95 % intervals by the bootstrap over edits, drawn jointly for both.

    Args:
        first (`str`): name of the model that is compared with: the baseline.
        second (`str`): name of the other: the editable model.
        num_edits (`int`): edits that both were measured on.
        difference (`float`): mean over edits of the first's drawdown minus the second's, in BLEU.
        difference_interval (`list[float]`, *optional*): of the difference; `None` of fewer than 20 edits.
        milder (`float`): share of the edits with a lower drawdown on the second model.
        harsher (`float`): share of those with a higher one.
        ratio (`float`, *optional*): the second's mean drawdown over the first's; `None` if the first's is not above 0.
        ratio_interval (`list[float]`, *optional*):
            of the ratio; `None` of fewer than 20 edits, and if the first's mean drawdown is not above 0 in every
            resample.
    """

    first: str
    second: str
    num_edits: int
    difference: float
    difference_interval: list[float] | None
    milder: float
    harsher: float
    ratio: float | None
    ratio_interval: list[float] | None


def compare_reports(first: Report, second: Report, seed: int = 0) -> PairedComparison:
    """
    Compare the drawdowns of two models edit by edit.

    Args:
        first ([`EditReport`]): of the baseline.
        second ([`EditReport`]): of the other model, on the same edits in any order.
        seed (`int`, *optional*, defaults to `0`): of the resamples.

    Raises:
        EditableValueError: if the reports are not of the same edits.

    Example:

    ```python
    >>> from hf_editable import EditReport
    >>> from hf_editable.evaluation import compare_reports

    >>> comparison = compare_reports(EditReport.load("baseline"), EditReport.load("editable"))  # doctest: +SKIP
    >>> comparison.difference, comparison.difference_interval  # doctest: +SKIP
    (0.65, (0.13, 0.95))
    ```
    """
    pairs = paired_rows(first, second)
    drawdowns = np.array([[row["drawdown"] for row in pair] for pair in pairs], dtype=np.float64)
    means = drawdowns.mean(0)
    gain = drawdowns[:, 0] - drawdowns[:, 1]
    difference_interval = ratio_interval = None
    if len(pairs) >= LEAST_RESAMPLED:
        resampled = resampled_means(drawdowns, seed)
        difference_interval = percentile_interval(resampled[:, 0] - resampled[:, 1])
        if (resampled[:, 0] > 0).all():
            ratio_interval = percentile_interval(resampled[:, 1] / resampled[:, 0])
    return PairedComparison(
        first=first.summary["name"],
        second=second.summary["name"],
        num_edits=len(pairs),
        difference=float(gain.mean()),
        difference_interval=difference_interval,
        milder=float((gain > 0).mean()),
        harsher=float((gain < 0).mean()),
        ratio=float(means[1] / means[0]) if means[0] > 0 else None,
        ratio_interval=ratio_interval,
    )


def paired_rows(first: Report, second: Report) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """
    The rows of two reports, edit by edit.

    Raises:
        EditableValueError: if the reports are not of the same edits.
    """
    by_edit = [{(row["index"], row["source"], row["target"]): row for row in each.rows} for each in (first, second)]
    if by_edit[0].keys() != by_edit[1].keys() or not by_edit[0]:
        names, common = [each.summary["name"] for each in (first, second)], len(by_edit[0].keys() & by_edit[1].keys())
        raise EditableValueError(
            f"{names[0]!r} was measured on {len(by_edit[0])} edits and {names[1]!r} on {len(by_edit[1])}, of which "
            f"{common} are the same. Give reports of the same edits."
        )
    return [(row, by_edit[1][key]) for key, row in by_edit[0].items()]
