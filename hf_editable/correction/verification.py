"""Edits after which beam search says the target, and does not only rank it first."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..data.references import References
from ..decoding.encoded_sources import encode_sources
from ..decoding.generation import LivePrefixes, can_be_bounded, frozen, resolve_max_new_tokens, until_end
from ..editors.result import EditResult
from ..mining.target_prefixes import without_prefix
from ..modeling.mixin import EditableMixin
from ..patches.application import looked_up, parameters_of
from ..patches.changes import changed_values, scaled
from ..patches.patch import EditPatch


# How often the line from the model to its edit is halved to find a smaller one.
HALVINGS = 4


@dataclass
class Request:
    """
    A correction, and what its target is to outrank so far.

    Args:
        source (`str`): the sentence that is translated wrongly.
        target (`str`): the translation it should have, as the tokenizer writes it.
        alternatives (`list[str]`): whole translations.
        prefixes (`list[list[int]]`): token ids of prefixes.
        kept (`bool`): whether the model says the target already, and is only edited for it once it does not.
    """

    source: str
    target: str
    alternatives: list[str] = field(default_factory=list)
    prefixes: list[list[int]] = field(default_factory=list)
    kept: bool = False


@dataclass
class VerifiedEdit:
    """
    An edit, and what `generate` says after it.

    Args:
        result ([`EditResult`]): the edit.
        rounds (`int`): how often edit and search took turns.
        translations (`list[str]`): what beam search says, for each request.
        decoded (`list[bool]`): whether that is the target.
    """

    result: EditResult
    rounds: int
    translations: list[str]
    decoded: list[bool]


@dataclass
class _Search:
    """
    The translations found for each request, best first; tokens of all of them; the prefixes in the beam, by step; and
    whether requests were left out, or the search was cut off before the model's own limit.
    """

    texts: list[list[str]]
    tokens: list[list[int]]
    live: list[Tensor]
    partial: bool


class Verification:
    """
    Has the model's editor make edits, asks `generate`, and goes on from there.

    After each edit the targets are searched for. Where one is not found, the translations found and the prefix that
    pushed the target's out of the beam are added to what it has to outrank, and further steps are taken. Targets that
    are to be kept are searched for too, and join where they are lost. Then the smallest edit on the line from the
    model to the result that still holds, and is still decoded, is found by halving.

    Args:
        model ([`EditableMixin`]): the model; it is not changed.
        collator ([`DataCollatorForEditableSeq2Seq`]): encodes.
        requests (`list[Request]`): the corrections, then what is to be kept; they collect further terms.
        num_beams (`int`): beam size; 1 is greedy search.
        overrides (`dict[str, Any]`, *optional*): fields of [`EditConfig`] to change; `max_steps` are those of a round.
        references ([`References`], *optional*): see [`EditableMixin.edit`].
    """

    def __init__(
        self,
        model: EditableMixin,
        collator: DataCollatorForEditableSeq2Seq,
        requests: list[Request],
        num_beams: int,
        overrides: Mapping[str, Any] | None = None,
        references: References | None = None,
    ):
        self._model = model
        self._references = references
        self._collator = collator
        self._requests = requests
        self._num_beams = num_beams
        self._overrides = dict(overrides or {})
        targets = collator.encode("target", [request.target for request in requests])
        self._targets = [until_end(model, ids) for ids in targets]
        sources = collator.encode("source", [request.source for request in requests])
        indices = list(range(len(sources)))
        with frozen(model):
            self._sources = encode_sources(model, collator.tokenizer, dict(enumerate(sources)), indices)
        self._limit = resolve_max_new_tokens(model)
        # Edits on their way may make translations endless, which need not be seen to their end.
        ample = 2 * max(map(len, self._targets)) + 8
        self._bound = min(ample, self._limit) if can_be_bounded(model) else self._limit
        self._num_wanted = sum(not request.kept for request in requests)

    @torch.inference_mode(False)  # also where the caller has it on: edits need gradients
    def __call__(self, max_rounds: int, shrink: bool = True) -> VerifiedEdit:
        """
        Edit in at most `max_rounds` rounds.

        Returns:
            [`VerifiedEdit`]:
                of the rounds, the last of those with which the most targets are decoded, and then the most kept.
        """
        best: VerifiedEdit | None = None
        previous: EditPatch | None = None
        for rounds in range(1, max_rounds + 1):
            result = self._edit(previous)
            previous = result.patch
            search = self._search(result.patch)
            found = self._verified(result, rounds, search)
            if best is None or self._merit(found) >= self._merit(best):
                best, partial = found, search.partial
            if all(found.decoded) or not self._add_terms(search) and result.success:
                break
        if partial:
            best = self._verified(best.result, rounds, self._generate(best.result.patch, self._limit))
        if shrink and best.result.success:
            best = self._shrunk(best)
        return dataclasses.replace(best, rounds=rounds)

    def _merit(self, edit: VerifiedEdit) -> tuple[int, int]:
        return sum(edit.decoded[: self._num_wanted]), sum(edit.decoded)

    def _edit(self, previous: EditPatch | None) -> EditResult:
        """Steps from the model, or from an earlier edit of it, until all terms hold."""
        given = (self._inputs(), self._references)
        if previous is None:
            return self._model.edit_jointly(*given, **self._overrides)
        with self._model.edited(previous):
            result = self._model.edit_jointly(*given, **self._overrides)
        earlier = {"loss_before": previous.loss_before, "steps": previous.steps + result.steps}
        patch = dataclasses.replace(result.patch.after(previous, self._model), **earlier)
        return dataclasses.replace(result, initial_loss=previous.loss_before, steps=patch.steps, patch=patch)

    def _inputs(self) -> list[dict[str, Tensor]]:
        edited = [request for request in self._requests if request.alternatives]
        inputs = [self._collator.edit_inputs(vars(request), self._model.device) for request in edited]
        self._overrides["num_alternatives"] = max(edit["alternative_labels"].shape[1] for edit in inputs)
        return inputs

    def _search(self, patch: EditPatch) -> _Search:
        """What beam search finds with a patch: for what is kept, and to its end, only where all targets are found."""
        search, whole = self._generate(patch, self._bound, self._num_wanted), len(self._requests)
        if self._num_wanted < whole and all(self._decoded(search)):
            search = self._generate(patch, self._bound)
        if search.partial and len(search.texts) == whole and all(self._decoded(search)):
            search = self._generate(patch, self._limit)
        return search

    def _generate(self, patch: EditPatch, limit: int, count: int | None = None) -> _Search:
        """What beam search finds for the first `count` requests, or all."""
        live, whole = LivePrefixes(), len(self._requests)
        sources = self._sources if count in (None, whole) else self._sources.select(list(range(count)))
        with self._model.edited(patch), frozen(self._model):
            output = sources.generate(
                self._model,
                limit,
                num_beams=self._num_beams,
                num_return_sequences=self._num_beams,
                do_sample=False,
                logits_processor=LogitsProcessorList([live]),
            )
        cut = limit < self._limit and len(live.steps) >= limit
        tokens, beams = output[:, 1:].tolist(), self._num_beams
        texts = [text.strip() for text in self._collator.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        found = [texts[start : start + beams] for start in range(0, len(texts), beams)]
        found = self._looked_up(patch, found)
        return _Search(found, tokens, live.steps, cut or len(found) < whole)

    def _looked_up(self, patch: EditPatch, found: list[list[str]]) -> list[list[str]]:
        """With what a table beside the model says, where it has the source, in place of what beam search found."""
        with self._model.edited(patch):
            table = looked_up(self._model)
        if not table:
            return found
        said = [
            table.get(tuple(ids)) for ids in self._collator.encode("source", [each.source for each in self._requests])
        ]
        decode = self._collator.tokenizer.decode
        return [
            texts if ids is None else [decode(ids, skip_special_tokens=True).strip()] * len(texts)
            for texts, ids in zip(found, said, strict=False)
        ]

    def _verified(self, result: EditResult, rounds: int, search: _Search) -> VerifiedEdit:
        return VerifiedEdit(result, rounds, [found[0] for found in search.texts], self._decoded(search))

    def _decoded(self, search: _Search) -> list[bool]:
        return [found[0] == request.target for found, request in zip(search.texts, self._requests, strict=False)]

    def _add_terms(self, search: _Search) -> bool:
        """Add to the requests that are not decoded what their targets lost to; whether any of it is new."""
        new = False
        for index, texts in enumerate(search.texts):
            request, target = self._requests[index], self._targets[index]
            if texts[0] == request.target:
                continue
            known = {"", request.target, *request.alternatives}
            found = [text for text in dict.fromkeys(texts) if text not in known]
            request.alternatives[:0] = shortened(self._collator, found)
            own = slice(index * self._num_beams, (index + 1) * self._num_beams)
            steps = [step[own].tolist() for step in search.live]
            ended = [until_end(self._model, ids) for ids in search.tokens[own]]
            prefix = _pushing_out(target, steps, ended, request.prefixes)
            request.prefixes += prefix
            new = new or bool(found or prefix)
        return new

    def _shrunk(self, edit: VerifiedEdit) -> VerifiedEdit:
        """The smallest edit on the line from the model that holds and decodes what this one does."""
        problem = self._model.joint_problem(self._inputs(), self._references, **self._overrides)
        low, high = 0.0, 1.0
        whole = edit.result.patch
        before = parameters_of(self._model, whole.changes)
        if not before.keys() <= problem.parameters.keys():
            return edit  # `l_e` of such an edit is not known without making it
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            changes = scaled(whole.changes, before, middle)
            if changes is None:
                return edit
            loss = problem({**problem.parameters, **changed_values(changes, before)}).item()
            patch = dataclasses.replace(whole, changes=changes, loss_after=loss)
            smaller = dataclasses.replace(edit.result, loss=loss, patch=patch)
            search = self._generate(patch, self._limit) if loss <= 0 else None
            found = search and self._verified(smaller, edit.rounds, search)
            if found and all(now or not before for now, before in zip(found.decoded, edit.decoded, strict=True)):
                edit, high = found, middle
            else:
                low = middle
        return edit


def shortened(collator: DataCollatorForEditableSeq2Seq, texts: Sequence[str]) -> list[str]:
    """Translations that an edit can take: of endless ones, as much as the model has positions for."""
    longest, tokenizer = collator.max_target_length, collator.tokenizer
    if longest is None:
        return list(texts)
    fitting = []
    for text in texts:
        # Once more if the text that is left has more tokens than were left.
        most = longest
        while len(ids := tokenizer(text_target=text, verbose=False).input_ids) > longest:
            most -= 2
            text = tokenizer.decode(ids[:most], skip_special_tokens=True).strip()
        fitting.append(text)
    return fitting


def _pushing_out(
    target: list[int], live: list[list[list[int]]], found: list[list[int]], known: list[list[int]]
) -> list[list[int]]:
    """
    The lowest-ranked of the prefixes in the beam where it first has none of the target's, or of the translations that
    ended the search while it had one; of those known, the next higher.

    Args:
        target (`list[int]`): the target's tokens.
        live (`list[list[list[int]]]`): the prefixes in the beam, best first, at each step.
        found (`list[list[int]]`): the tokens of the translations found, best first.
        known (`list[list[int]]`): prefixes that the target is already to outrank.

    Returns:
        `list[list[int]]`: one prefix, or none if there is no new one.
    """
    ended = [tokens[: len(target)] for tokens in found]
    for prefixes in (*without_prefix(target, live)[:1], ended):
        for prefix in reversed(prefixes):
            if prefix != target[: len(prefix)] and prefix not in known:
                return [prefix]
    return []
