"""How evaluations of edits are made: what all of them take."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..checks import BEAMS, check_count, given_settings
from ..configuration import EditConfig
from ..errors import EditableTypeError
from ..measures.corpus_scores import check_tokenizer
from ..modeling.mixin import EditableMixin


@dataclass(frozen=True)
class EvaluationSettings:
    """
    How an evaluation of edits is made. Every evaluation takes these fields by name too, which then go before those of
    the object that it is given; what an evaluation has no use for, it leaves alone.

    Args:
        num_edits (`int`, *optional*): how many of the edits to make, chosen at random; `None` takes all.
        num_test (`int`, *optional*): how many test sentences to measure on, chosen at random; `None` takes all.
        num_beams (`int`, *optional*, defaults to `5`): beam size of all translations.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once, each with `num_beams` beams.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.
        output_dir (`str`, *optional*):
            Folder for the report, and for what is finished meanwhile: a second call with the same arguments goes on
            where the first one ended, or returns its result.
        seed (`int`, *optional*, defaults to `0`): of all that is chosen at random, and of the bootstrap.
        bleu_tokenize (`str`, *optional*, defaults to `"13a"`):
            sacrebleu's tokenizer; `"none"` where the translations are tokenized text.
        lowercase (`bool`, *optional*, defaults to `False`): whether BLEU and chrF ignore case.
        name (`str`, *optional*, defaults to `"model"`): what tables and pictures call the model.
        max_rounds (`int`, *optional*):
            Ask beam search after each edit, and go on until it says the target, at most so often; `None` ends an edit
            once the target outranks its alternatives.

    Raises:
        EditableValueError: if a number is out of range, or sacrebleu has no such tokenizer.

    Example:

    ```python
    >>> from hf_editable import evaluate_edits
    >>> from hf_editable.evaluation import EvaluationSettings, edit_sequence

    >>> settings = EvaluationSettings(num_edits=100, num_beams=4, seed=1)
    >>> single = evaluate_edits(model, tokenizer, edits, data["test"], settings)  # doctest: +SKIP
    >>> many = edit_sequence(model, tokenizer, edits, data["test"], settings, counts=[10, 100])  # doctest: +SKIP
    ```
    """

    num_edits: int | None = None
    num_test: int | None = None
    num_beams: int = 5
    batch_size: int = 64
    max_new_tokens: int | None = None
    output_dir: str | os.PathLike | None = None
    seed: int = 0
    bleu_tokenize: str = "13a"
    lowercase: bool = False
    name: str = "model"
    max_rounds: int | None = None

    def __post_init__(self):
        check_count("seed", self.seed, least=0)
        BEAMS.check("num_beams=", self.num_beams)
        check_count("batch_size", self.batch_size)
        for name in ("num_edits", "num_test"):
            if (count := getattr(self, name)) is not None:
                check_count(f"{name}, the number of rows to take", count)
        for name in ("max_new_tokens", "max_rounds"):
            if (count := getattr(self, name)) is not None:
                check_count(name, count)
        check_tokenizer(self.bleu_tokenize)


def split_options(
    settings: EvaluationSettings | None, options: Mapping[str, Any], unused: Sequence[str] = ()
) -> tuple[EvaluationSettings, dict[str, Any]]:
    """
    The settings that an evaluation was given, as an object and by name, and what else it was given by name.

    Args:
        settings ([`EvaluationSettings`], *optional*): the object; `None` is one of defaults.
        options (`dict[str, Any]`): what it was given by name.
        unused (`Sequence[str]`, *optional*): fields that the evaluation has no use for; by name they are not known.

    Raises:
        EditableTypeError: if `settings` are none.
        EditableValueError: if a value is out of range.
    """
    names = _names(unused)
    given = {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    return given_settings(EvaluationSettings, settings, given), others


def edit_config(
    evaluation: Callable[..., Any], model: EditableMixin, overrides: Mapping[str, Any], unused: Sequence[str] = ()
) -> EditConfig:
    """
    The configuration that an evaluation edits with.

    Args:
        evaluation (`Callable`): the evaluation.
        model ([`EditableMixin`]): the model.
        overrides (`dict[str, Any]`): fields of [`EditConfig`] that the evaluation was given by name.
        unused (`Sequence[str]`, *optional*): fields of [`EvaluationSettings`] that it has no use for.

    Raises:
        EditableTypeError: if a name is no field; the message lists those that there are.
        EditableValueError: if a value is out of range.
    """
    try:
        return model.edit_config.replace(**overrides)
    except EditableTypeError as error:
        known = [*own_options(evaluation), *_names(unused)]
        raise EditableTypeError(f"{error} {evaluation.__name__} itself takes: {', '.join(known)}.") from error


def own_options(evaluation: Callable[..., Any]) -> list[str]:
    """The names of what an evaluation takes by name only, beside fields."""
    parameters = inspect.signature(evaluation).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def _names(unused: Sequence[str]) -> list[str]:
    return [field.name for field in dataclasses.fields(EvaluationSettings) if field.name not in unused]
