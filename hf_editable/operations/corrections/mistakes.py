"""What a model translates worst, to begin corrections with."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sacrebleu.metrics import CHRF

from ...checks import check_count
from ...correction.translation_editor import TranslationEditor
from ...errors import EditableValueError
from ...runs.files import check_file, whole_folder


@dataclass(frozen=True)
class Mistake:
    """
    A sentence that a model translates otherwise than its reference.

    Args:
        source (`str`): the sentence.
        target (`str`): its reference, as the tokenizer writes it.
        translation (`str`): what the model says.
        chrf (`float`): sentence chrF of the translation against the reference, from 0 to 100.
    """

    source: str
    target: str
    translation: str
    chrf: float


def find_mistakes(
    editor: TranslationEditor, sources: Sequence[str], references: Sequence[str], num_mistakes: int | None = None
) -> list[Mistake]:
    """
    The sentences that a model translates otherwise than their references, the lowest sentence chrF first.

    References with words that the tokenizer cannot write are left out, as no edit can make the model say them.

    Args:
        editor ([`TranslationEditor`]): has the model.
        sources (`Sequence[str]`): sentences.
        references (`Sequence[str]`): one for each.
        num_mistakes (`int`, *optional*): how many at most; `None` takes all.

    Returns:
        `list[Mistake]`.

    Raises:
        EditableValueError: if there are more or fewer references than sources, or a source is empty.
    """
    if len(sources) != len(references):
        raise EditableValueError(f"{len(sources)} sources and {len(references)} references: give one for each.")
    if num_mistakes is not None:
        check_count("num_mistakes", num_mistakes)
    score = CHRF().sentence_score
    mistakes = []
    for source, reference, said in zip(sources, references, editor.translate(sources), strict=True):
        try:
            target = editor.written(reference, source)
        except EditableValueError:
            continue
        said = said.strip()
        if said != target:
            mistakes.append(Mistake(source, target, said, score(said, [target]).score))
    return sorted(mistakes, key=lambda mistake: mistake.chrf)[:num_mistakes]


def write_mistakes(mistakes: Sequence[Mistake], path: str | os.PathLike) -> None:
    """
    Write a CSV file of corrections, as [`read_corrections`] reads it.

    Raises:
        EditableValueError: if the name does not end in `.csv`.
        EditableFileError: if it cannot be written.
    """
    path = check_file(path)
    if path.suffix.lower() != ".csv":
        raise EditableValueError(f"{str(path)!r}: give a name that ends in .csv.")
    with whole_folder(path.parent) as folder, open(folder / path.name, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(item.name for item in fields(Mistake))
        writer.writerows((each.source, each.target, each.translation, f"{each.chrf:.1f}") for each in mistakes)
