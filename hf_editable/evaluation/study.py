"""What all studies share: the rows they choose, the edits they make, and what their rows depend on."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..correction.verification import Request, Verification
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..data.references import References
from ..decoding.generation import resolve_max_new_tokens
from ..decoding.translate import translate_texts
from ..editors.result import EditResult
from ..errors import EditableValueError, NonFiniteEditError
from ..measures.observation import Observation
from ..measures.scored_test_set import ScoredTestSet
from ..mining.mined_edits import choose
from ..modeling.mixin import EditableMixin, check_model, check_references
from ..models.layers import edited_parameters
from ..models.weights import fingerprint_model
from ..numerics.scoring import PADDING
from ..patches.application import working_copy
from ..runs.fingerprints import fingerprint_rows
from ..runs.processes import Job, Result, is_main_process, on_main, share_out
from ..runs.provenance import machine, versions
from .settings import EvaluationSettings, edit_config, split_options


logger = logging.get_logger(__name__)

EDIT_COLUMNS = ("source", "target", "alternatives")
PAIR_COLUMNS = ("source", "target")
Saved = TypeVar("Saved")


class Study:
    """
    A model that is edited, and how. Each evaluation makes one.

    Args:
        evaluation (`Callable`): the evaluation, for messages.
        model ([`EditableMixin`]): the model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        settings ([`EvaluationSettings`], *optional*): as the evaluation was given it.
        options (`dict[str, Any]`): what it was given by name: fields of [`EvaluationSettings`] and [`EditConfig`].
        references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
        unused (`Sequence[str]`, *optional*): fields of [`EvaluationSettings`] that the evaluation has no use for.

    Attributes:
        model ([`EditableMixin`]): a copy to work on, which shares what edits do not move.
        tokenizer: the same.
        settings ([`EvaluationSettings`]): all of them.
        config ([`EditConfig`]): that edits are made with.
        collator ([`DataCollatorForEditableSeq2Seq`]): with the model and its tokenizer.
        max_new_tokens (`int`): the most tokens of a translation.

    Raises:
        EditableTypeError: if the model is not editable, or a name is no field.
        EditableValueError: if a value is out of range.
    """

    def __init__(
        self,
        evaluation: Callable[..., Any],
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        settings: EvaluationSettings | None,
        options: Mapping[str, Any],
        references: References | None = None,
        unused: Sequence[str] = (),
    ):
        check_model(model)
        self.settings, self._overrides = split_options(settings, options, unused)
        self.config = edit_config(evaluation, model, self._overrides, unused)
        check_references(model.editor_with(**self._overrides), references)
        # Edits are made, put in and taken out of a copy: other users of the model see none of them.
        self.model = model = working_copy(model, edited_parameters(model, self.config))
        self.tokenizer, self._references = tokenizer, references
        self.collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self.max_new_tokens = resolve_max_new_tokens(model, self.settings.max_new_tokens)

    def choose_edits(self, edits: Dataset, columns: Sequence[str] = EDIT_COLUMNS) -> dict[int, dict[str, Any]]:
        """The edits to make, by their index in the dataset; see [`choose_rows`]."""
        return choose_rows("edits", edits, columns, self.settings.num_edits, self.settings.seed)

    def choose_pairs(self, test_set: Dataset) -> list[dict[str, str]]:
        """The pairs to measure on; see [`choose_rows`]."""
        return list(
            choose_rows("test_set", test_set, PAIR_COLUMNS, self.settings.num_test, self.settings.seed).values()
        )

    def arguments(self, edits: Sequence[Any]) -> dict[str, Any]:
        """
        What the edits depend on, as a journal keeps it.

        Args:
            edits (`Sequence`): the edits, as plain JSON values.
        """
        return {
            "name": self.settings.name,
            "model": fingerprint_model(self.model),
            "edits": fingerprint_rows(edits),
            "edit_config": self.config.to_dict(),
            "seed": self.settings.seed,
            **({} if self.settings.max_rounds is None else {"max_rounds": self.settings.max_rounds}),
            **({} if self._references is None else {"references": self._references.fingerprint()}),
        }

    @property
    def limits(self) -> dict[str, int]:
        """Those of a search."""
        return {"num_beams": self.settings.num_beams, "max_new_tokens": self.max_new_tokens}

    @property
    def decoding(self) -> dict[str, int]:
        """How texts are translated; see [`translate_texts`]."""
        return {**self.limits, "batch_size": self.settings.batch_size}

    @property
    def scoring(self) -> dict[str, Any]:
        """How a translated test set is scored."""
        return {name: getattr(self.settings, name) for name in ("bleu_tokenize", "lowercase")}

    def circumstances(self) -> dict[str, Any]:
        """What every report says of how its edits were made, and where."""
        return {
            "name": self.settings.name,
            "seed": self.settings.seed,
            "edit_config": self.config.to_dict(),
            "length_penalty": self.model.edit_length_penalty(self.config),
            "machine": machine(self.model.device),
            "versions": versions(),
        }

    def summary(self) -> dict[str, Any]:
        """What reports with translations say of how they were made."""
        made = {"editor": self.config.editor, "max_rounds": self.settings.max_rounds}
        return {**self.circumstances(), **self.limits, **made}

    def make(self, edit: Mapping[str, Any]) -> Observation:
        """
        An edit, and how long it took; it is not left in the model. If it met a value that is not finite, it has no
        result, and there is a warning.

        Args:
            edit (`dict[str, Any]`): `source`, `target` and `alternatives`.
        """
        inputs = self.collator.edit_inputs(edit, self.model.device)
        start = time.perf_counter()
        try:
            result = self._result(inputs)
        except NonFiniteEditError as error:
            logger.warning(f"The edit of {edit['source']!r} failed: {error}")
            result = None
        # A result has numbers in it, so a GPU is done.
        return Observation(edit, result, 1000 * (time.perf_counter() - start))

    def _result(self, inputs: Mapping[str, Tensor]) -> EditResult:
        rounds = self.settings.max_rounds
        if rounds is None:
            return self.model.edit(**inputs, references=self._references, **self._overrides)
        alternatives = self._texts(inputs["alternative_labels"][0][: self.config.num_alternatives])
        request = Request(self._texts(inputs["input_ids"])[0], self._texts(inputs["labels"])[0], alternatives)
        given = (self.model, self.collator, [request], self.settings.num_beams, self._overrides, self._references)
        return Verification(*given)(rounds).result

    def _texts(self, rows: Tensor) -> list[str]:
        found = [row[row != PADDING].tolist() for row in rows]
        return [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found if ids]

    def translate(self, sources: Sequence[str]) -> list[str]:
        """What the model as it is now says."""
        return translate_texts(self.model, self.tokenizer, sources, **self.decoding)

    def before(self, pairs: Sequence[Mapping[str, str]], translations: Sequence[str]) -> ScoredTestSet:
        """
        The test set before any edit.

        Args:
            pairs (`Sequence[dict[str, str]]`): `source` and `target`, the reference.
            translations (`list[str]`): what the model says before any edit.
        """
        sources, references = ([pair[name] for pair in pairs] for name in PAIR_COLUMNS)
        return ScoredTestSet(sources, references, translations, seed=self.settings.seed, **self.scoring)


def saved(report: Saved, output_dir: str | os.PathLike | None) -> Saved:
    """A report, written by the main process, if there is a folder for it."""
    if output_dir is not None:
        on_main(lambda: report.save(output_dir))
    return report


def edit_row(index: int, seen: Observation) -> dict[str, Any]:
    """What the rows of all studies say of an edit; `index` is its number in the dataset."""
    return {
        "index": index,
        "source": seen.edit["source"],
        "target": seen.edit["target"],
        "failed": seen.result is None,
    }


def losses(seen: Observation) -> dict[str, float | None]:
    """`l_e` before and after an edit, as rows have them; `None` if it failed."""
    result = seen.result
    names = ("initial_loss", "loss")
    return {name: None if result is None else getattr(result, name) for name in names}


def choose_rows(
    name: str, dataset: Dataset, columns: Sequence[str], wanted: int | None, seed: int
) -> dict[int, dict[str, Any]]:
    """
    The columns of rows chosen at random, by their index in the dataset.

    Args:
        name (`str`): what the dataset is, for messages.
        dataset ([`~datasets.Dataset`]): has the columns.
        columns (`Sequence[str]`): the columns.
        wanted (`int`, *optional*): how many rows; `None` takes all.
        seed (`int`): of the choice.

    Raises:
        EditableValueError: if a column is missing, the dataset is empty, or `wanted` is below 1.
    """
    missing = [column for column in columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise EditableValueError(
            f"{name} has {len(dataset)} rows of columns {dataset.column_names}; it needs rows with {list(columns)}."
        )
    indices = choose(len(dataset), wanted, seed)
    return dict(zip(indices, dataset.select(indices).select_columns(list(columns)).to_list(), strict=True))


def measured(
    measure: Callable[[Job], Result], jobs: Sequence[Job], total: int, description: str, **options: Any
) -> Iterator[Result]:
    """
    What comes of each job, dealt out to the processes, with a progress bar.

    Args:
        measure (`Callable`): takes a job.
        jobs (`Sequence`): what there is to do.
        total (`int`): how many jobs there are with those that are done.
        description (`str`): of the bar.
        options (*optional*): further arguments of `tqdm`.
    """
    options |= {"total": total, "initial": total - len(jobs), "desc": description, "unit": "edit"}
    with logging.tqdm(**options, disable=not is_main_process()) as progress:
        for row in share_out(measure, jobs):
            yield row
            progress.update()
