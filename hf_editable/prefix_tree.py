"""The distinct prefixes of several translations: alternatives that come from one beam search have most in common."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .scoring import PADDING, full_precision


# Families whose decoder layers know of positions only what is in their hidden states and their mask, so that prefixes
# can stand side by side in one sequence. (In T5, say, the layers themselves measure distances along the sequence.)
MASKED_FAMILIES = (
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "m2m_100", "marian", "mbart", "pegasus", "pegasus_x",
    "plbart", "seamless_m4t", "seamless_m4t_v2",
)  # fmt: skip
# Other kernels take no mask of one's own.
MASKED_ATTENTION = ("eager", "sdpa")


def takes_prefix_trees(model: PreTrainedModel) -> bool:
    """Whether the decoder's layers can be run on a [`PrefixTree`]."""
    config = model.config.get_text_config(decoder=True)
    return model.config.model_type in MASKED_FAMILIES and config._attn_implementation in MASKED_ATTENTION


@dataclass(frozen=True)
class PrefixTree:
    """
    The distinct prefixes of translations as the decoder reads them, each after the one that it continues.

    Args:
        rows (`torch.LongTensor` of shape `(prefixes,)`): a translation that each prefix is of.
        columns (`torch.LongTensor` of shape `(prefixes,)`): position of its last token in that translation.
        visible (`torch.BoolTensor` of shape `(prefixes, prefixes)`): which prefixes a prefix continues, and itself.
        places (`torch.LongTensor` of shape `(batch, length)`): the prefix that ends at each position of a translation.
    """

    rows: Tensor
    columns: Tensor
    visible: Tensor
    places: Tensor

    @classmethod
    def of(cls, decoder_input_ids: Tensor, labels: Tensor) -> "PrefixTree":
        """
        The prefixes after which a token of `labels` is predicted, and those that they continue.

        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(batch, length)`): what the decoder reads.
            labels (`torch.LongTensor` of shape `(batch, length)`): what it predicts, −100 on what is not needed.
        """
        found: dict[tuple[int, int], int] = {}
        rows, columns, paths = [], [], []
        places = torch.zeros(labels.shape, dtype=torch.long)
        needed = (labels != PADDING).cpu()
        lengths = (needed * torch.arange(1, labels.shape[1] + 1)).amax(1).tolist()
        for row, (tokens, length) in enumerate(zip(decoder_input_ids.tolist(), lengths, strict=True)):
            parent = -1
            for column, token in enumerate(tokens[:length]):
                place = found.setdefault((parent, token), len(paths))
                if place == len(paths):
                    rows.append(row)
                    columns.append(column)
                    paths.append([*(paths[parent] if parent >= 0 else ()), place])
                places[row, column] = parent = place
        visible = torch.zeros(len(paths), len(paths), dtype=torch.bool)
        for place, path in enumerate(paths):
            visible[place, path] = True
        device = labels.device
        return cls(*(torch.as_tensor(value, device=device) for value in (rows, columns, visible, places)))

    def select(self, rows: list[int]) -> tuple["PrefixTree", Tensor]:
        """The prefixes of some translations, and which of all prefixes these are."""
        needed = torch.zeros(len(self.rows), dtype=torch.bool, device=self.rows.device)
        needed[self.places[rows]] = True
        chosen = self.visible[needed].any(0).nonzero().flatten()
        new = torch.zeros_like(self.rows)
        new[chosen] = torch.arange(len(chosen), device=chosen.device)
        visible = self.visible[chosen][:, chosen]
        return PrefixTree(self.rows[chosen], self.columns[chosen], visible, new[self.places[rows]]), chosen

    def mask(self, dtype: torch.dtype) -> Tensor:
        """`visible` in additive form, of shape `(1, 1, prefixes, prefixes)`."""
        lowest = torch.finfo(dtype).min
        return torch.zeros(self.visible.shape, dtype=dtype, device=self.visible.device).masked_fill(
            ~self.visible, lowest
        )[None, None]

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
