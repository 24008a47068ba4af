"""What a decoder makes of the output of its final layer, without the layers."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..models.layers import find_decoder_layers
from ..models.private_copies import shared_copy
from .forward_passes import whole_pass
from .stand_ins import Given
from .trunk_states import TrunkStates


class AfterLayers:
    """
    The part of a model after its decoder's layers: a last norm, if it has one, and the output projection.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model, whose tensors are shared.
        returned (`Any`): what its final layer has given in a pass, a tensor or a tuple.
        width (`int`): of the encoder's states.
    """

    def __init__(self, model: PreTrainedModel, returned: Any, width: int):
        _, layers = find_decoder_layers(model)
        self._given = Given(shared_copy(layers[-1], {}))
        encoder = model.get_encoder()  # which does not run
        copies: dict[nn.Module, nn.Module] = {layers: nn.ModuleList([self._given]).eval(), encoder: encoder}
        self._model = shared_copy(model, copies)
        self._rest = returned[1:] if isinstance(returned, tuple) else None
        self._width = width

    def logits(self, states: Tensor) -> Tensor:
        """
        Logits from what the final layer gives.

        Args:
            states (`torch.Tensor` of shape `(positions, hidden)`): that, of positions that need have no order.

        Returns:
            `torch.Tensor` of shape `(positions, vocabulary)`.
        """
        rows = states[:, None]
        self._given.output = rows if self._rest is None else (rows, *self._rest)
        ones = torch.ones(len(rows), 1, dtype=torch.long, device=rows.device)
        encoded = rows.new_zeros(len(rows), 1, self._width)
        try:
            return whole_pass(self._model, TrunkStates(((), {}), ones, encoded, ones, ones, {})).logits[:, 0]
        finally:
            self._given.output = None
