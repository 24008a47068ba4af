"""What an edit changes beside the sentence that it corrects, asked before the edit is accepted."""

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset

from ...checks import check_count
from ...correction.translation_editor import TranslationEditor
from ...decoding.generation import frozen, resolve_max_new_tokens
from ...errors import EditableValueError
from ...evaluation.test_set import EncodedTestSet
from ...measures.corpus_scores import CorpusChrf, CorpusScore
from ...measures.scored_test_set import ScoredTestSet
from ...models.layers import edited_parameters
from ...models.private_names import check_private_names
from ...patches.application import looked_up, renew, working_copy
from ...patches.patch import EditPatch
from ...runs.fingerprints import fingerprint, fingerprint_rows
from ...runs.provenance import versions
from ...tail.decoder_tail import Tail
from ..corrections.correction_list import Correction
from .regression import check_rows
from .report import SCORES, AskedCorrection, ChangedTranslation, ImpactReport, ScoreChange


check_private_names(__name__)


class ImpactGate:
    """
    Translates a regression set with and without an edit, and says whether the edit may be accepted.

    The model of the editor is measured as it is when `measure` is called, with the patches that are applied to it. The
    first measure is slow; later ones run only the edited layers again, on what is kept of the search.

    Args:
        editor ([`TranslationEditor`]): its model, tokenizer, beam size and batch size are used.
        regression ([`~datasets.Dataset`] or `Sequence`):
            rows with `source` and, in all of them or in none, the reference `target`; or plain sources.
        max_drawdown (`float`, *optional*):
            The most BLEU, in points, that an edit may cost on the regression set. Needs references.
        must_keep (`Iterable[Correction]`, *optional*): corrections that the model must go on saying.
        max_lost (`int`, *optional*, defaults to `0`):
            How many corrections an edit may lose of those that are asked again; `None` does not limit them.
        bleu_tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's tokenizer.
        lowercase (`bool`, *optional*, defaults to `False`): whether the scores ignore case.
        seed (`int`, *optional*, defaults to `0`): of the bootstrap.
        record_gigabytes (`float`, *optional*, defaults to `4.0`):
            The most memory for what is kept of the search, in 10⁹ bytes; 0 decodes everything anew.

    Attributes:
        editor ([`TranslationEditor`]): the same.

    Raises:
        EditableValueError:
            if the regression set is empty or malformed, `max_drawdown` has no references to be measured on, or a
            number is out of range.

    Example:

    ```python
    >>> gate = ImpactGate(editor, data["validation"], max_drawdown=0.5)  # doctest: +SKIP
    >>> report = gate.measure(result.patch, keep=store.corrections)  # doctest: +SKIP
    >>> report.accepted, report.reasons  # doctest: +SKIP
    (False, ['BLEU falls by 0.83, and max_drawdown allows 0.5.'])
    ```
    """

    def __init__(
        self,
        editor: TranslationEditor,
        regression: Dataset | Sequence[Any],
        *,
        max_drawdown: float | None = None,
        must_keep: Iterable[Correction] = (),
        max_lost: int | None = 0,
        bleu_tokenize: str = "13a",
        lowercase: bool = False,
        seed: int = 0,
        record_gigabytes: float = 4.0,
    ):
        self.editor = editor
        pairs = check_rows("regression", regression)
        self._sources = [source for source, _ in pairs]
        self._references = None if pairs[0][1] is None else [target for _, target in pairs]
        if max_drawdown is not None:
            _check_drawdown(max_drawdown, self._references)
        if not record_gigabytes >= 0:
            raise EditableValueError(f"record_gigabytes={record_gigabytes!r}: it must be 0 or more.")
        self._must_keep = [Correction(each.source, each.target) for each in must_keep]
        self._limits = {
            "max_drawdown": max_drawdown,
            "max_lost": None if max_lost is None else check_count("max_lost", max_lost, least=0),
        }
        self._scoring = {"bleu_tokenize": bleu_tokenize, "lowercase": lowercase}
        self._seed = check_count("seed", seed, least=0)
        self._max_bytes = int(record_gigabytes * 1e9)
        # What cannot be encoded or scored is refused before the long work.
        editor.collator.encode("source", self._sources)
        editor.collator.encode("source", [each.source for each in self._must_keep])
        for measure in SCORES.values() if self._references is not None else ():
            measure.scorer(self._scored([""] * len(pairs)))
        self._state: str | None = None
        self._recorded = False
        self._known: dict[str, list[str]] = {}

    def measure(self, patch: EditPatch, keep: Iterable[Correction] = ()) -> ImpactReport:
        """
        Measure a patch on top of the model as it is, on a copy: the model itself is not changed.

        Args:
            patch ([`EditPatch`]): made from the model as it is. It is not left applied.
            keep (`Iterable[Correction]`, *optional*):
                earlier corrections to ask again, as `must_keep`; those of the patch's own source are left out.

        Returns:
            [`ImpactReport`].

        Raises:
            EditableValueError: if the patch was made for another model, or for other patches.
        """
        asked = [*self._must_keep, *(each for each in keep if each.source != patch.source)]
        asked = list(dict.fromkeys(Correction(each.source, each.target) for each in asked))
        own = [] if patch.source is None else [patch.source]
        questions = [*own, *(each.source for each in asked)]
        self._prepare()
        before, said_before = self._translations(), self._ask(questions)
        with self._working.model.edited(patch):
            after, said_after = self._translations(patch), self._ask(questions)
        answers = zip(asked, said_before[len(own) :], said_after[len(own) :], strict=True)
        return self._report(
            patch,
            said_after[0] if own else None,
            (before, after),
            [AskedCorrection(each.source, each.target, *said) for each, *said in answers],
        )

    def of(self, editor: TranslationEditor) -> "ImpactGate":
        """The same gate of another editor; what is known of the regression set stays known where it still holds."""
        other = copy.copy(self)
        other.editor = editor
        return other

    def arguments(self) -> dict[str, Any]:
        """What its answers depend on beside the model, as a journal keeps it: plain JSON values."""
        must_keep = [[each.source, each.target] for each in self._must_keep]
        regression = fingerprint_rows([self._sources, self._references])
        measured = {"must_keep": must_keep, "regression": regression, "seed": self._seed}
        return {**self._limits, **self._scoring, **measured}

    def _ask(self, sources: Sequence[str]) -> list[str]:
        return self._working.translate(sources) if sources else []

    def _prepare(self) -> None:
        """
        Bring the copy that is measured to where the model is, and encode the regression set, unless that is done for
        the model as it is but for the layers that edits move.
        """
        editor, model = self.editor, self.editor.model
        tensors = [*model.named_parameters(), *model.named_buffers()]
        moved = edited_parameters(model, model.edit_config).keys()
        # A version counts the changes in place, so nothing need be hashed.
        kept = [(name, tensor.data_ptr(), tensor._version) for name, tensor in tensors if name not in moved]
        generation = model.generation_config.to_dict()
        state = fingerprint_rows([kept, sorted(moved), generation, editor.num_beams, editor.batch_size])
        if state != self._state:
            self._state, self._known, self._recorded = None, {}, False
            self._decoding = {"num_beams": editor.num_beams, "max_new_tokens": resolve_max_new_tokens(model)}
            self._working = editor.of(working_copy(model, moved))
            self._tail = Tail(self._working.model, model.edit_config)
            with frozen(self._working.model):
                self._test_set = self._encoded()
            self._state = state
            return
        renew(self._working.model, model)
        if not self._recorded:
            # Only who measures a second time gains by a record.
            with frozen(self._working.model):
                self._test_set = self._encoded(self._translations())
                said = self._test_set.record(**self._decoding, max_bytes=self._max_bytes)
            self._known, self._recorded = {self._version(): said}, True

    def _encoded(self, translations: Sequence[str] | None = None) -> EncodedTestSet:
        # References are for divergences, which are not asked for.
        pairs = [{"source": source, "target": ""} for source in self._sources]
        editor = self._working
        return EncodedTestSet(editor.model, self._tail, editor.collator, pairs, editor.batch_size, translations)

    def _version(self) -> str:
        """A hash of what edits change: the edited layers, and tables beside the model."""
        tables = sorted(looked_up(self._working.model).items())
        return fingerprint_rows([fingerprint(self._tail.parameters), tables])

    def _translations(self, patch: EditPatch | None = None) -> list[str]:
        """Of the regression set, by the model as it is now, with the patch applied if there is one."""
        model = self._working.model
        with frozen(model):
            if patch is not None and not patch.moves_only(self._tail.parameters):
                # What is kept of the encoder and of the earlier layers does not hold.
                return self._encoded(next(iter(self._known.values()))).translate(model, **self._decoding)
            state = self._version()
            found = self._known.get(state)
            if found is None and self._recorded:
                found = self._test_set.retranslate()
            elif found is None:
                found = self._test_set.translate(model, **self._decoding)
        # Two are enough: an edit that is accepted is what the next one is measured against.
        others = [(key, texts) for key, texts in self._known.items() if key != state]
        self._known = {**dict(others[-1:]), state: found}
        return found

    def _scored(self, translations: Sequence[str]) -> ScoredTestSet:
        return ScoredTestSet(self._sources, self._references or (), translations, seed=self._seed, **self._scoring)

    def _scores(self, before: ScoredTestSet, after: Sequence[str]) -> dict[str, ScoreChange]:
        """How each score changes; without references there is none."""
        if self._references is None:
            return {}
        return {name: _change(measure.scorer(before), before, after) for name, measure in SCORES.items()}

    def _report(
        self,
        patch: EditPatch,
        said: str | None,
        translations: tuple[list[str], list[str]],
        asked: list[AskedCorrection],
    ) -> ImpactReport:
        before, after = self._scored(translations[0]), translations[1]
        references = self._references or [None] * len(before)
        changes = before.changes(after)
        report = ImpactReport(
            accepted=True,
            reasons=[],
            source=patch.source,
            target=patch.target,
            said=said,
            **dict.fromkeys(SCORES) | self._scores(before, after),
            similarity=CorpusChrf(before.translations, after).score if changes else 100.0,
            num_sentences=len(before),
            changed=[ChangedTranslation(self._sources[i], old, new, references[i]) for i, old, new in changes],
            asked=asked,
            settings={**self._decoding, **self._limits, **self._scoring, "seed": self._seed, "versions": versions()},
        )
        reasons = self._reasons(report)
        return dataclasses.replace(report, accepted=not reasons, reasons=reasons)

    def _reasons(self, report: ImpactReport) -> list[str]:
        reasons = []
        most, lost = self._limits["max_drawdown"], report.lost
        if most is not None and -report.bleu.difference > most:
            reasons.append(f"BLEU falls by {-report.bleu.difference:.2f}, and max_drawdown allows {most:g}.")
        if self._limits["max_lost"] is not None and len(lost) > self._limits["max_lost"]:
            named = "; ".join(f"{each.source!r} → {each.target!r}" for each in lost)
            reasons.append(
                f"{len(lost)} corrections that held are lost, and max_lost allows {self._limits['max_lost']}: {named}."
            )
        return reasons


def _change(score: CorpusScore, before: ScoredTestSet, after: Sequence[str]) -> ScoreChange:
    drawdown = score.difference_interval(before.changes(after), seed=before.seed)
    new = score.score_of(after)
    interval = drawdown and (0.0 - drawdown[1], 0.0 - drawdown[0])
    return ScoreChange(score.score, new, new - score.score, interval, score.signature)


def _check_drawdown(most: float, references: list[str] | None) -> None:
    if isinstance(most, bool) or not isinstance(most, int | float) or not math.isfinite(most):
        raise EditableValueError(f"max_drawdown={most!r}: it must be a number of BLEU points, such as 0.5.")
    if references is None:
        raise EditableValueError(
            f"max_drawdown={most!r} needs references to compute BLEU, and the regression set has sources only. Give "
            "rows with target, or leave max_drawdown out: the report then tells what changed."
        )
