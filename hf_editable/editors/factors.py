"""
What steps against the gradient add to linear weights, in factors: the gradient of a weight is a sum of outer products,
one a token, so plain steps change a large matrix by one of low rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..patches.changes import LowRank
from ..tail.linear_capture import LinearCalls
from .problems.translation_problem import JointEditProblem, TranslationEditProblem
from .protocol import EditProblem


# Of the largest change of an entry: what rounding may come to between a sum of gradients and their factors.
_TOLERANCE = 1e-3


class StepFactors:
    """
    Inputs of the edited linear layers, and gradients of `l_e` with respect to their outputs, step by step.

    Args:
        calls (`dict[str, LinearCalls]`): where [`Tail.capture_linear`] notes the calls of the layers.
    """

    def __init__(self, calls: dict[str, LinearCalls]):
        self._calls = calls
        self._steps: list[dict[str, tuple[Tensor, Tensor]]] = []
        self._pending: list[tuple[str, Tensor, Tensor]] = []

    def outputs(self) -> list[Tensor]:
        """What the layers gave since the last step, as far as it has a graph; their gradients are for `add`."""
        self._pending = []
        for name, calls in self._calls.items():
            pairs = zip(calls.inputs, calls.outputs, strict=True)
            self._pending += [(name, given.detach(), output) for given, output in pairs if output.requires_grad]
            calls.inputs.clear()
            calls.outputs.clear()
        return [output for *_, output in self._pending]

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take in the gradients of a step."""
        step: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for (name, given, _), gradient in zip(self._pending, gradients, strict=True):
            used = gradient.detach().any(-1)
            step.setdefault(name, []).append((given[used], gradient.detach()[used]))
        self._steps.append({name: tuple(map(torch.cat, zip(*each, strict=True))) for name, each in step.items()})
        self._pending = []

    def changes(self, shares: Sequence[float]) -> list[LowRank]:
        """
        What the steps add to the weights, where that is smaller than the weights.

        Args:
            shares (`Sequence[float]`): with which factor each step's gradient was subtracted in all.
        """
        found = []
        for name in self._calls:
            parts = [(step[name], share) for step, share in zip(self._steps, shares, strict=True) if name in step]
            if not parts:
                continue
            right = torch.cat([given for (given, _), _ in parts]).float().T.contiguous()
            left = torch.cat([-share * gradient.float() for (_, gradient), share in parts]).T.contiguous()
            if left.numel() + right.numel() < left.shape[0] * right.shape[0]:
                found.append(LowRank(name, left, right))
        return found


@contextmanager
def noted_factors(problem: EditProblem, wanted: bool) -> Iterator[StepFactors | None]:
    """Factors of the steps that are taken inside the block; `None` if they are not wanted, or the problem has none."""
    if wanted and isinstance(problem, TranslationEditProblem | JointEditProblem):
        with problem.tail.capture_linear() as calls:
            yield StepFactors(calls)
    else:
        yield None


def agree(change: LowRank, before: Tensor, after: Tensor) -> bool:
    """Whether a change comes to what the steps came to, but for rounding."""
    value = change.values({change.name: before.detach()})[change.name].float()
    moved = (after.float() - before.detach().float()).abs().max()
    return bool((value - after.float()).abs().max() <= _TOLERANCE * moved)
