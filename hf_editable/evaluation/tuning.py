"""The coefficients of an editor, chosen on validation edits: the most local ones with which edits still succeed."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import check_count, given_settings
from ..configuration import DEFAULT_EDITOR, EditConfig
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..data.references import References
from ..decoding.generation import frozen
from ..editors.protocol import Editor
from ..editors.registry import make_editor
from ..errors import EditableValueError, NonFiniteEditError
from ..modeling.mixin import EditableMixin, check_model, check_references
from ..models.weights import fingerprint_model
from ..patches.patch import EditPatch
from ..reporting.tuned_editor import TriedSetting, TunedEditor
from ..runs.files import check_folder
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import Journal
from ..tail.decoder_tail import Tail
from .full_divergence import full_divergence
from .study import EDIT_COLUMNS, PAIR_COLUMNS, choose_rows, measured
from .test_set import EncodedTestSet


logger = logging.get_logger(__name__)


TUNING_NAME = "tuning.jsonl"


# Step sizes are 10 ** (n / 8), for whole numbers n. The search begins with every half power of ten in these ranges.
_PER_DECADE = 8


_COARSE = _PER_DECADE // 2


_LIMITS = (-8 * _PER_DECADE, 4 * _PER_DECADE)


@dataclass(frozen=True)
class TuningSettings:
    """
    How an editor is tuned. [`tune_editor`] takes these fields by name too.

    Args:
        num_edits (`int`, *optional*): how many of the edits to make, chosen at random; `None` takes all.
        num_sentences (`int`, *optional*, defaults to `200`): how many of the sentences to take; `None` takes all.
        target_success (`float`, *optional*, defaults to `0.95`): share of the edits that must succeed.
        refinements (`int`, *optional*, defaults to `2`):
            How often the spacing of the step sizes is halved at the end: from half powers of ten to quarters and
            eighths; at most 2.
        batch_size (`int`, *optional*, defaults to `64`): sentences whose predictions are computed at once.
        output_dir (`str`, *optional*):
            Folder for the settings that are finished: a second call with the same arguments goes on with them.
        seed (`int`, *optional*, defaults to `0`): of the choices at random.

    Raises:
        EditableValueError: if a number is out of range.
    """

    num_edits: int | None = None
    num_sentences: int | None = 200
    target_success: float = 0.95
    refinements: int = 2
    batch_size: int = 64
    output_dir: str | os.PathLike | None = None
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.target_success <= 1:
            raise EditableValueError(f"target_success={self.target_success!r}: it must be above 0, and 1 at most.")
        if check_count("refinements", self.refinements, least=0) > 2:
            raise EditableValueError(f"refinements={self.refinements!r}: it must be 0, 1 or 2.")
        check_count("seed", self.seed, least=0)


def tune_editor(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    sentences: Dataset,
    settings: TuningSettings | None = None,
    *,
    references: References | None = None,
    **options: Any,
) -> TunedEditor:
    """
    Choose the coefficients of an editor as the paper does (section 4.1): the most local edits among the settings with
    which at least 95 % of the edits succeed within `max_steps` steps.

    Locality is the KL divergence between the predictions before and after an edit, on sentences that stay the same
    for all settings: no translation is needed. If no setting makes enough edits succeed, the one with the most
    successes is chosen.

    What can be tuned, the editor says ([`Editor.tunables`]). The search starts with a logarithmic grid of step sizes,
    and goes on beyond its ends as long as that helps. The editor's other settings, where it has any, are varied one
    after the other, each with step sizes of its own. Then the step size is refined around the best setting.

    On the processes of `accelerate launch`, all of which must call this, the edits are dealt out.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): validation edits, as [`mine_edits`] gives them, not those to measure with.
        sentences ([`~datasets.Dataset`]): validation pairs to measure locality on, with columns `source`, `target`.
        settings ([`TuningSettings`], *optional*): how to tune.
        references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
        options (*optional*): fields of [`TuningSettings`], and of [`EditConfig`], such as `optimizer="adam"`.

    Raises:
        EditableTypeError: if the model is not editable.
        EditableValueError: if a number is out of range, a column is missing, a dataset is empty, an edit or a sentence
            is longer than the model takes, or `output_dir` holds the results of other arguments.

    Example:

    ```python
    >>> tuned = tune_editor(model, tokenizer, edits, data["validation"], optimizer="adam")  # doctest: +SKIP
    >>> tuned.chosen.coefficients  # doctest: +SKIP
    {'learning_rate': 0.000562, 'beta': 0.9, 'momentum': 0.5}
    ```
    """
    check_model(model)
    names = {field.name for field in dataclasses.fields(TuningSettings)}
    settings = given_settings(TuningSettings, settings, {name: options[name] for name in names & options.keys()})
    overrides = {name: value for name, value in options.items() if name not in names}
    editor = model.editor_with(**overrides)
    check_references(editor, references)
    with _trials(model, tokenizer, (edits, sentences), settings, references, overrides) as trials:
        return _Search(trials, settings.target_success, editor).run(settings.refinements)


@contextmanager
def _trials(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    data: tuple[Dataset, Dataset],
    settings: TuningSettings,
    references: References | None,
    overrides: Mapping[str, Any],
) -> Iterator["Trials"]:
    """What tries settings on the edits and sentences of the data that are chosen; a journal keeps what is finished."""
    chosen, pairs = (
        list(choose_rows(name, dataset, columns, wanted, settings.seed).values())
        for name, dataset, columns, wanted in (
            ("edits", data[0], EDIT_COLUMNS, settings.num_edits),
            ("sentences", data[1], PAIR_COLUMNS, settings.num_sentences),
        )
    )
    config = model.edit_config.replace(**overrides)
    arguments = {
        "model": fingerprint_model(model),
        "edits": fingerprint_rows(chosen),
        "sentences": fingerprint_rows(pairs),
        "edit_config": config.to_dict(),
        **({} if references is None else {"references": references.fingerprint()}),
    }
    folder = settings.output_dir
    with Journal(None if folder is None else check_folder(folder) / TUNING_NAME, arguments) as journal:
        yield Trials(model, tokenizer, config, chosen, (pairs, settings.batch_size), journal, references)


class Trials:
    """The validation edits of one editor with any coefficients; each setting is tried once."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        config: EditConfig,
        edits: Sequence[dict[str, Any]],
        sentences: tuple[Sequence[dict[str, str]], int],
        journal: Journal,
        references: References | None = None,
    ):
        self.config = config
        self._model = model
        self._journal = journal
        collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._collator, self._pairs, self._references = collator, sentences, references
        self._edits = [collator.edit_inputs(edit, model.device) for edit in edits]
        self._finished = [TriedSetting(**row) for row in journal.rows]
        self._tail = Tail(model, config)
        with frozen(model):
            self._sentences = EncodedTestSet(model, self._tail, collator, *sentences)

    def __call__(self, coefficients: dict[str, float]) -> TriedSetting:
        for setting in self._finished:
            if setting.coefficients == coefficients:
                return setting
        config = self.config.replace(**coefficients)
        name = ", ".join(f"{value:.3g}" for value in coefficients.values())
        kind = config.optimizer if config.editor == DEFAULT_EDITOR else config.editor
        bar = {"total": len(self._edits), "description": f"Tuning {kind} ({name})", "leave": False}
        rows = list(measured(lambda inputs: self._measure(inputs, config), self._edits, **bar))
        whole = [row for row in rows if row is not None]

        def mean(key: str) -> float | None:
            return statistics.fmean(row[key] for row in whole) if whole else None

        setting = TriedSetting(
            coefficients=coefficients,
            success_rate=sum(row["success"] for row in whole) / len(rows),
            kl=mean("kl"),
            mean_loss=mean("loss"),
            mean_steps=mean("steps"),
            failed_edits=len(rows) - len(whole),
            milliseconds_median=statistics.median(row["milliseconds"] for row in whole) if whole else None,
        )
        self._finished.append(setting)
        self._journal.append([dataclasses.asdict(setting)])
        logger.info(f"{kind}, {coefficients}: {setting.success_rate:.1%} succeed, KL {setting.kl}")
        return setting

    def _measure(self, inputs: dict[str, Tensor], config: EditConfig) -> dict[str, Any] | None:
        """What one edit came to; `None` if it met a value that is not finite."""
        start = time.perf_counter()
        try:
            result = self._model.edit(**inputs, references=self._references, **config.to_dict())
        except NonFiniteEditError:
            return None
        milliseconds = 1000 * (time.perf_counter() - start)  # the result has numbers in it, so a GPU is done
        divergence = self._divergence(result.patch)
        if not math.isfinite(divergence):
            return None
        measured = {"success": result.success, "loss": result.loss, "steps": result.steps}
        return {**measured, "kl": divergence, "milliseconds": milliseconds}

    def _divergence(self, patch: EditPatch) -> float:
        """How far an edit moves the predictions of the validation references, in nats a token."""
        with frozen(self._model):
            if patch.moves_only(self._tail.parameters):
                return self._sentences.divergence(self._tail, patch.values(self._model))
            return full_divergence(self._model, patch.changes, self._collator, *self._pairs)


class _Search:
    """Tries settings of one editor, each next to the best of those before it."""

    def __init__(self, trials: Trials, target_success: float, editor: Editor | None = None):
        self._trials = trials
        editor = make_editor(trials.config) if editor is None else editor
        self._target = target_success
        tunables = editor.tunables()
        self._size = next((name for name, tunable in tunables.items() if tunable.scale), None)
        self._ends = (1.0, 1.0) if self._size is None else tunables[self._size].values
        self._values = {name: tunable.values for name, tunable in tunables.items() if name != self._size}
        self._others = {name: _present(editor, name) for name in self._values}
        self._tried: dict[tuple, TriedSetting] = {}

    def run(self, refinements: int) -> TunedEditor:
        low, high = (round(_PER_DECADE * math.log10(end)) for end in self._ends)
        others = dict(self._others)
        best = min(range(low, high + 1, _COARSE), key=lambda step: self._rank(step, others))
        best = self._climb(best, others, _COARSE)
        for name, values in self._values.items():
            found = [(self._rank(best, others), best, others)]
            for value in values:
                varied = {**others, name: value}
                step = self._climb(best, varied, _COARSE)
                found.append((self._rank(step, varied), step, varied))
            _, best, others = min(found, key=lambda candidate: candidate[0])
        for refinement in range(refinements):
            best = self._climb(best, others, _COARSE >> (refinement + 1))
        chosen = min(self._tried.values(), key=self._order)
        return TunedEditor(chosen, chosen.success_rate >= self._target, list(self._tried.values()))

    def _climb(self, step: int, others: dict[str, float], spacing: int) -> int:
        """The best size on a grid, from one of them to ever better neighbours."""
        while self._size is not None:
            near = [step, step - spacing, step + spacing]
            allowed = [number for number in near if _LIMITS[0] <= number <= _LIMITS[1]]
            best = min(allowed, key=lambda number: self._rank(number, others))
            if best == step:
                break
            step = best
        return step

    def _rank(self, step: int, others: Mapping[str, float]) -> tuple:
        size = {} if self._size is None else {self._size: float(f"{10 ** (step / _PER_DECADE):.3g}")}
        coefficients = {**size, **others}
        key = tuple(coefficients.values())
        if key not in self._tried:
            self._tried[key] = self._trials(coefficients)
        return self._order(self._tried[key])

    def _order(self, setting: TriedSetting) -> tuple:
        """Small for good settings: the most local of those that succeed, else the most successful."""
        if setting.success_rate >= self._target:
            return (0, 0.0, setting.kl)
        # Where none succeeds at all, what is left of the loss says which way success lies.
        missed = setting.mean_loss if setting.success_rate == 0 else setting.kl
        return (1, -setting.success_rate, math.inf if missed is None else missed)


def _present(editor: Editor, name: str) -> float:
    """The value that a setting of an editor has, or the one it begins with."""
    holders = (editor, editor.options, editor.config)
    return next(getattr(holder, name) for holder in holders if getattr(holder, name, None) is not None)
