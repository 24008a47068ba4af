"""The distinct prefixes of several translations: alternatives that come from one beam search have most in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..models.private_names import check_private_names
from ..numerics.scoring import PADDING, full_precision


check_private_names(__name__)


# Families whose decoder layers learn of positions from nothing but their hidden states and their attention's mask, so
# that prefixes can stand side by side in one sequence. (T5's, for one, measure distances along the sequence.)
MASKED_FAMILIES = (
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "m2m_100", "marian", "mbart", "pegasus", "pegasus_x",
    "plbart", "seamless_m4t", "seamless_m4t_v2",
)  # fmt: skip
# With other kernels the results differ by more than rounding.
MASKED_ATTENTION = ("eager", "sdpa")
_NAME = "hf_editable_prefixes"


def takes_prefix_trees(model: PreTrainedModel) -> bool:
    """Whether the decoder's layers can be run on a [`PrefixTree`]."""
    return model.config.model_type in MASKED_FAMILIES and takes_any_mask(model)


def takes_any_mask(model: PreTrainedModel) -> bool:
    """Whether the decoder's attention can be told for each token which others it sees."""
    return model.config.get_text_config(decoder=True)._attn_implementation in MASKED_ATTENTION


@dataclass(frozen=True)
class PrefixTree:
    """
    The distinct prefixes of translations as the decoder reads them, each after the one that it continues.

    Args:
        places (`torch.LongTensor` of shape `(batch, length)`): the prefix that ends at each position of a translation.
        ends (`torch.LongTensor` of shape `(prefixes,)`):
            a position at which each ends, the positions of all translations counted one after the other.
    """

    places: Tensor
    ends: Tensor

    @classmethod
    def of(cls, decoder_input_ids: Tensor, labels: Tensor) -> "PrefixTree":
        """
        The prefixes after which a token of `labels` is predicted, and those that they continue.

        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(batch, length)`): what the decoder reads.
            labels (`torch.LongTensor` of shape `(batch, length)`): what it predicts, −100 on what is not needed.
        """
        found: dict[tuple[int, int], int] = {}
        places = torch.zeros(labels.shape, dtype=torch.long)
        needed = (labels != PADDING).cpu()
        lengths = (needed * torch.arange(1, labels.shape[1] + 1)).amax(1).tolist()
        for row, (tokens, length) in enumerate(zip(decoder_input_ids.tolist(), lengths, strict=True)):
            parent = -1
            path = [parent := found.setdefault((parent, token), len(found)) for token in tokens[:length]]
            places[row, :length] = torch.tensor(path, dtype=torch.long)
        return cls._at(places.to(labels.device), len(found))

    @classmethod
    def _at(cls, places: Tensor, count: int) -> "PrefixTree":
        positions = torch.arange(places.numel(), device=places.device)
        ends = positions.new_full((count,), places.numel()).scatter_reduce_(0, places.flatten(), positions, "amin")
        return cls(places, ends)

    def select(self, rows: list[int]) -> tuple["PrefixTree", Tensor]:
        """The prefixes of some translations, and which of all prefixes these are."""
        chosen, places = self.places[rows].unique(return_inverse=True)
        return self._at(places, len(chosen)), chosen

    def spread(self, states: Tensor) -> Tensor:
        """`(prefixes, ...)` to `(batch, length, ...)`: the state of each prefix, at all positions at which it ends."""
        return states.index_select(0, self.places.flatten()).unflatten(0, self.places.shape)

    def gather(self, states: Tensor) -> Tensor:
        """`(batch, length, ...)` to `(prefixes, ...)`: the state of each prefix, at one position at which it ends."""
        return states.flatten(0, 1).index_select(0, self.ends)

    def token_log_probs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """
        Log-probability of each token of `labels`, 0 on padding.

        Args:
            logits (`torch.Tensor` of shape `(prefixes, vocabulary)`): predictions after each prefix.
            labels (`torch.LongTensor` of shape `(batch, length)`): token ids, −100 on padding.

        Returns:
            `torch.Tensor` of shape `(batch, length)`.
        """
        log_probs = full_precision(logits).log_softmax(-1)
        padding = labels == PADDING
        return log_probs[self.places, labels.masked_fill(padding, 0)].masked_fill(padding, 0.0)


class PrefixAttentionConfig:
    """
    Configuration of decoder layers whose attention can be given a [`PrefixTree`] in place of a mask.

    Args:
        config ([`~transformers.PreTrainedConfig`]): their own, whose every attribute it has.

    Attributes:
        takes_trees (`bool`): whether layers are given trees now.
    """

    def __init__(self, config: PreTrainedConfig):
        self.config = config
        self.takes_trees = False

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["config"], name)

    @property
    def _attn_implementation(self) -> str | None:
        return _NAME if self.takes_trees else self.config._attn_implementation

    @classmethod
    def of(cls, layers: Iterable[nn.Module]) -> list["PrefixAttentionConfig"]:
        """Give layers such configurations, one in place of each configuration that they have."""
        made: dict[int, PrefixAttentionConfig] = {}
        for module in nn.ModuleList(layers).modules():  # each once, also where layers share it
            if "config" in vars(module):
                module.config = made.setdefault(id(module.config), cls(module.config))
        return list(made.values())


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: PrefixTree | Tensor | None, **kwargs
) -> tuple[Tensor, None]:
    """
    Attention of every prefix to those that it continues, one translation after the other: that takes
    `heads × length²` products for each translation, where one matrix over all prefixes would take `heads × prefixes²`.
    """
    if not isinstance(attention_mask, PrefixTree):  # to the source
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = [attention_mask.spread(states[0].transpose(0, 1)).transpose(1, 2) for states in (query, key, value)]
    kwargs["is_causal"] = True
    attended, _ = sdpa_attention_forward(module, *rows, None, **kwargs)
    return attention_mask.gather(attended)[None], None


AttentionInterface.register(_NAME, _attend)
