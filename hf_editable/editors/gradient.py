"""Differentiable editors: from an edit problem to edited parameters, through the steps of a gradient optimizer.

An editor asks its problem for `l_e` at some parameters and steps against the gradient until `l_e ≤ 0` (paper, eq. 1).
With `create_graph=True` the edited parameters are a differentiable function of the original ones and of the editor's
own coefficients, which is what Editable Training needs.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..errors import NonFiniteEditError
from ..models.private_names import check_private_names
from ..numerics.gradients import recomputed
from ..patches.changes import Whole
from .coefficients import POSITIVE, Coefficient
from .factors import StepFactors, agree, noted_factors
from .problems.edit_term import EditTerm
from .protocol import Editor, EditOutcome, EditProblem, Tunable


check_private_names(__name__)


# Values of the optimizers' other coefficients that tuning tries.
_TUNED = {"beta": (0.5, 0.9, 0.99), "momentum": (0.5, 0.9)}


class GradientEditor(Editor):
    """
    Base class of the editors that take steps against the gradient of `l_e`. Its only parameters are the learnable
    coefficients of the optimizer, in a form that keeps them valid (the learning rate as its logarithm, decays through
    a sigmoid).

    Args:
        config ([`EditConfig`]): initial coefficients, `epsilon`, `max_steps`, `learn_coefficients`.
        options, model (*optional*): it has no use for them.
    """

    is_differentiable = True
    # Whether all steps together subtract a weighted sum of their gradients, which has few dimensions.
    sums_gradients: ClassVar[bool] = False
    # Where the search for a step size begins.
    rates: ClassVar[tuple[float, float]] = (1e-2, 1.0)
    _coefficients: ClassVar[dict[str, Coefficient]] = {"learning_rate": POSITIVE}

    def __init__(self, config: EditConfig, options: Any = None, model: PreTrainedModel | None = None):
        super().__init__(config, options, model)
        self.epsilon = config.epsilon
        self.checkpoint = config.checkpoint_edits
        self.max_steps = config.max_steps
        self._given = {}
        for name in self._coefficients:
            self.register_parameter(
                f"raw_{name}", nn.Parameter(torch.zeros(()), requires_grad=config.learn_coefficients)
            )
        self.load_coefficients({name: getattr(config, name) for name in self._coefficients})

    def load_coefficients(self, values: Mapping[str, float]) -> None:
        """Set the coefficients, in place, to those that `coefficients` returned."""
        for name, coefficient in self._coefficients.items():
            raw = torch.tensor(coefficient.raw(values[name]), dtype=torch.float32)
            self._raw(name).data.copy_(raw)
            self._given[name] = (values[name], raw.item())

    @torch.no_grad()
    def coefficients(self) -> dict[str, float]:
        """The coefficients' present values, exact enough that `load_coefficients` restores every bit of them."""
        values = {}
        for name, coefficient in self._coefficients.items():
            given, raw_given = self._given[name]
            raw = self._raw(name)
            # Beyond ±30 a sigmoid is 0 or 1 to the last digit, which is no valid coefficient.
            learned = coefficient.value(raw.double().clamp(-30.0, 30.0)).item()
            values[name] = given if raw.item() == raw_given else learned
        return values

    def own_tensors(self) -> dict[str, Tensor]:
        """None: the coefficients are in the configuration."""
        return {}

    def load_own_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """See `own_tensors`."""

    def logs(self) -> dict[str, float]:
        """The step size α of edits, as it is."""
        return {"editor_learning_rate": self.coefficients()["learning_rate"]}

    def tunables(self) -> dict[str, Tunable]:
        """The optimizer's coefficients."""
        others = {name: Tunable(_TUNED[name]) for name in self._coefficients if name in _TUNED}
        return {"learning_rate": Tunable(self.rates, scale=True), **others}

    def _raw(self, name: str) -> nn.Parameter:
        return getattr(self, f"raw_{name}")

    def _value(self, name: str) -> Tensor:
        return self._coefficients[name].value(self._raw(name))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GradientEditor":
        # `model.half()` must move the coefficients, not round them: log(1e-3) in bfloat16 is 3 % off.
        return super()._apply(lambda tensor: tensor.to(fn(tensor.clone()).device), recurse)

    def update(self, values: list[Tensor], gradients: list[Tensor], state: dict) -> list[Tensor]:
        """
        Parameters after a step; without a graph, in the place of those before it.

        Args:
            values (`list[torch.Tensor]`): the edited parameters.
            gradients (`list[torch.Tensor]`): gradient of `l_e` with respect to each of them.
            state (`dict`): empty at an edit's first step; the editor keeps its running values in it.
        """
        learning_rate, directions = self._value("learning_rate"), self.direction(gradients, state)
        if torch.is_grad_enabled():
            return [value - learning_rate * way for value, way in zip(values, directions, strict=True)]
        return [value.sub_(learning_rate * way) for value, way in zip(values, directions, strict=True)]

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        """What the learning rate is multiplied with, from what `update` is given."""
        raise NotImplementedError

    def forward(self, problem: EditProblem, create_graph: bool = False) -> EditOutcome:
        """
        Edit until `l_e ≤ 0` or `max_steps` steps are taken.

        Args:
            problem ([`EditProblem`]): gives `l_e` and the parameters to start from, which stay as they are.
            create_graph (`bool`, *optional*, defaults to `False`):
                Make the outcome differentiable. With `checkpoint_edits`, for which the problem needs a `term`, steps
                are taken again in the backward pass; else the graph of every step is kept.

        Raises:
            NonFiniteEditError: if `l_e` becomes NaN or infinite.
        """
        names = list(problem.parameters)
        dtypes = [parameter.dtype for parameter in problem.parameters.values()]
        master = [_master(parameter, create_graph) for parameter in problem.parameters.values()]
        recompute = create_graph and self.checkpoint

        def current(values: list[Tensor]) -> dict[str, Tensor]:
            return {name: value.to(dtype) for name, value, dtype in zip(names, values, dtypes, strict=True)}

        def evaluate() -> EditTerm:
            term = problem.term(current(master)) if recompute else _whole(problem(current(master)))
            _check_finite(term.value, steps)
            return term

        state: dict[str, Any] = {}
        steps = 0
        with noted_factors(problem, self.sums_gradients and not create_graph) as factors:
            term = evaluate()
            initial_loss = term.value.item()
            while term.value > 0 and steps < self.max_steps:
                if recompute:
                    master, state = self._step_recomputed(term, current, master, state)
                else:
                    master = self._step(term.value, master, state, create_graph, factors)
                if not create_graph:
                    master = [value.requires_grad_() for value in master]
                steps += 1
                term = evaluate()
        edited = current(master)
        if not create_graph:
            edited = {name: tensor.detach() for name, tensor in edited.items()}
        outcome = EditOutcome(edited, term.loss(edited, term.inputs), initial_loss, steps)
        return outcome if factors is None or not steps else self._in_factors(problem, outcome, factors, state)

    def _step(
        self,
        loss: Tensor,
        master: list[Tensor],
        state: dict[str, Any],
        create_graph: bool,
        factors: StepFactors | None = None,
    ) -> list[Tensor]:
        wanted = [*master, *([] if factors is None else factors.outputs())]
        # Experts that no token is routed to have no gradient.
        gradients = torch.autograd.grad(loss, wanted, create_graph=create_graph, materialize_grads=True)
        if factors is not None:
            factors.add(gradients[len(master) :])
        with torch.set_grad_enabled(create_graph):
            return self.update(master, list(gradients[: len(master)]), state)

    def shares(self, steps: int, state: dict[str, Any]) -> list[float]:
        """
        With which factor each step's gradient was subtracted in all, for optimizers with `sums_gradients`.

        Args:
            steps (`int`): how many steps there were.
            state (`dict`): the editor's running values after them.
        """
        raise NotImplementedError(f"{type(self).__name__} takes other steps than sums of gradients.")

    def _in_factors(
        self, problem: EditProblem, outcome: EditOutcome, factors: StepFactors, state: dict[str, Any]
    ) -> EditOutcome:
        """The outcome with low-rank changes in place of whole weights, if it is as good with these."""
        before, after = problem.parameters, outcome.parameters
        changes = factors.changes(self.shares(outcome.steps, state))
        changes = [each for each in changes if agree(each, before[each.name], after[each.name])]
        if not changes:
            return outcome
        values = {each.name: each.values(before)[each.name].detach() for each in changes}
        rest = {name: value for name, value in after.items() if name not in values}
        loss = problem({**rest, **values}).detach()
        if bool(loss <= 0) != bool(outcome.loss <= 0):
            return outcome
        whole = (Whole(rest),) if rest else ()
        ordered = {name: values.get(name, value) for name, value in after.items()}
        return EditOutcome(ordered, loss, outcome.initial_loss, outcome.steps, (*whole, *changes))

    def _step_recomputed(
        self,
        term: EditTerm,
        current: Callable[[list[Tensor]], dict[str, Tensor]],
        master: list[Tensor],
        state: dict[str, Any],
    ) -> tuple[list[Tensor], dict[str, Any]]:
        """A step that keeps what it starts from, instead of its graph."""
        values, names = _flat(state)
        after: dict[str, Any] = {}

        def step(tensors: list[Tensor], create_graph: bool) -> list[Tensor]:
            own, others = tensors[: len(master)], tensors[len(master) :]
            after.clear()
            after.update(_nested(others[: len(values)], names))
            loss = term.loss(current(own), others[len(values) :])
            return [*self._step(loss, own, after, create_graph), *_flat(after)[0]]

        inputs = [*master, *values, *term.inputs]
        # A model owns its editor, so some may be there twice.
        leaves = {id(weight): weight for weight in (*term.parameters, *self.parameters())}
        found = recomputed(step, inputs, list(leaves.values()))
        return found[: len(master)], _nested(found[len(master) :], _flat(after)[1])


def _master(parameter: Tensor, differentiable: bool) -> Tensor:
    """The parameter as the optimizer sees it: at least float32, as half precision would swallow small steps."""
    if not (differentiable and parameter.requires_grad):
        parameter = parameter.detach().clone().requires_grad_()
    if parameter.dtype in (torch.float16, torch.bfloat16):
        parameter = parameter.float()
        return parameter if differentiable else parameter.detach().requires_grad_()
    return parameter


def _flat(state: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """The tensors of an editor's state, and what and how many there are under each name."""
    tensors, shape = [], {}
    for name, value in state.items():
        if isinstance(value, int):
            shape[name] = ("number", value)
        else:
            items = value if isinstance(value, list) else [value]
            tensors += items
            shape[name] = ("list", len(items)) if isinstance(value, list) else ("tensor", 1)
    return tensors, shape


def _nested(tensors: list[Tensor], shape: dict[str, Any]) -> dict[str, Any]:
    """The state that `_flat` took apart."""
    left, state = iter(tensors), {}
    for name, (kind, count) in shape.items():
        items = [] if kind == "number" else [next(left) for _ in range(count)]
        state[name] = count if kind == "number" else items if kind == "list" else items[0]
    return state


def _whole(loss: Tensor) -> "EditTerm":
    """`l_e` that carries its own graph."""
    return EditTerm(loss, lambda parameters, inputs: loss, [], [])


def _check_finite(loss: Tensor, steps: int) -> None:
    if not torch.isfinite(loss):
        raise NonFiniteEditError(
            f"l_e of the edit is {loss.item()} after {steps} steps; the model is unchanged. Check its weights for "
            "NaN, or lower the learning rate of the edit."
        )
