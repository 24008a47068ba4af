"""Corpus BLEU and chrF that recount only the sentences that changed."""

from collections.abc import Iterable, Sequence

from sacrebleu.metrics import BLEU, CHRF

from ..errors import EditableValueError


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

    def changed(self, translations: Sequence[str]) -> list[int]:
        """Indices of the translations that are other than the kept ones."""
        pairs = zip(self.translations, translations, strict=True)
        return [index for index, (kept, new) in enumerate(pairs) if kept != new]

    def score_of(self, translations: Sequence[str]) -> float:
        """The score of other translations of the same test set."""
        total = list(self._total)
        for index in self.changed(translations):
            new = self._count(index, translations[index])
            total = [t + n - old for t, n, old in zip(total, new, self._counts[index], strict=True)]
        return self._score(total)

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
        if tokenize not in BLEU.TOKENIZERS:
            raise EditableValueError(f"bleu_tokenize={tokenize!r}: choose one of {sorted(BLEU.TOKENIZERS)}.")
        metric = BLEU(tokenize=tokenize, lowercase=lowercase, force=True, references=[list(references)])
        super().__init__(metric, translations)


class CorpusChrf(CorpusScore):
    """chrF2; equal to `sacrebleu.corpus_chrf`. See [`CorpusBleu`] for the arguments."""

    def __init__(self, references: Sequence[str], translations: Sequence[str], lowercase: bool = False):
        super().__init__(CHRF(lowercase=lowercase, references=[list(references)]), translations)
