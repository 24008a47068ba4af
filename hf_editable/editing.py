"""The edit of a translation as an editor's problem: make a target outrank its alternatives."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from .errors import EditableValueError
from .families import beam_search_tokens, max_positions
from .scoring import PADDING, constraint_loss, sequence_scores
from .tail import Tail, TrunkStates


class TranslationEditProblem:
    """
    `l_e(θ) = max_i s(y_i|x, θ) − s(y_0|x, θ)` as a function of the edited parameters (paper, section 4.3).

    All alternatives are scored without a graph; only the target and the highest-scoring alternative, through which
    the gradient of the maximum flows, are scored with one.

    Args:
        tail ([`Tail`]): what is edited.
        input_ids (`torch.LongTensor` of shape `(1, source_length)`): the source x.
        attention_mask (`torch.LongTensor` of shape `(1, source_length)`, *optional*): its mask.
        labels (`torch.LongTensor` of shape `(1, target_length)`): the target y_0, −100 on padding.
        alternative_labels (`torch.LongTensor` of shape `(1, alternatives, length)`):
            Alternatives y_i, −100 on padding. Empty rows, and rows equal to the target, are left out.
        length_penalty (`float`): λ of the scores.
        create_graph (`bool`, *optional*, defaults to `False`):
            Whether gradients will be differentiated again, and reach the trunk.

    Raises:
        EditableValueError: if the target is empty, or no alternative is left.
    """

    def __init__(
        self,
        tail: Tail,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor,
        alternative_labels: Tensor,
        length_penalty: float,
        create_graph: bool = False,
    ):
        self.parameters: dict[str, Tensor] = dict(tail.parameters)
        self.length_penalty = length_penalty
        self.create_graph = create_graph
        self._tail = tail
        self._source = (input_ids, attention_mask)
        self._labels = candidates(labels, alternative_labels)
        self._scored = beam_search_tokens(tail.model, self._labels)
        with torch.no_grad():
            self._states = tail.record(*self._source, self._labels)
        tail.check_exact(self._states)
        self._pairs: dict[int, TrunkStates] = {}

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """`l_e` at the given parameters; above 0 it carries a graph."""
        with torch.no_grad():
            scores = self._scores(self._tail.logits(self._states, parameters))
            value = constraint_loss(scores)
        if not value > 0:
            return value
        winner = 1 + int(scores[1:].argmax())
        with torch.enable_grad():
            logits = self._tail.logits(self._pair(winner), parameters, double_backward=self.create_graph)
            loss = constraint_loss(self._scores(logits, [0, winner]))
        # Two sequences and all of them differ by rounding; the value that decides is the one over all.
        return loss + (value - loss).detach()

    def _scores(self, logits: Tensor, rows: slice | list[int] = slice(None)) -> Tensor:
        labels, lengths = self._scored
        return sequence_scores(logits, labels[rows], self.length_penalty, lengths[rows])

    def _pair(self, winner: int) -> TrunkStates:
        """Trunk states of the target and one alternative; with a graph, if the trunk is trained through them."""
        if winner not in self._pairs:
            rows = [0, winner]
            self._pairs[winner] = (
                self._tail.record(*self._source, self._labels[rows]) if self.create_graph else self._states.rows(rows)
            )
        return self._pairs[winner]


def check_edit(
    config: PreTrainedConfig, input_ids: Tensor, labels: Tensor | None, alternative_labels: Tensor | None
) -> None:
    """
    Refuse what no model with this configuration can be edited to.

    Raises:
        EditableValueError: if something is missing, of another shape, or longer than the model takes.
    """
    if labels is None or alternative_labels is None:
        raise EditableValueError("An edit needs labels (the wanted translation) and alternative_labels.")
    if input_ids.dim() != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] == 0:
        raise EditableValueError(f"input_ids of shape {tuple(input_ids.shape)}: one edit has (1, source_length).")
    tokens = {
        ("source", "encoder"): input_ids.shape[1],
        ("target", "decoder"): int((labels != PADDING).sum(-1).max()),
        ("longest alternative", "decoder"): int((alternative_labels != PADDING).sum(-1).max()),
    }
    for (name, side), length in tokens.items():
        longest = max_positions(config, side)
        if longest is not None and length > longest:
            raise EditableValueError(f"The edit's {name} is {length} tokens long; the model takes {longest} at most.")


def candidates(labels: Tensor, alternative_labels: Tensor) -> Tensor:
    """
    The target and its alternatives in one tensor.

    Args:
        labels (`torch.LongTensor` of shape `(1, target_length)`): the target, −100 on padding.
        alternative_labels (`torch.LongTensor` of shape `(1, alternatives, length)`): alternatives.

    Returns:
        `torch.LongTensor` of shape `(1 + alternatives left, longest)`: the target first.

    Raises:
        EditableValueError: if the shapes are others, the target is empty, or no alternative is left.
    """
    if labels.dim() != 2 or alternative_labels.dim() != 3 or not len(labels) == len(alternative_labels) == 1:
        raise EditableValueError(
            f"labels of shape {tuple(labels.shape)}, alternative_labels of shape {tuple(alternative_labels.shape)}: "
            "one edit has (1, target_length) and (1, alternatives, length)."
        )
    width = max(labels.shape[-1], alternative_labels.shape[-1])
    target, alternatives = (
        torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]), value=PADDING)
        for tensor in (labels[0], alternative_labels[0])
    )
    if bool((target == PADDING).all()):
        raise EditableValueError(
            "The target of the edit is empty. Give the translation that the model should produce."
        )
    useful = (alternatives != PADDING).any(-1) & (alternatives != target).any(-1)
    if not bool(useful.any()):
        raise EditableValueError(
            "Every alternative is empty or equal to the target, so there is nothing for the target to outrank. "
            "Give alternatives that differ from it, such as the model's own translation."
        )
    rows = torch.cat([target.unsqueeze(0), alternatives[useful]])
    return rows[:, : int((rows != PADDING).any(0).nonzero().max()) + 1]
