"""How an encoder-decoder is called whose encoder has run already."""

from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from ..models.families import cache_argument, encoder_output
from .trunk_states import TrunkStates


def whole_pass(model: PreTrainedModel, states: TrunkStates) -> ModelOutput:
    """Run a model, or a copy of a part of it, on whole translations."""
    return model(
        input_ids=states.input_ids,  # not encoded again; FSMT's decoder is causal only if it is there
        encoder_outputs=encoder_output(states.encoder_states),
        attention_mask=states.attention_mask,
        decoder_input_ids=states.decoder_input_ids,
        use_cache=False,
        return_dict=True,
        **({"output_router_logits": False} if hasattr(model.config, "output_router_logits") else {}),
    )


def next_token_pass(
    model: PreTrainedModel,
    tokens: Tensor,
    encoder_states: Tensor,
    attention_mask: Tensor,
    cache: Cache,
    visible: Tensor | None = None,
) -> ModelOutput:
    """
    Run a model, or a copy of a part of it, on one token more than a cache has.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        tokens (`torch.LongTensor` of shape `(rows, tokens)`): the last tokens of prefixes.
        encoder_states (`torch.Tensor` of shape `(rows, source_length, hidden)`): the encoder's output.
        attention_mask (`torch.LongTensor` of shape `(rows, source_length)`): the source's mask.
        cache ([`~transformers.EncoderDecoderCache`]): keys and values of the prefixes; gets those of the tokens.
        visible (`torch.Tensor`, *optional*): the decoder's mask, in additive form; `None` shows it all of the cache.
    """
    return model(
        encoder_outputs=encoder_output(encoder_states),
        attention_mask=attention_mask,
        decoder_input_ids=tokens,
        decoder_attention_mask=visible,
        use_cache=True,
        return_dict=True,
        **{cache_argument(type(model)): cache},
    )
