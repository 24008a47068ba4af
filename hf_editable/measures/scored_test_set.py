"""A test set as a model translates it before any edit: what is measured after an edit is measured against it."""

from collections.abc import Sequence

from .corpus_scores import CorpusScore, changes_between


class ScoredTestSet:
    """
    A test set and its translations before any edit.

    Args:
        sources (`list[str]`): the sentences.
        references (`list[str]`): what they should be translated to.
        translations (`list[str]`): what they are translated to before any edit.
        bleu_tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's tokenizer for BLEU.
        lowercase (`bool`, *optional*, defaults to `False`): whether scores ignore case.
        seed (`int`, *optional*, defaults to `0`): of all intervals by the bootstrap.

    Attributes:
        sources, references, translations, bleu_tokenize, lowercase, seed: the same.
        scorers (`dict[str, CorpusScore]`): by a measure's name what it keeps; see [`CorpusMeasure`].
    """

    def __init__(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        translations: Sequence[str],
        bleu_tokenize: str = "13a",
        lowercase: bool = False,
        seed: int = 0,
    ):
        self.sources, self.references, self.translations = list(sources), list(references), list(translations)
        self.bleu_tokenize, self.lowercase, self.seed = bleu_tokenize, lowercase, seed
        self.scorers: dict[str, CorpusScore] = {}

    def __len__(self) -> int:
        return len(self.translations)

    def changes(self, translations: Sequence[str]) -> list[tuple[int, str, str]]:
        """`(index, before, after)` of each translation that is another one now."""
        return changes_between(self.translations, translations)
