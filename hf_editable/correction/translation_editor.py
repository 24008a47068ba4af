"""Edits at the level of text: a source and the translation it should have."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import BEAMS, check_count, checked
from ..configuration import EditConfig
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..data.references import References
from ..decoding.generation import resolve_max_new_tokens
from ..decoding.score_rules import SayableTargets
from ..decoding.translate import best_translations
from ..editors.protocol import AdditiveEditor
from ..editors.result import EditResult
from ..errors import EditableValueError
from ..modeling.mixin import EditableMixin, check_model, check_references
from ..models.layers import edited_parameters
from ..patches.application import working_copy
from ..patches.changes import Change
from .additive import AdditiveVerification, tensors_of
from .unknown_words import describe_unknown, unknown_words
from .verification import Request, Verification, shortened


logger = logging.get_logger(__name__)


@dataclass
class TranslationEditResult(EditResult):
    """
    What a correction of one translation came to. See [`EditResult`].

    Args:
        rounds (`int`): how often edit and search took turns.
        decoded (`bool`): whether the edited model's beam search says the target.
        translation (`str`): what it says.
        lost (`list[str]`): sources of `keep` that it does not translate as before.
    """

    rounds: int
    decoded: bool
    translation: str
    lost: list[str]


@dataclass
class JointEditResult(EditResult):
    """
    What a joint correction of several translations came to. See [`EditResult`].

    Args:
        rounds (`int`): how often edit and search took turns.
        decoded (`list[bool]`): for each source, whether the edited model's beam search says its target.
        translations (`list[str]`): what it says.
        lost (`list[str]`): sources of `keep` that it does not translate as before.
        parts (`list[tuple[Change, ...]]`, *optional*):
            what each source's correction does to the model, from editors whose edits add up.
        rivals (`list[list[str]]`, *optional*):
            from these editors, for each source others that go the same way up to where they want something else.
    """

    rounds: int
    decoded: list[bool]
    translations: list[str]
    lost: list[str]
    parts: list[tuple[Change, ...]] | None = None
    rivals: list[list[str]] | None = None


class TranslationEditor:
    """
    Corrects translations given as text.

    Args:
        model ([`EditableMixin`]): the model, from [`AutoEditableModelForSeq2SeqLM`]. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        num_beams (`int`, *optional*, defaults to `5`): beam size of `translate`.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once.
        editor (`str`, *optional*):
            family of the editor that makes the edits, as [`~editors.editor_names`] lists them; `None` takes the
            model's own.
        references ([`References`] or `Sequence[dict[str, str]]`, *optional*):
            pairs of `source` and `target` that are to stay as they are, for editors that need them.
        overrides (*optional*): fields of [`EditConfig`] to change for these edits, or settings of that editor.

    Raises:
        EditableTypeError: if the model has no `edit`, or the editor no such setting.
        EditableValueError:
            if there is no such editor, it needs references, or a value is out of range; `num_beams` is 1,000 at most.

    Example:

    ```python
    >>> editor = TranslationEditor(model, tokenizer)  # doctest: +SKIP
    >>> result = editor.edit("Guten Tag!", "Good afternoon!")  # doctest: +SKIP
    >>> with model.edited(result.patch):  # doctest: +SKIP
    ...     editor.translate(["Guten Tag!"])
    ['Good afternoon!']
    ```
    """

    @checked
    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        num_beams: int = 5,
        batch_size: int = 64,
        editor: str | None = None,
        references: References | Sequence[Mapping[str, str]] | None = None,
        **overrides: Any,
    ):
        check_model(model)
        self.model = model
        self.tokenizer = tokenizer
        self.num_beams = BEAMS.check("num_beams=", num_beams)
        self.batch_size = check_count("batch_size", batch_size)
        self.overrides = overrides if editor is None else {"editor": editor, **overrides}
        given = references is None or isinstance(references, References)
        self.references = references if given else References(tokenizer, references)
        self.collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._told: set[str] = set()
        check_references(model.editor_with(**self.overrides), self.references)

    @property
    def edit_config(self) -> EditConfig:
        """The configuration of these edits."""
        return self.model.edit_config.replace(**self.overrides)

    @checked
    def translate(self, sources: Sequence[str]) -> list[str]:
        """
        Translate with beam search.

        Args:
            sources (`Sequence[str]`): sentences.

        Returns:
            `list[str]`: their translations, in the same order.

        Raises:
            EditableTypeError: if `sources` is no list of strings.
            EditableValueError: if a sentence is empty.
        """
        return [texts[0] for texts in self._best(sources, self.num_beams, 1)]

    @checked
    def edit(
        self,
        source: str,
        target: str,
        alternatives: Sequence[str] | None = None,
        max_rounds: int = 20,
        max_steps: int | None = None,
        shrink: bool = True,
        keep: Sequence[tuple[str, str]] = (),
    ) -> TranslationEditResult:
        """
        Find an edit after which beam search translates `source` as `target`.

        That the target outranks a list of alternatives does not make beam search say it. So `generate` is asked, and
        while it says something else, the edit goes on with more to outrank: what it says, and the prefix that pushes
        the target's out of the beam.

        Args:
            source (`str`): the sentence that is translated wrongly.
            target (`str`): the translation it should have.
            alternatives (`Sequence[str]`, *optional*):
                what the target is to outrank at first; `None` takes the model's `num_alternatives` most likely
                translations.
            max_rounds (`int`, *optional*, defaults to `20`): how often edit and search take turns at most.
            max_steps (`int`, *optional*): the most steps of a round; `None` takes the model's.
            shrink (`bool`, *optional*, defaults to `True`):
                look for the smallest edit on the line from the model to the edit found that does the same, so that
                less else changes.
            keep (`Sequence[tuple[str, str]]`, *optional*):
                sources and the translations that the model is to go on giving them, such as earlier corrections.
                Those that the model does not give now are left out.

        Returns:
            [`TranslationEditResult`]; its patch names `source` and `target`.

        Raises:
            EditableTypeError: if an argument is of another type.
            EditableValueError:
                if the source or the target is empty or too long, the target has words that the tokenizer does not
                know or writes differently, or no alternative differs from the target.
        """
        given = None if alternatives is None else [alternatives]
        joint = self.edit_jointly([source], [target], given, max_rounds, max_steps, shrink, keep)
        values = {item.name: getattr(joint, item.name) for item in dataclasses.fields(EditResult)}
        joint.patch.source, joint.patch.target = source, self.written(target, source)
        decoded, translation = joint.decoded[0], joint.translations[0]
        return TranslationEditResult(
            **values, rounds=joint.rounds, decoded=decoded, translation=translation, lost=joint.lost
        )

    @checked
    def edit_jointly(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        alternatives: Sequence[Sequence[str]] | None = None,
        max_rounds: int = 20,
        max_steps: int | None = None,
        shrink: bool = True,
        keep: Sequence[tuple[str, str]] = (),
    ) -> JointEditResult:
        """
        Find one edit after which beam search translates each of `sources` as asked. See `edit`.

        Args:
            sources (`Sequence[str]`): the sentences that are translated wrongly.
            targets (`Sequence[str]`): the translations they should have.
            alternatives (`Sequence[Sequence[str]]`, *optional*): what each target is to outrank at first.
            max_rounds (`int`, *optional*, defaults to `20`): how often edit and search take turns at most.
            max_steps (`int`, *optional*): the most steps of a round; `None` takes the model's.
            shrink (`bool`, *optional*, defaults to `True`): as in `edit`.
            keep (`Sequence[tuple[str, str]]`, *optional*): as in `edit`.

        Returns:
            [`JointEditResult`]: the edit with which the most sources are translated as asked.

        Raises:
            EditableValueError: as `edit` does, or if the numbers of sources, targets and alternatives differ.
        """
        check_count("max_rounds", max_rounds)
        given = (sources, targets, alternatives, max_rounds, max_steps, shrink, keep)
        return self.on_copy()._edit_jointly(*given)

    def on_copy(self) -> "TranslationEditor":
        """
        The same editor of a copy of its model as it is now. What is made of that copy leaves the model alone, and
        what becomes of the model does not reach it; only tensors that neither changes are shared.
        """
        return self.of(working_copy(self.model, edited_parameters(self.model, self.edit_config)))

    def of(self, model: EditableMixin) -> "TranslationEditor":
        """The same editor of another model of the same kind."""
        other = copy.copy(self)
        other.model, other.collator = model, DataCollatorForEditableSeq2Seq(self.tokenizer, model)
        return other

    def _edit_jointly(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        alternatives: Sequence[Sequence[str]] | None,
        max_rounds: int,
        max_steps: int | None,
        shrink: bool,
        keep: Sequence[tuple[str, str]],
    ) -> JointEditResult:
        """See `edit_jointly`; the model is another one meanwhile."""
        requests = self._requests(sources, targets, alternatives)
        if (editor := self._additive()) is not None:
            return self._added(editor, requests, self._kept(keep, sources), max_rounds)
        overrides = self.overrides if max_steps is None else {**self.overrides, "max_steps": max_steps}
        requests += self._kept(keep, sources)
        verification = Verification(self.model, self.collator, requests, self.num_beams, overrides, self.references)
        verified, count = verification(max_rounds, shrink), len(sources)
        kept = zip(requests[count:], verified.decoded[count:], strict=True)
        return JointEditResult(
            **vars(verified.result),
            rounds=verified.rounds,
            decoded=verified.decoded[:count],
            translations=verified.translations[:count],
            lost=[request.source for request, decoded in kept if not decoded],
        )

    def _additive(self) -> AdditiveEditor | None:
        """The editor, if its edits add up."""
        editor = self.model.editor_with(**self.overrides)
        return editor if isinstance(editor, AdditiveEditor) else None

    def _added(
        self, editor: AdditiveEditor, requests: list[Request], kept: list[Request], max_rounds: int
    ) -> JointEditResult:
        """The same for an editor whose edits add up."""
        self._check_contradictions(requests)
        count, requests = len(requests), requests + kept
        edits = [tensors_of(request, self.collator) for request in requests]
        made = AdditiveVerification(self.model, editor, requests, edits, self.references, self.translate)(max_rounds)
        return JointEditResult(
            **vars(made.result),
            rounds=made.rounds,
            decoded=made.decoded[:count],
            translations=made.translations[:count],
            lost=[each.source for each, decoded in zip(kept, made.decoded[count:], strict=True) if not decoded],
            parts=made.parts[:count],
            rivals=[[requests[row].source for row in made.rivals.get(place, ())] for place in range(count)],
        )

    def _check_contradictions(self, requests: Sequence[Request]) -> None:
        """Refuse two targets for what is one source to the model."""
        asked: dict[tuple[int, ...], Request] = {}
        for request in requests:
            other = asked.setdefault(self._tokens(request.source), request)
            if other.target != request.target:
                raise EditableValueError(
                    f"{other.source!r} is to be {other.target!r}, and {request.source!r}, which is the same to the "
                    f"model, {request.target!r}. Leave one of them out."
                )

    def _kept(self, keep: Sequence[tuple[str, str]], sources: Sequence[str]) -> list[Request]:
        """What is to be kept of the translations of other sources, where the model gives them now."""
        corrected = {self._tokens(source) for source in sources}
        others = {source: target.strip() for source, target in keep if self._tokens(source) not in corrected}
        said = self.translate(list(others))
        now = zip(others.items(), said, strict=True)
        return [Request(source, target, kept=True) for (source, target), text in now if text.strip() == target]

    def _requests(
        self, sources: Sequence[str], targets: Sequence[str], alternatives: Sequence[Sequence[str]] | None
    ) -> list[Request]:
        """The corrections, checked, each with the alternatives it starts with."""
        given = [()] * len(sources) if alternatives is None else alternatives
        if not len(sources) == len(targets) == len(given) or not sources:
            raise EditableValueError(
                f"{len(sources)} sources, {len(targets)} targets and {len(given)} lists of alternatives: give one of "
                "each for every correction, and at least one correction."
            )
        if alternatives is not None and (without := [source for source, texts in zip(sources, given) if not texts]):
            raise EditableValueError(
                f"The correction of {without[0]!r} has no alternatives to outrank. Give some, or None for what the "
                "model says."
            )
        targets = [self.written(target, source) for source, target in zip(sources, targets, strict=True)]
        self.warn_of_unknown(sources)
        if alternatives is None:
            # Edits that add up need no alternatives, but `l_e` does.
            few = self._additive() is not None
            count = max(2, self.num_beams) if few else self.edit_config.num_alternatives
            given = self._best(sources, count, count)
        return [
            Request(source, target, shortened(self.collator, texts))
            for source, target, texts in zip(sources, targets, given, strict=True)
        ]

    def warn_of_unknown(self, sources: Sequence[str]) -> None:
        """
        Warn of sources that the tokenizer writes like others, as it does not know their words: an edit of one changes
        the translations of all of them. `edit` and `edit_jointly` do so first; of each source it is said once.

        Args:
            sources (`Sequence[str]`): sources to edit.
        """
        new = [source for source in dict.fromkeys(sources) if source not in self._told]
        self._told.update(new)
        if (told := describe_unknown(self.tokenizer, new)) is not None:
            logger.warning(told)

    @checked
    def written(self, target: str, source: str) -> str:
        """
        A target as the tokenizer writes it, which is how the model can say it.

        Args:
            target (`str`): a translation.
            source (`str`): what it is a translation of, which some generation settings look at.

        Raises:
            EditableValueError:
                if the tokenizer has no tokens for it, or writes it differently, but for spaces; it says how. Or if
                the model's generation settings forbid it.
        """
        if words := unknown_words(self.tokenizer, target, target=True):
            raise EditableValueError(
                f"The tokenizer has no tokens for {words} of the target, so the model cannot say it. Write them "
                "differently."
            )
        ids = self.tokenizer(text_target=target, add_special_tokens=False, verbose=False).input_ids
        written = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if "".join(written.split()) != "".join(target.split()):
            raise EditableValueError(
                f"The model cannot say the target {target!r}: its tokenizer writes it {written!r}. Give it like that."
            )
        ids = self.collator.encode("target", [target])[0]
        SayableTargets(self.model).check(ids, target, self.collator.encode("source", [source])[0])
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _tokens(self, source: str) -> tuple[int, ...]:
        """What is the same for sources that are one to the model."""
        return tuple(self.tokenizer(source, verbose=False).input_ids)

    def _best(self, sources: Sequence[str], num_beams: int, count: int) -> list[list[str]]:
        """The `count` best translations of each source."""
        limit = resolve_max_new_tokens(self.model)
        return best_translations(self.model, self.tokenizer, sources, num_beams, count, self.batch_size, limit)
