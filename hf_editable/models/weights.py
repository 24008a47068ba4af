"""A model's weights, as its checkpoint holds them, and hashes of them all."""

from collections.abc import Container

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import EditableValueError
from ..runs.fingerprints import fingerprint, fingerprint_rows, fingerprint_sum
from .families import computed_positions


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """
    All that a model's checkpoint holds of weights, by name.

    Raises:
        EditableValueError: if some of them are not in memory.
    """
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("editor.")}
    away = [name for name, tensor in weights.items() if tensor.device.type == "meta"]
    if away:
        raise EditableValueError(
            f"The model's {away[0]!r} is not in memory (device 'meta'). Load the model without offloading it."
        )
    return weights


def fingerprint_model(model: PreTrainedModel) -> str:
    """A hash of all that decides a model's translations: its weights and its generation settings."""
    settings = model.generation_config.to_dict()
    settings.pop("transformers_version", None)
    return fingerprint_rows([fingerprint(model_weights(model)), settings])


def fingerprint_weights(model: nn.Module, without: Container[str] = ()) -> str:
    """
    A hash of all weights of a model; see [`fingerprint_sum`]. What is computed when a model is loaded is not in it, as
    that may differ in the last bit from machine to machine, nor are an editor's own tensors.

    Args:
        model ([`~torch.nn.Module`]): the model.
        without (`Container[str]`, *optional*): names of weights to leave out.

    Raises:
        EditableValueError: if weights are not in memory.
    """
    computed = {f"{path}.weight" for path in computed_positions(model)}
    weights = model_weights(model).items()
    return fingerprint_sum({name: each for name, each in weights if name not in computed and name not in without})
