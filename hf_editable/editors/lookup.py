"""A table of corrected translations beside the model."""

import torch
from torch import Tensor

from ..decoding.generation import frozen
from ..numerics.scoring import PADDING
from ..patches.changes import Lookup
from .problems.constraint import constraint_value
from .problems.translation_problem import JointEditProblem, TranslationEditProblem
from .protocol import Editor, EditOutcome
from .registry import register_editor


class ExactMatchCache(Editor):
    """
    A lookup table: exactly this source gets exactly this target, and the model stays as it is.

    What users do without editing. Nothing else changes, and nothing is learnt: a source with another comma is
    translated as before. *Decode success* is by definition; *success*, which asks the model's own scores, is not.
    """

    def forward(self, problem: TranslationEditProblem | JointEditProblem, create_graph: bool = False) -> EditOutcome:
        """See [`Editor`]."""
        with frozen(problem.model), torch.inference_mode(False):
            loss = constraint_value(problem.model, problem.edits, problem.length_penalty)
        table = {_ids(edit["input_ids"][0], edit["attention_mask"]): _ids(edit["labels"][0]) for edit in problem.edits}
        return EditOutcome({}, torch.tensor(loss), loss, 0, (Lookup(table),))


def _ids(row: Tensor, mask: Tensor | None = None) -> tuple[int, ...]:
    kept = row[row != PADDING] if mask is None else row[mask[0].bool()]
    return tuple(kept.tolist())


register_editor("cache", None, ExactMatchCache)
