"""Editors: from an edit problem to changes of a model."""

from .gradient import GradientEditor
from .optimizers import Adam, GradientDescent, Momentum, RMSProp, RProp, ScaledGradientDescent
from .protocol import EditOutcome, EditProblem, EditTerm
from .registry import make_editor


__all__ = [
    "Adam",
    "EditOutcome",
    "EditProblem",
    "EditTerm",
    "GradientDescent",
    "GradientEditor",
    "Momentum",
    "RMSProp",
    "RProp",
    "ScaledGradientDescent",
    "make_editor",
]
