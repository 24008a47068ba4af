"""What an edit comes to."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from ..models.private_names import check_private_names
from ..models.weights import fingerprint_weights
from ..patches.application import parameters_of
from ..patches.patch import EditPatch
from ..runs.fingerprints import fingerprint
from .protocol import EditOutcome


check_private_names(__name__)


@dataclass
class EditResult:
    """
    What an edit came to.

    Args:
        success (`bool`): whether the target now outranks every alternative, `l_e ≤ 0`.
        steps (`int`): steps taken.
        loss (`float`): `l_e` after the edit.
        initial_loss (`float`): `l_e` before it.
        patch ([`EditPatch`]): the edit, to apply, save or share.
    """

    success: bool
    steps: int
    loss: float
    initial_loss: float
    patch: EditPatch


def edit_result(model: PreTrainedModel, outcome: EditOutcome, editor: str, length_penalty: float) -> EditResult:
    """
    The result of an editor's work on a model, which still is as it was.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        outcome ([`EditOutcome`]): what the editor gave back.
        editor (`str`): its family.
        length_penalty (`float`): λ of the scores in `l_e`.
    """
    loss = outcome.loss.item()
    return EditResult(
        success=loss <= 0,
        steps=outcome.steps,
        loss=loss,
        initial_loss=outcome.initial_loss,
        patch=EditPatch(
            changes=outcome.changes,
            base_fingerprint=fingerprint(parameters_of(model, outcome.changes)),
            loss_before=outcome.initial_loss,
            loss_after=loss,
            steps=outcome.steps,
            length_penalty=length_penalty,
            model_fingerprint=fingerprint_weights(model),
            base_model=model.config._name_or_path or None,
            base_revision=getattr(model.config, "_commit_hash", None),
            editor=editor,
        ),
    )
