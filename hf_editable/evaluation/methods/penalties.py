"""The gradient editor, held back from disturbing other translations by a penalty on its steps."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ...editors.problem import TranslationEditProblem
from ...editors.registry import make_editor
from ...editors.result import EditResult
from ...errors import EditableValueError
from ...modeling.mixin import EditableMixin
from ...numerics.scoring import cross_entropy, num_tokens, token_kl
from ...tail.decoder_tail import Tail
from ...tail.trunk_states import TrunkStates
from .base import PairSample, method_config, method_result


Penalty = Callable[[dict[str, Tensor]], Tensor]
_BATCH = 16


class _PenalizedProblem:
    """`l_e`, whose gradient is that of `l_e + weight · penalty`: the edit still stops at `l_e ≤ 0`."""

    def __init__(self, problem: TranslationEditProblem, penalty: Penalty, weight: float):
        self.parameters = problem.parameters
        self._problem = problem
        self._penalty = penalty
        self._weight = weight

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        loss = self._problem(parameters)
        if not loss > 0:
            return loss
        with torch.enable_grad():
            penalty = self._weight * self._penalty(parameters)
        return loss + (penalty - penalty.detach())


class PenalizedEditor:
    """
    Base class: the model's own editor on `l_e + weight · penalty`, stopped at `l_e ≤ 0` or after `max_steps`.

    Args:
        weight (`float`): of the penalty; 0 makes the edits of [`EditableMixin.edit`].
        sample ([`PairSample`]): the translation pairs that the penalty is measured on.

    Raises:
        EditableValueError: if the weight is below 0 or not finite.
    """

    name = "penalized"
    default_weight = 1.0
    default_num_pairs = 16

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Sequence[Mapping[str, str]],
        weight: float | None = None,
        num_pairs: int | None = None,
        seed: int = 0,
    ):
        weight = self.default_weight if weight is None else weight
        sample = PairSample(tokenizer, pairs, self.default_num_pairs if num_pairs is None else num_pairs, seed)
        if not 0 <= weight < float("inf"):
            raise EditableValueError(f"weight={weight!r}: it must be 0 or a number above it, such as 1.0.")
        self.weight = weight
        self.sample = sample
        self.arguments: dict[str, Any] = {"method": self.name, "weight": weight, **sample.arguments}

    def penalty(self, model: EditableMixin, tail: Tail) -> Penalty:
        """
        The penalty as a function of the edited parameters; 0 or more, differentiable.

        Args:
            model ([`EditableMixin`]): the model before the edit.
            tail ([`Tail`]): the part of it that the edit moves.
        """
        raise NotImplementedError

    def __call__(self, model: EditableMixin, inputs: Mapping[str, Tensor], **overrides: Any) -> EditResult:
        """See [`EditMethod`]."""
        config = method_config(model, inputs, overrides)
        editor = make_editor(config).to(model.device)
        with torch.inference_mode(False):
            tail = Tail(model, config)
            problem = model.edit_problem(tail, **inputs, config=config)
            penalized = _PenalizedProblem(problem, self.penalty(model, tail), self.weight)
            with torch.enable_grad():
                outcome = editor(penalized)
        losses = (outcome.initial_loss, outcome.loss.item())
        return method_result(model, config, outcome.parameters, losses, outcome.steps)

    @torch.no_grad()
    def _recorded(self, model: EditableMixin, tail: Tail) -> list[tuple[TrunkStates, Tensor]]:
        """The sample's trunk states and labels, in batches."""
        batch = self.sample.batch(model)
        parts = [batch[name].split(_BATCH) for name in ("input_ids", "attention_mask", "labels")]
        return [(tail.record(*part), part[2]) for part in zip(*parts, strict=True)]


class KLPenaltyEditor(PenalizedEditor):
    """
    The editor with a penalty on the change of other translations' predictions: `KL(unedited ‖ edited)`, averaged over
    the tokens of a fixed sample (the paper's eq. 4 as a term of the edit, not of the training).

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        pairs (`Sequence[dict[str, str]]`): rows with `source` and `target`, other than what is measured afterwards.
        weight (`float`, *optional*, defaults to `10.0`): of the KL divergence, in nats a token, against `l_e`.
        num_pairs (`int`, *optional*, defaults to `16`): how many of `pairs` are taken, at random.
        seed (`int`, *optional*, defaults to `0`): of that choice.

    Raises:
        EditableValueError: if a number is out of range, or there are no pairs.

    Example:

    ```python
    >>> from hf_editable.evaluation.methods import KLPenaltyEditor

    >>> method = KLPenaltyEditor(tokenizer, data["train"])  # doctest: +SKIP
    >>> report = evaluate_edits(model, tokenizer, edits, data["test"], method=method)  # doctest: +SKIP
    ```
    """

    name = "kl"
    default_weight = 10.0

    def penalty(self, model: EditableMixin, tail: Tail) -> Penalty:
        """See [`PenalizedEditor`]."""
        recorded = self._recorded(model, tail)
        with torch.no_grad():
            references = [tail.logits(states) for states, _ in recorded]
        tokens = sum(num_tokens(labels) for _, labels in recorded)

        def divergence(parameters: dict[str, Tensor]) -> Tensor:
            pairs = zip(recorded, references, strict=True)
            total = [
                token_kl(reference, tail.logits(states, parameters), labels).sum()
                for (states, labels), reference in pairs
            ]
            return torch.stack(total).sum() / tokens

        return divergence


class RehearsalEditor(PenalizedEditor):
    """
    The editor that rehearses other translations at every step: token cross-entropy of a fixed sample of pairs.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        pairs (`Sequence[dict[str, str]]`): rows with `source` and `target`, those the model was trained on.
        weight (`float`, *optional*, defaults to `1.0`): of the mean cross-entropy of a token, in nats, against `l_e`.
        num_pairs (`int`, *optional*, defaults to `16`): how many of `pairs` are taken, at random.
        seed (`int`, *optional*, defaults to `0`): of that choice.

    Raises:
        EditableValueError: if a number is out of range, or there are no pairs.
    """

    name = "rehearsal"

    def penalty(self, model: EditableMixin, tail: Tail) -> Penalty:
        """See [`PenalizedEditor`]."""
        recorded = self._recorded(model, tail)
        tokens = sum(num_tokens(labels) for _, labels in recorded)
        return lambda parameters: torch.stack(
            [cross_entropy(tail.logits(states, parameters), labels, num_items=tokens) for states, labels in recorded]
        ).sum()


class ElasticWeightConsolidation(PenalizedEditor):
    """
    The editor with elastic weight consolidation ([Kirkpatrick et al., 2017](https://arxiv.org/abs/1612.00796)), a
    baseline of the paper: `½ · Σ F_i · (θ'_i − θ_i)²`, θ the model that is edited.

    F is the diagonal of the empirical Fisher information: the squared gradient of a pair's log-probability, averaged
    over pairs. It is estimated once for a model object and configuration, with the weights it has at the first edit.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        pairs (`Sequence[dict[str, str]]`): rows with `source` and `target`, those the model was trained on.
        weight (`float`, *optional*, defaults to `1000.0`): of the penalty against `l_e`.
        num_pairs (`int`, *optional*, defaults to `128`): how many of `pairs` are taken, at random.
        seed (`int`, *optional*, defaults to `0`): of that choice.

    Raises:
        EditableValueError: if a number is out of range, or there are no pairs.
    """

    name = "ewc"
    default_weight = 1000.0
    default_num_pairs = 128

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def penalty(self, model: EditableMixin, tail: Tail) -> Penalty:
        """See [`PenalizedEditor`]."""
        known = self._known.setdefault(model, {})
        names = tuple(tail.parameters)
        if names not in known:
            known[names] = self.fisher_information(model, tail)
        fisher = known[names]
        start = {name: parameter.detach().clone() for name, parameter in tail.parameters.items()}

        def distance(parameters: dict[str, Tensor]) -> Tensor:
            terms = [
                (fisher[name] * (value.float() - start[name].float()).square()).sum()
                for name, value in parameters.items()
            ]
            return 0.5 * torch.stack(terms).sum()

        return distance

    def fisher_information(self, model: EditableMixin, tail: Tail) -> dict[str, Tensor]:
        """
        The diagonal of the empirical Fisher information of the edited parameters.

        Args:
            model ([`EditableMixin`]): the model.
            tail ([`Tail`]): the part of it that edits move.

        Returns:
            `dict[str, torch.Tensor]`: in float32, of the parameters' shapes, by their names.
        """
        points = {name: tensor.detach().clone().requires_grad_() for name, tensor in tail.parameters.items()}
        sums = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in points.items()}
        count = 0
        for states, labels in self._recorded(model, tail):
            for row in range(labels.shape[0]):
                with torch.enable_grad():
                    logits = tail.logits(states.rows([row]), points)
                    loss = cross_entropy(logits, labels[row : row + 1], num_items=1)
                gradients = torch.autograd.grad(loss, list(points.values()), materialize_grads=True)
                for name, gradient in zip(points, gradients, strict=True):
                    sums[name] += gradient.detach().float().square()
                count += 1
        return {name: total / count for name, total in sums.items()}
