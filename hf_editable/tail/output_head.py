"""How logits come from the decoder's last hidden states."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .stand_ins import Replay


class OutputHead:
    """
    The linear layer that gives a model's logits, and what the model adds to them after it.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        linear (`Replay`, *optional*): stands for the layer in the model's tail; `None` if the model has none.
    """

    def __init__(self, model: PreTrainedModel, linear: Replay | None):
        self.linear = linear
        self._model = model

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits, if the model does nothing else with its last hidden states than this layer does."""
        return nn.functional.linear(hidden, self.linear.layer.weight, self._bias())

    def projection(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias of `logits`; `None` where they are computed in less than single precision."""
        weight = self.linear.layer.weight
        precise = weight.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(weight.device.type)
        return (weight, self._bias()) if precise else None

    @property
    def trains_bias(self) -> bool:
        """Whether the layer has a bias of its own that training moves."""
        bias = self.linear.layer.bias
        return bias is not None and bias.requires_grad

    def _bias(self) -> Tensor | None:
        """What the layer, and the model after it, add; `None` if that is 0."""
        own, after = self.linear.layer.bias, getattr(self._model, "final_logits_bias", None)
        parts = [part.flatten() for part in (own, after) if part is not None and bool(part.any())]
        return sum(parts) if parts else None
