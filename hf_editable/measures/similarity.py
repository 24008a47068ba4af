"""How alike sentences are, and how what happens to them depends on it."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..errors import EditableValueError


def overlap(first: Sequence[str], second: Sequence[str], order: int = 3) -> np.ndarray:
    """
    How many character n-grams sentences share: the Dice coefficient of their sets, case ignored, for any script.

    Args:
        first (`Sequence[str]`): sentences.
        second (`Sequence[str]`): others, to compare each of the first with.
        order (`int`, *optional*, defaults to `3`): characters of an n-gram. Spaces count, also around the sentence.

    Returns:
        `np.ndarray` of shape `(len(first), len(second))`: from 0 to 1.
    """
    places: dict[str, list[int]] = defaultdict(list)
    sizes = np.zeros(len(second))
    for index, text in enumerate(second):
        grams = set(ngrams(text, order))
        sizes[index] = len(grams)
        for gram in grams:
            places[gram].append(index)
    result = np.zeros((len(first), len(second)))
    for row, text in zip(result, first, strict=True):
        grams = set(ngrams(text, order))
        shared = [index for gram in sorted(grams) for index in places.get(gram, ())]
        row += 2 * np.bincount(shared, minlength=len(second)) / (len(grams) + sizes) if shared else 0
    return result


def ngrams(text: str, order: int) -> list[str]:
    """All runs of so many characters, case ignored; spaces count, also around the text. A shorter text is one."""
    padded = f" {' '.join(text.lower().split())} "
    return [padded[start : start + order] for start in range(max(1, len(padded) - order + 1))]


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of all rows of `first`, shape `(a, size)`, with those of `second`, shape `(b, size)`: `(a, b)`."""
    first, second = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (first, second))
    return first @ second.T


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """
    Spearman's rank correlation, 0 where either is constant.

    Args:
        first (`np.ndarray` of shape `(values,)`): values.
        second (`np.ndarray` of shape `(values,)`): others.
    """
    first, second = (each - each.mean() for each in (ranks(first), ranks(second)))
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else 0.0


def means_by_decile(similarity: np.ndarray, values: np.ndarray, groups: int = 10) -> list[float]:
    """
    Mean value of the sentences least like the edited one, of the next ones, and so on to those most like it.

    Args:
        similarity (`np.ndarray` of shape `(edits, sentences)`): NaN where a sentence does not count.
        values (`np.ndarray` of shape `(edits, sentences)`): their values.
        groups (`int`, *optional*, defaults to `10`): how many groups of about the same size, edit by edit.

    Raises:
        EditableValueError: if an edit has fewer sentences than groups.
    """
    sums, counts = np.zeros(groups), np.zeros(groups)
    for row, row_values in zip(similarity, values, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        if len(known) < groups:
            raise EditableValueError(
                f"{len(known)} test sentences cannot be put into {groups} groups by similarity; give {groups} or more."
            )
        order = known[np.argsort(row[known], kind="stable")]
        for group, members in enumerate(np.array_split(row_values[order], groups)):
            sums[group] += members.sum()
            counts[group] += len(members)
    return (sums / counts).tolist()
