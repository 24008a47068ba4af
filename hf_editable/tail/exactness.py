"""Whether a model's tail gives the model's own logits: held against a full pass, once for each class of models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import EditableTypeError
from ..models.private_copies import shared_copy
from .forward_passes import whole_pass
from .output_head import OutputHead
from .trunk_states import TrunkStates


# The classes of a model and of its decoder; an EncoderDecoderModel may have any decoder.
Classes = tuple[type[nn.Module], type[nn.Module]]
# Those whose tail was found to be exact, and whether its output head alone gives their logits.
_EXACT: dict[Classes, bool] = {}


def classes_of(model: PreTrainedModel) -> Classes:
    """What a check of one model holds for."""
    return type(model), type(model.get_decoder())


def is_checked(classes: Classes) -> bool:
    """Whether models of these classes have passed the check in this process."""
    return classes in _EXACT


def has_linear_logits(classes: Classes) -> bool:
    """Whether the check found that the output head alone gives the logits."""
    return _EXACT.get(classes, False)


def check_exact(
    model: PreTrainedModel, states: TrunkStates, found: Tensor, hidden: Callable[[], Tensor], head: OutputHead
) -> None:
    """
    Hold what a tail gives against a full pass of the decoder.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        states ([`TrunkStates`]): recorded states.
        found (`torch.Tensor`): the tail's logits at those states.
        hidden (`Callable`): gives what the output head is given there, where the model has one.
        head ([`OutputHead`]): the output head.

    Raises:
        EditableTypeError: if they differ, as in a decoder that does something of its own between its layers.
    """
    expected = whole_pass(shared_copy(model, {}), states).logits
    difference = (found - expected).nan_to_num().abs().max()  # NaN is the editor's to report
    if difference > 1e-2 * expected.nan_to_num().abs().max():
        raise EditableTypeError(
            f"The decoder of {type(model).__name__} is more than a list of layers with something before and "
            "after it, so its last layers alone do not give its predictions, and it cannot be edited. Use another "
            "checkpoint."
        )
    _EXACT[classes_of(model)] = head.linear is not None and _equal(head.logits(hidden()), found)


def _equal(own: Tensor, found: Tensor) -> bool:
    """Whether these are the same logits but for rounding; ProphetNet's head gives those of more streams than one."""
    return own.shape == found.shape and bool(torch.isclose(own, found, equal_nan=True).all())
