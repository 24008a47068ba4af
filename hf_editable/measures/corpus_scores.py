"""Corpus BLEU and chrF that recount only the sentences that changed."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from ..errors import EditableValueError
from ..models.private_names import check_private_names
from .statistics import (
    LEAST_RESAMPLED,
    SENTENCE_RESAMPLES,
    SentenceBootstrap,
    percentile_interval,
    two_level_interval,
)


check_private_names(__name__)


Changes = Sequence[Sequence[Any]]


def check_tokenizer(name: str) -> str:
    """
    The name of a tokenizer of sacrebleu.

    Raises:
        EditableValueError: if sacrebleu has no such tokenizer.
    """
    if name not in BLEU.TOKENIZERS:
        raise EditableValueError(f"bleu_tokenize={name!r}: choose one of {sorted(BLEU.TOKENIZERS)}.")
    return name


def changes_between(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, str, str]]:
    """`(index, before, after)` of each translation that is another one after an edit."""
    pairs = enumerate(zip(before, after, strict=True))
    return [(index, old, new) for index, (old, new) in pairs if old != new]


class CorpusScore:
    """
    A score of translations of one test set, by sacrebleu's own code, with the counts of every sentence kept.

    Counts add up over sentences, so after an edit only the translations that changed are counted again.

    Args:
        metric (`BLEU` or `CHRF`): sacrebleu's metric, with the references.
        translations (`list[str]`): the translations to compare others with.

    Attributes:
        signature (`str`): sacrebleu's description of how the scores are computed.
        score (`float`): that of `translations`, in per cent.
    """

    def __init__(self, metric: BLEU | CHRF, translations: Sequence[str]):
        self._metric = metric
        self.translations = list(translations)
        self._counts = [self._count(index, text) for index, text in enumerate(translations)]
        self._total = [sum(column) for column in zip(*self._counts, strict=True)]
        self.signature = str(metric.get_signature())
        self.score = self._score(self._total)
        self._bootstraps: dict[tuple[int, int], SentenceBootstrap] = {}

    def changed(self, translations: Sequence[str]) -> list[int]:
        """Indices of the translations that are other than the kept ones."""
        return [index for index, *_ in changes_between(self.translations, translations)]

    def score_of(self, translations: Sequence[str]) -> float:
        """The score of other translations of the same test set."""
        total = list(self._total)
        for index in self.changed(translations):
            new = self._count(index, translations[index])
            total = [t + n - old for t, n, old in zip(total, new, self._counts[index], strict=True)]
        return self._score(total)

    def resampled_differences(
        self, changes: Changes, resamples: int = SENTENCE_RESAMPLES, seed: int = 0
    ) -> np.ndarray:
        """
        The score before an edit minus that after it, on resamples of the test sentences.

        Args:
            changes (`Sequence`): `(index, before, after)` of each translation that the edit changed.
            resamples (`int`, *optional*, defaults to 1000): how often the test set is resampled.
            seed (`int`, *optional*, defaults to `0`): of the resamples. They are the same for all edits, and for the
                scores of other models on the same test set.

        Returns:
            `np.ndarray` of shape `(resamples,)`.

        Raises:
            EditableValueError: if `changes` are those of other translations, or there is no resample.
        """
        if (resamples, seed) not in self._bootstraps:
            counts = np.array(self._counts)
            self._bootstraps[resamples, seed] = SentenceBootstrap(self._metric, counts, resamples, seed)
        counts = []
        for index, before, after in changes:
            if not 0 <= index < len(self.translations) or self.translations[index] != before:
                raise EditableValueError(
                    f"The change of {before!r} to {after!r} is not of translation {index} of these "
                    f"{len(self.translations)}. Give the changes of the same model on the same test set."
                )
            counts.append(np.subtract(self._count(index, after), self._counts[index]))
        return self._bootstraps[resamples, seed].differences([index for index, *_ in changes], np.array(counts))

    def difference_interval(
        self, changes: Changes, resamples: int = SENTENCE_RESAMPLES, seed: int = 0
    ) -> list[float] | None:
        """
        95 % interval of one edit's drawdown over test sentences (paired bootstrap); `None` of fewer than 20 sentences.

        See `resampled_differences` for the arguments.
        """
        differences = self.resampled_differences(changes, resamples, seed)
        return percentile_interval(differences) if len(self.translations) >= LEAST_RESAMPLED else None

    def mean_difference_interval(
        self, changes_of_edits: Iterable[Changes], resamples: int = SENTENCE_RESAMPLES, seed: int = 0
    ) -> list[float] | None:
        """
        95 % interval of the mean drawdown over edits and test sentences; `None` of fewer than 20 of either. See
        [`two_level_interval`].

        Args:
            changes_of_edits (`Iterable`): the changes of each edit, as `resampled_differences` takes them.
            resamples (`int`, *optional*, defaults to 1000): how often both are resampled.
            seed (`int`, *optional*, defaults to `0`): of the resamples.

        Raises:
            EditableValueError: if the changes are those of other translations.
        """
        differences = [self.resampled_differences(changes, resamples, seed) for changes in changes_of_edits]
        if len(self.translations) < LEAST_RESAMPLED:
            return None
        return two_level_interval(np.array(differences), seed)

    def _count(self, index: int, translation: str) -> list[int]:
        # What corpus_score does for each sentence; it keeps no counts itself.
        segment = self._metric._preprocess_segment(translation)
        return self._metric._compute_segment_statistics(segment, self._metric._ref_cache[index])

    def _score(self, total: Iterable[int]) -> float:
        return self._metric._compute_score_from_stats(list(total)).score


class CorpusBleu(CorpusScore):
    """
    BLEU; equal to `sacrebleu.corpus_bleu`. See [`CorpusScore`].

    Args:
        references (`list[str]`): one reference translation of each sentence.
        translations (`list[str]`): the translations to compare others with.
        tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's tokenizer; `"none"` for text that is tokenized.
        lowercase (`bool`, *optional*, defaults to `False`): whether case is ignored.

    Raises:
        EditableValueError: if sacrebleu has no such tokenizer.
    """

    def __init__(
        self, references: Sequence[str], translations: Sequence[str], tokenize: str = "13a", lowercase: bool = False
    ):
        metric = BLEU(
            tokenize=check_tokenizer(tokenize), lowercase=lowercase, force=True, references=[list(references)]
        )
        super().__init__(metric, translations)


class CorpusChrf(CorpusScore):
    """chrF2; equal to `sacrebleu.corpus_chrf`. See [`CorpusBleu`] for the arguments."""

    def __init__(self, references: Sequence[str], translations: Sequence[str], lowercase: bool = False):
        super().__init__(CHRF(lowercase=lowercase, references=[list(references)]), translations)
