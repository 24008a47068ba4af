"""The built-in corpus, of sentence pairs that the grammar makes."""

from datasets import Dataset, DatasetDict

from ..errors import EditableValueError
from .grammar import Grammar


def generate_corpus(
    num_train: int = 20_000, num_validation: int = 500, num_test: int = 500, seed: int = 0
) -> DatasetDict:
    """Generate the built-in corpus.

    Args:
        num_train (`int`, *optional*, defaults to `20_000`): Pairs of the training split.
        num_validation (`int`, *optional*, defaults to `500`): Pairs of the validation split.
        num_test (`int`, *optional*, defaults to `500`): Pairs of the test split.
        seed (`int`, *optional*, defaults to `0`): The same seed and sizes give the same corpus.

    Returns:
        `datasets.DatasetDict`: `train`, `validation` and `test`, columns `source` (German) and `target` (English).
        No source occurs twice, within a split or across splits.

    Raises:
        EditableValueError: A size is less than 1.
    """
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    if too_small := {split: size for split, size in sizes.items() if size < 1}:
        raise EditableValueError(f"Each split needs at least 1 pair, not {too_small}.")
    grammar, pairs = Grammar(seed), dict[str, str]()
    while len(pairs) < sum(sizes.values()):
        german, english = grammar.pair()
        pairs.setdefault(german, english)
    rows, splits, start = list(pairs.items()), DatasetDict(), 0
    for split, size in sizes.items():
        part = rows[start : start + size]
        splits[split] = Dataset.from_dict({"source": [row[0] for row in part], "target": [row[1] for row in part]})
        start += size
    return splits
