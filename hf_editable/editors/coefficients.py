"""Coefficients of optimizers that training can learn, in forms that keep them valid."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Coefficient:
    """A coefficient as it is learned: a free number that `value` maps into the coefficient's valid range."""

    value: Callable[[Tensor], Tensor]
    raw: Callable[[float], float]


POSITIVE = Coefficient(torch.exp, math.log)


UNIT = Coefficient(torch.sigmoid, lambda value: math.log(value / (1 - value)))


ADAM_MOMENTUM = Coefficient(
    lambda raw: 0.1 + 0.9 * torch.sigmoid(raw), lambda value: math.log((value - 0.1) / (1 - value))
)
