"""A model with added neurons as a plain checkpoint: its decoder's feed-forwards are as wide as the widest of them."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import EditableValueError
from ..models.feed_forward import WIDTH_SETTING
from ..models.layers import find_decoder_layers
from ..models.widened import installed
from ..patches.application import added_neurons


def widened(
    model: PreTrainedModel, weights: Mapping[str, Tensor]
) -> tuple[PretrainedConfig, dict[str, Tensor]] | None:
    """
    The configuration and the weights of a plain model that gives the same logits, but for rounding.

    The configuration has one width for all layers of the decoder. Layers without added neurons get some that are zero.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model, which stays as it is.
        weights (`dict[str, torch.Tensor]`): its weights, under the names of its state dictionary.

    Returns:
        `tuple`, or `None` for a model without added neurons.

    Raises:
        EditableValueError: if no plain checkpoint of the family can hold them.
    """
    compositions = added_neurons(model)
    if not compositions:
        return None
    if away := [each.site.second for each in compositions if not each.site.fits_plain]:
        raise EditableValueError(
            f"Neurons were added to {away[0]!r}, and no checkpoint of {model.base_class().__name__} can hold them: "
            f"its feed-forward has no bias, or a gate, or another width than {WIDTH_SETTING}. Save the patch, or keep "
            "a store: both put them in again."
        )
    path, layers = find_decoder_layers(model)
    sites = [each.site for each in compositions]
    own = {site.second: installed(model, site.firsts, site.second) for site in sites}
    count = max(len(neurons.bias) for neurons in own.values())
    first, second = (name.removeprefix(f"{path}.").partition(".")[2] for name in (sites[0].firsts[0], sites[0].second))
    wide = dict(weights)
    for index in range(len(layers)):
        names = [f"{path}.{index}.{first}.weight", f"{path}.{index}.{first}.bias", f"{path}.{index}.{second}.weight"]
        neurons = own.get(f"{path}.{index}.{second}")
        added = [None] * 3 if neurons is None else [neurons.rows, neurons.bias, neurons.columns]
        for name, dimension, tensor in zip(names, (0, 0, 1), added, strict=True):
            wide[name] = _padded(weights[name], dimension, count, tensor)
    config = copy.deepcopy(model.config)
    setattr(config, WIDTH_SETTING, getattr(config, WIDTH_SETTING) + count)
    return config, wide


def _padded(weight: Tensor, dimension: int, count: int, added: Tensor | None) -> Tensor:
    """A weight with so many more rows or columns, the first of which are those of the neurons."""
    shape = list(weight.shape)
    shape[dimension] = count
    more = weight.new_zeros(shape)
    if added is not None:
        more.narrow(dimension, 0, added.shape[dimension]).copy_(added)
    return torch.cat([weight.detach(), more], dim=dimension)
