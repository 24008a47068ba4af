"""What single model families need beyond the mechanism that serves them all.

Everything else in this package treats an encoder-decoder as an encoder, a decoder with one list of layers, and a
`forward` that takes `encoder_outputs` and `decoder_input_ids`.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput, MoEModelOutput

from ..errors import EditableTypeError
from ..numerics.scoring import PADDING, num_tokens
from .private_names import check_private_names


check_private_names(__name__)


# Dimension of the batch in the arguments of a decoder layer, by position or name, where it is not the first; `None`
# for those that all rows share.
BATCH_DIMENSIONS: dict[str, dict[int | str, int | None]] = {"fsmt": {0: 1, 1: 1, "causal_mask": None}}
# Families whose beams cannot share what they have in common as [`~decoding.BeamSearch`] has it, and why.
_ALONG_THE_SEQUENCE = "its decoder layers measure distances along the sequence"
_TURNED = "its decoder layers turn queries and keys by their places in the sequence"
BEAMS_APART: dict[str, str] = {
    "t5": _ALONG_THE_SEQUENCE,
    "mt5": _ALONG_THE_SEQUENCE,
    "umt5": _ALONG_THE_SEQUENCE,
    "longt5": _ALONG_THE_SEQUENCE,
    "switch_transformers": _ALONG_THE_SEQUENCE,
    "t5gemma": _TURNED,
    "t5gemma2": _TURNED,
    "fsmt": "its decoder layers take caches and masks of a kind of their own",
    "prophetnet": "its decoder layers predict several tokens at once",
    "nllb-moe": "its experts take only so many of the tokens that stand side by side",
}


def encoder_output(states: Tensor) -> MoEModelOutput:
    """
    The encoder's output, as every family's `forward` and `generate` take it back.

    Mixture-of-experts models (NLLB-MoE, Switch Transformers) look for routing in it, the others do not mind.

    Args:
        states (`torch.Tensor` of shape `(batch, source_length, hidden)`): the encoder's last states.
    """
    return MoEModelOutput(last_hidden_state=states)


@functools.cache
def cache_argument(model_class: type[PreTrainedModel]) -> str:
    """
    The name by which a class of models takes its cache of keys and values: `past_key_values`, which transformers calls
    `cache` from 5.24 on.

    Args:
        model_class (`type`): the class; its bases count too, as subclasses may hand their arguments on unnamed.
    """
    forwards = [base.forward for base in model_class.__mro__ if "forward" in vars(base)]
    has_new_name = any("cache" in inspect.signature(forward).parameters for forward in forwards)
    return "cache" if has_new_name else "past_key_values"


def decoder_inputs(model: PreTrainedModel, labels: Tensor) -> Tensor:
    """
    The decoder's input tokens for `labels`: shifted right, so that no position sees the token it predicts.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.
    """
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return model.prepare_decoder_input_ids_from_labels(labels=labels.clone())  # FSMT's writes into them
    # M2M100, NLLB-MoE and Blenderbot have no such method; inside their forward they shift like this.
    shifted = labels.roll(1, dims=-1)
    shifted[:, 0] = model.config.decoder_start_token_id
    return shifted.masked_fill(shifted == PADDING, model.config.pad_token_id)


def routing_inputs(config: PreTrainedConfig, labels: Tensor) -> dict[str, Any]:
    """What a mixture of experts needs in its forward pass to compute its auxiliary losses, if it is told to."""
    if not getattr(config, "output_router_logits", False):
        return {}
    return {"labels": labels, "output_router_logits": True}


def routing_loss(
    config: PreTrainedConfig, outputs: ModelOutput, labels: Tensor, num_items: int | Tensor
) -> Tensor | float:
    """
    Auxiliary losses of a mixture of experts, weighted as the model's own loss has them, 0 for other models.

    Args:
        config ([`~transformers.PreTrainedConfig`]): holds `router_aux_loss_coef` and `router_z_loss_coef`.
        outputs ([`~transformers.utils.ModelOutput`]): of a forward pass with `routing_inputs`.
        labels (`torch.LongTensor` of shape `(batch, length)`): their tokens are the batch's share of the step.
        num_items (`int`): tokens of all batches of the optimizer step.
    """
    if not getattr(config, "output_router_logits", False):
        return 0.0
    total = 0.0
    for kind in ("aux", "z"):
        for side in ("encoder", "decoder"):
            value = outputs.get(f"{side}_{kind}_loss")
            if value is not None:
                total = total + getattr(config, f"router_{kind}_loss_coef") * value
    return total * num_tokens(labels) / num_items


def check_editable(model: PreTrainedModel) -> None:
    """
    Refuse models whose weights are not simply tensors that an edit can move.

    Raises:
        EditableTypeError: if the model is no encoder-decoder, or is wrapped by PEFT, quantised or spread over devices.
    """
    name = type(model).__name__
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise EditableTypeError(
            f"{name} is not an encoder-decoder model (config.is_encoder_decoder is not set). "
            "Use a sequence-to-sequence checkpoint, such as Marian, M2M100, mBART or T5."
        )
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        raise EditableTypeError(
            f"{name} has adapters or is no model of transformers, so saving it would not save what was edited. "
            "Merge the adapters into the model first: model = peft_model.merge_and_unload()."
        )
    if getattr(model, "hf_quantizer", None) is not None:
        raise EditableTypeError(
            f"{name} is quantised, and quantised weights have no gradient. Load the checkpoint without "
            "quantization_config, or call model.dequantize() first."
        )
    devices = sorted({str(device) for device in getattr(model, "hf_device_map", {}).values()})
    if len(devices) > 1 or "disk" in devices:
        raise EditableTypeError(f"{name} is spread over {', '.join(devices)} by device_map. Load it on one device.")


def freeze_computed_positions(model: nn.Module) -> None:
    """
    Freeze position embeddings that are computed (Marian, Pegasus), as their own classes do when they are constructed.

    `from_pretrained` thaws them, and transformers from 5.24 on has gradients for them. Marian's checkpoints do not
    hold them, so what training would make of them would be lost.
    """
    for module in computed_positions(model).values():
        module.weight.requires_grad_(False)


def computed_positions(model: nn.Module) -> dict[str, nn.Embedding]:
    """The position embeddings that are computed when a model is made, by their paths in it."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding) and hasattr(module, "create_weight")
    }


def max_positions(config: PreTrainedConfig, side: str) -> int | None:
    """
    The most tokens that a model has positions for; `None` if its configuration names no limit.

    Args:
        config ([`~transformers.PreTrainedConfig`]): the model's configuration.
        side (`str`): `"encoder"` or `"decoder"`.
    """
    part = getattr(config, side, None)
    for holder in (config, part, getattr(part, "text_config", None)):
        for name in (f"max_{side}_position_embeddings", "max_position_embeddings"):
            limit = getattr(holder, name, None)
            if limit is not None:
                return limit
    return None


def beam_search_tokens(model: PreTrainedModel, labels: Tensor) -> tuple[Tensor, Tensor]:
    """
    What of translations beam search scores, and over how many tokens.

    It ends at the end token: the language code that mBART and PLBart have after it is no part of a translation. And
    the tokens that generation is forced to begin with (`forced_bos_token_id`: the language code of NLLB, M2M100 and
    mBART-50) and to end with where a translation is as long as it may be (`forced_eos_token_id`) cost nothing, but
    count in the length.

    Args:
        model ([`~transformers.PreTrainedModel`]): has the generation settings.
        labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.

    Returns:
        `tuple(torch.LongTensor, torch.LongTensor)` of shapes `(batch, length)` and `(batch,)`: the labels with −100 on
        what is not scored, and the lengths.
    """
    settings = getattr(model, "generation_config", None)
    scored = labels.clone()
    if settings is not None and settings.eos_token_id is not None:
        ends = torch.isin(labels, torch.as_tensor(settings.eos_token_id, device=labels.device))
        # After the last end token: Seamless' targets begin with one.
        after = ends.any(-1, keepdim=True) & (ends.flip(-1).cumsum(-1).flip(-1) == 0)
        scored[after] = PADDING
    lengths = (scored != PADDING).sum(-1)
    if settings is not None and settings.forced_bos_token_id is not None:
        scored[:, 0] = scored[:, 0].masked_fill(labels[:, 0] == settings.forced_bos_token_id, PADDING)
    if settings is not None and settings.forced_eos_token_id is not None:
        last = (settings.max_new_tokens or (settings.max_length or 0) - 1) - 1
        if 0 <= last < labels.shape[1]:
            forced = torch.isin(labels[:, last], torch.as_tensor(settings.forced_eos_token_id, device=labels.device))
            scored[:, last] = scored[:, last].masked_fill(forced, PADDING)
    return scored, lengths
