"""Corrections whose edits add up, made so thoroughly that beam search says each of them beside all others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..data.references import References
from ..decoding.generation import frozen
from ..editors.problems.constraint import constraint_value
from ..editors.protocol import AdditiveCorrections, AdditiveEditor, EditOutcome
from ..editors.result import edit_result
from ..modeling.mixin import EditableMixin
from ..patches.added_neurons import AddedNeurons
from ..patches.application import added_neurons, changed
from ..patches.changes import Change, together
from .verification import Request, VerifiedEdit


@dataclass
class AdditiveEdit(VerifiedEdit):
    """
    An edit of which every correction can be taken by itself. See [`VerifiedEdit`].

    Args:
        parts (`list[tuple[Change, ...]]`): what each request adds to the model; empty where nothing.
        rivals (`dict[int, list[int]]`):
            requests whose targets cannot be told apart where they go different ways, by their numbers.
    """

    parts: list[tuple[Change, ...]]
    rivals: dict[int, list[int]]


class AdditiveVerification:
    """
    Makes corrections, asks beam search, and makes those more thoroughly that it does not say, until it says all that
    can be had. The last search is of all of them, with what all of them do. What comes out does not depend on their
    order.

    Args:
        model ([`EditableMixin`]): the model; it is not changed.
        editor ([`AdditiveEditor`]): makes the corrections.
        requests (`list[Request]`): the corrections, then what is to be kept.
        edits (`list[dict[str, torch.Tensor]]`): the requests as arguments of [`EditableMixin.edit`].
        references ([`References`], *optional*): sentences that are to stay as they are.
        translate (`Callable`): gives the translations of sources by the model as it is when it is called.
    """

    def __init__(
        self,
        model: EditableMixin,
        editor: AdditiveEditor,
        requests: Sequence[Request],
        edits: Sequence[dict[str, Tensor]],
        references: References | None,
        translate: Callable[[Sequence[str]], list[str]],
    ):
        self._model, self._editor, self._translate = model, editor, translate
        self._requests, self._edits = requests, edits
        self._made: AdditiveCorrections = editor.prepared(model, edits, references)

    def __call__(self, max_rounds: int) -> AdditiveEdit:
        """
        Make the corrections in at most `max_rounds` rounds.

        Returns:
            [`AdditiveEdit`]: of the rounds, the one with which the most is said.
        """
        levels = [-1 if request.kept else 0 for request in self._requests]
        best: tuple[int, list[tuple[Change, ...]], list[str]] | None = None
        rounds = 0
        while rounds < max_rounds:
            rounds += 1
            parts = self._made.parts(levels)
            said = self._said(parts)
            right = [text == request.target for text, request in zip(said, self._requests, strict=True)]
            if best is None or sum(right) > best[0]:
                best = sum(right), parts, said
            higher = [level if holds else self._next(level) for level, holds in zip(levels, right, strict=True)]
            if higher == levels:
                break
            levels = higher
        _, parts, said = best
        return self._result(rounds, parts, said)

    def _next(self, level: int) -> int:
        return min(level + 1, self._made.levels - 1)

    def _said(self, parts: Sequence[tuple[Change, ...]]) -> list[str]:
        """What beam search says of all requests."""
        with changed(self._model, together(parts)):
            return [text.strip() for text in self._translate([request.source for request in self._requests])]

    def _result(self, rounds: int, parts: list[tuple[Change, ...]], said: list[str]) -> AdditiveEdit:
        changes = together(parts)
        penalty = self._model.edit_length_penalty(self._editor.config)
        asked = [edit for edit, request in zip(self._edits, self._requests, strict=True) if not request.kept]
        with frozen(self._model), torch.inference_mode(False):
            before = constraint_value(self._model, asked, penalty)
            with changed(self._model, changes):
                loss = torch.tensor(constraint_value(self._model, asked, penalty))
                rivals = self._rivals(parts)
        outcome = EditOutcome({}, loss, before, rounds, changes)
        result = edit_result(self._model, outcome, self._editor.config.editor, penalty)
        decoded = [text == request.target for text, request in zip(said, self._requests, strict=True)]
        return AdditiveEdit(result, rounds, said, decoded, parts, rivals)

    def _rivals(self, parts: Sequence[tuple[Change, ...]]) -> dict[int, list[int]]:
        """Which requests are in each other's way; the model has the changes."""
        own = {
            group.key: row
            for row, changes in enumerate(parts)
            for change in changes
            if isinstance(change, AddedNeurons)
            for group in change.groups
        }
        rivals: dict[int, list[int]] = {}
        for key, other in (pair for each in added_neurons(self._model) for pair in each.conflicts()):
            if key in own and other in own:
                rivals.setdefault(own[key], []).append(own[other])
        return rivals


def tensors_of(request: Request, collator: DataCollatorForEditableSeq2Seq) -> dict[str, Tensor]:
    """A request as arguments of [`EditableMixin.edit`]; what is kept has no alternatives."""
    device = collator.model.device
    if request.alternatives:
        return collator.edit_inputs(vars(request), device)
    source, target = (
        torch.tensor(collator.encode(side, [text]), device=device)
        for side, text in (("source", request.source), ("target", request.target))
    )
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": target}
