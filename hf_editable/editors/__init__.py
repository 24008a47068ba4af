"""
Editors: from an edit problem to changes of a model. One file or folder is one family, which registers itself; see
docs/extend.md for how to add one.
"""

import importlib
import pkgutil

from .gradient import GradientEditor
from .optimizers import Adam, GradientDescent, Momentum, RMSProp, RProp, ScaledGradientDescent
from .problems.edit_term import EditTerm
from .protocol import Editor, EditOutcome, EditProblem, Tunable
from .registry import editor_names, make_editor, register_editor, unregister_editor


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)

__all__ = [
    "Adam",
    "EditOutcome",
    "EditProblem",
    "EditTerm",
    "Editor",
    "GradientDescent",
    "GradientEditor",
    "Momentum",
    "RMSProp",
    "RProp",
    "ScaledGradientDescent",
    "Tunable",
    "editor_names",
    "make_editor",
    "register_editor",
    "unregister_editor",
]
