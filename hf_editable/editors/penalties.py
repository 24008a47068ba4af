"""The gradient editor, held back from disturbing other translations by a penalty on its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import check_count
from ..configuration import EditConfig
from ..errors import EditableValueError
from ..numerics.scoring import cross_entropy, num_tokens, token_kl
from ..tail.trunk_states import TrunkStates
from .optimizers import gradient_editor
from .problems.translation_problem import JointEditProblem, TranslationEditProblem
from .protocol import Editor, EditOutcome, Tunable
from .registry import register_editor


Problem = TranslationEditProblem | JointEditProblem
Penalty = Callable[[dict[str, Tensor]], Tensor]
_BATCH = 16


@dataclass(frozen=True)
class PenaltyOptions:
    """
    Settings of a [`PenalizedEditor`].

    Args:
        weight (`float`, *optional*): of the penalty against `l_e`; `None` takes the editor's own, 0 has no penalty.
        num_pairs (`int`, *optional*): how many of the references are taken, at random; `None` takes the editor's own.
        pairs_seed (`int`, *optional*, defaults to `0`): of that choice.

    Raises:
        EditableValueError: if a number is out of range.
    """

    weight: float | None = None
    num_pairs: int | None = None
    pairs_seed: int = 0

    def __post_init__(self):
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise EditableValueError(f"weight={self.weight!r}: it must be 0 or a number above it, such as 1.0.")
        if self.num_pairs is not None:
            check_count("num_pairs", self.num_pairs)
        check_count("pairs_seed", self.pairs_seed, least=0)


class _PenalizedProblem:
    """`l_e`, whose gradient is that of `l_e + weight · penalty`: the edit still stops at `l_e ≤ 0`."""

    def __init__(self, problem: Problem, penalty: Penalty, weight: float):
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


class PenalizedEditor(Editor):
    """
    Base class: the gradient editor on `l_e + weight · penalty`, stopped at `l_e ≤ 0` or after `max_steps`. It needs
    references, on which the penalty is measured.
    """

    needs_references = True
    default_weight: ClassVar[float] = 1.0
    default_num_pairs: ClassVar[int] = 16

    def __init__(self, config: EditConfig, options: PenaltyOptions, model: PreTrainedModel | None = None):
        super().__init__(config, options, model)
        self.steps = gradient_editor(config)
        self.weight = self.default_weight if options.weight is None else options.weight
        self.num_pairs = self.default_num_pairs if options.num_pairs is None else options.num_pairs

    def penalty(self, problem: Problem) -> Penalty:
        """
        The penalty as a function of the edited parameters; 0 or more, differentiable.

        Args:
            problem ([`TranslationEditProblem`]): has the model before the edit, its tail and the references.
        """
        raise NotImplementedError(f"{type(self).__name__} has no penalty().")

    def forward(self, problem: Problem, create_graph: bool = False) -> EditOutcome:
        """See [`Editor`]."""
        with torch.inference_mode(False):
            return self.steps(_PenalizedProblem(problem, self.penalty(problem), self.weight))

    def own_tensors(self) -> dict[str, Tensor]:
        """None: the coefficients are in the configuration."""
        return {}

    def tunables(self) -> dict[str, Tunable]:
        """Those of the gradient editor, and the weight of the penalty."""
        weights = tuple(self.default_weight * factor for factor in (0.1, 1.0, 10.0))
        return {**self.steps.tunables(), "weight": Tunable(weights)}

    @torch.no_grad()
    def recorded(self, problem: Problem) -> list[tuple[TrunkStates, Tensor]]:
        """The references' trunk states and labels, in batches."""
        batch = problem.references.batch(problem.model, self.num_pairs, self.options.pairs_seed)
        parts = [batch[name].split(_BATCH) for name in ("input_ids", "attention_mask", "labels")]
        return [(problem.tail.record(*part), part[2]) for part in zip(*parts, strict=True)]


class KLPenaltyEditor(PenalizedEditor):
    """
    The gradient editor with a penalty on the change of other translations' predictions: `KL(unedited ‖ edited)` in
    nats, averaged over the tokens of the references (the paper's eq. 4 as a term of the edit, not of the training).

    Example:

    ```python
    >>> references = References(tokenizer, data["train"])  # doctest: +SKIP
    >>> model.edit(**edit, editor="kl", weight=10.0, references=references)  # doctest: +SKIP
    ```
    """

    default_weight = 10.0

    def penalty(self, problem: Problem) -> Penalty:
        """See [`PenalizedEditor`]."""
        recorded, tail = self.recorded(problem), problem.tail
        with torch.no_grad():
            predicted = [tail.logits(states) for states, _ in recorded]
        tokens = sum(num_tokens(labels) for _, labels in recorded)

        def divergence(parameters: dict[str, Tensor]) -> Tensor:
            pairs = zip(recorded, predicted, strict=True)
            total = [
                token_kl(reference, tail.logits(states, parameters), labels).sum()
                for (states, labels), reference in pairs
            ]
            return torch.stack(total).sum() / tokens

        return divergence


class RehearsalEditor(PenalizedEditor):
    """
    The gradient editor that rehearses other translations at every step: the mean token cross-entropy of the
    references, in nats.
    """

    def penalty(self, problem: Problem) -> Penalty:
        """See [`PenalizedEditor`]."""
        recorded, tail = self.recorded(problem), problem.tail
        tokens = sum(num_tokens(labels) for _, labels in recorded)
        return lambda parameters: torch.stack(
            [cross_entropy(tail.logits(states, parameters), labels, num_items=tokens) for states, labels in recorded]
        ).sum()


class ElasticWeightConsolidation(PenalizedEditor):
    """
    The gradient editor with elastic weight consolidation ([Kirkpatrick et al.,
    2017](https://arxiv.org/abs/1612.00796)), a baseline of the paper: `½ · Σ F_i · (θ'_i − θ_i)²`, θ the model that is
    edited.

    F is the diagonal of the empirical Fisher information: the squared gradient of a reference's log-probability,
    averaged over references. It is estimated once for a model object, a configuration and references, with the
    weights that the model has at the first edit.
    """

    default_weight = 1000.0
    default_num_pairs = 128

    def penalty(self, problem: Problem) -> Penalty:
        """See [`PenalizedEditor`]."""
        tail, references = problem.tail, problem.references
        key = ("fisher", tuple(tail.parameters), self.num_pairs, self.options.pairs_seed)
        fisher = references.once(problem.model, key, lambda: self.fisher_information(problem))
        start = {name: parameter.detach().clone() for name, parameter in tail.parameters.items()}

        def distance(parameters: dict[str, Tensor]) -> Tensor:
            terms = [
                (fisher[name] * (value.float() - start[name].float()).square()).sum()
                for name, value in parameters.items()
            ]
            return 0.5 * torch.stack(terms).sum()

        return distance

    def fisher_information(self, problem: Problem) -> dict[str, Tensor]:
        """
        The diagonal of the empirical Fisher information of the edited parameters.

        Args:
            problem ([`TranslationEditProblem`]): has the tail and the references.

        Returns:
            `dict[str, torch.Tensor]`: in float32, of the parameters' shapes, by their names.
        """
        tail = problem.tail
        points = {name: tensor.detach().clone().requires_grad_() for name, tensor in tail.parameters.items()}
        sums = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in points.items()}
        count = 0
        for states, labels in self.recorded(problem):
            for row in range(labels.shape[0]):
                with torch.enable_grad():
                    logits = tail.logits(states.rows([row]), points)
                    loss = cross_entropy(logits, labels[row : row + 1], num_items=1)
                gradients = torch.autograd.grad(loss, list(points.values()), materialize_grads=True)
                for name, gradient in zip(points, gradients, strict=True):
                    sums[name] += gradient.detach().float().square()
                count += 1
        return {name: total / count for name, total in sums.items()}


register_editor("kl", PenaltyOptions, KLPenaltyEditor)
register_editor("rehearsal", PenaltyOptions, RehearsalEditor)
register_editor("ewc", PenaltyOptions, ElasticWeightConsolidation)
