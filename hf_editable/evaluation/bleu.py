"""Corpus BLEU that recounts only the sentences that changed."""

from collections.abc import Iterable, Sequence

from sacrebleu.metrics import BLEU

from ..errors import EditableValueError


class CorpusBleu:
    """
    BLEU of translations of one test set, by sacrebleu's own code, with the counts of every sentence kept.

    Counts add up over sentences, so after an edit only the translations that changed are counted again. The scores
    equal `sacrebleu.corpus_bleu`.

    Args:
        references (`list[str]`): one reference translation of each sentence.
        translations (`list[str]`): the translations to compare others with.
        tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's tokenizer; `"none"` for text that is tokenized.
        lowercase (`bool`, *optional*, defaults to `False`): whether case is ignored.

    Attributes:
        signature (`str`): sacrebleu's description of how the scores are computed.
        score (`float`): BLEU of `translations`.

    Raises:
        EditableValueError: if sacrebleu has no such tokenizer.
    """

    def __init__(
        self, references: Sequence[str], translations: Sequence[str], tokenize: str = "13a", lowercase: bool = False
    ):
        if tokenize not in BLEU.TOKENIZERS:
            raise EditableValueError(f"bleu_tokenize={tokenize!r}: choose one of {sorted(BLEU.TOKENIZERS)}.")
        self._bleu = BLEU(tokenize=tokenize, lowercase=lowercase, force=True, references=[list(references)])
        self.translations = list(translations)
        self._counts = [self._count(index, text) for index, text in enumerate(translations)]
        self._total = [sum(column) for column in zip(*self._counts, strict=True)]
        self.signature = str(self._bleu.get_signature())
        self.score = self._score(self._total)

    def changed(self, translations: Sequence[str]) -> list[int]:
        """Indices of the translations that are other than the kept ones."""
        pairs = zip(self.translations, translations, strict=True)
        return [index for index, (kept, new) in enumerate(pairs) if kept != new]

    def score_of(self, translations: Sequence[str]) -> float:
        """BLEU of other translations of the same test set."""
        total = list(self._total)
        for index in self.changed(translations):
            new = self._count(index, translations[index])
            total = [t + n - old for t, n, old in zip(total, new, self._counts[index], strict=True)]
        return self._score(total)

    def _count(self, index: int, translation: str) -> list[int]:
        # What BLEU.corpus_score does for each sentence; it keeps no counts itself.
        segment = self._bleu._preprocess_segment(translation)
        return self._bleu._compute_segment_statistics(segment, self._bleu._ref_cache[index])

    def _score(self, total: Iterable[int]) -> float:
        return self._bleu._compute_score_from_stats(list(total)).score
