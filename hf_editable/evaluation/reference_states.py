"""How far edits move a model's predictions of reference translations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..numerics.scoring import MOST_LOGITS, PADDING, full_precision
from ..tail.decoder_tail import Tail
from ..tail.trunk_states import TrunkStates


# The most memory for a model's own predictions; those beyond it are made again after every edit.
PREDICTIONS = 10**9


class ReferenceStates:
    """
    The references of a test set, in batches, with what no edit moves: their states and the model's own predictions.

    Args:
        tail ([`Tail`]): the part of the model that edits move.
        collator ([`DataCollatorForEditableSeq2Seq`]): with the model and its tokenizer.
        sources (`list[list[int]]`): token ids of the sources.
        references (`list[list[int]]`): token ids of the references, one of each source.
        max_bytes (`int`, *optional*, defaults to `0`): the most memory for predictions; others are made each time.

    Attributes:
        tokens (`np.ndarray` of shape `(sentences,)`): tokens of each reference.
    """

    def __init__(
        self,
        tail: Tail,
        collator: DataCollatorForEditableSeq2Seq,
        sources: Sequence[list[int]],
        references: Sequence[list[int]],
        max_bytes: int = 0,
    ):
        self._tail, self._max_bytes = tail, max_bytes
        vocabulary = tail.model.config.get_text_config(decoder=True).vocab_size
        self._batches: list[tuple[list[int], Tensor, TrunkStates]] = []
        for indices in _batches([len(ids) for ids in references], MOST_LOGITS // vocabulary):
            rows = [{"input_ids": sources[i], "labels": references[i]} for i in indices]
            batch = collator(rows).to(tail.model.device)
            states = tail.record(batch["input_ids"], batch["attention_mask"], batch["labels"])
            self._batches.append((indices, batch["labels"], states))
        self._predictions: list[Tensor | None] = []
        self.tokens = np.zeros(len(references), dtype=np.int64)
        for indices, labels, _ in self._batches:
            self.tokens[indices] = (labels != PADDING).sum(-1).cpu().numpy()

    def divergences(self, parameters: Mapping[str, Tensor], tail: Tail | None = None) -> np.ndarray:
        """
        `KL(model || model with the parameters)` in nats a token of each reference.

        Args:
            parameters (`dict[str, torch.Tensor]`): edited parameters.
            tail ([`Tail`], *optional*): the tail that they belong to, if it is another than the one given before.

        Returns:
            `np.ndarray` of shape `(sentences,)`.
        """
        result = np.zeros(len(self.tokens))
        if not self._predictions:
            self._predictions = self._predict()
        for (indices, labels, states), known in zip(self._batches, self._predictions, strict=True):
            tokens = labels != PADDING
            reference = self._log_probs(self._tail.logits(states), tokens) if known is None else known
            predicted = self._log_probs((tail or self._tail).logits(states, parameters), tokens)
            each = (reference.exp() * (reference - predicted)).sum(-1)
            sums = each.new_zeros(labels.shape).masked_scatter(tokens, each).sum(-1, dtype=torch.float64)
            result[indices] = sums.cpu().numpy()
        return result / self.tokens

    def embeddings(self) -> np.ndarray:
        """The encoder's states, averaged over each source's tokens, of shape `(sentences, hidden)`."""
        result: list[Any] = [None] * len(self.tokens)
        for indices, _, states in self._batches:
            mask = states.attention_mask.unsqueeze(-1).to(torch.float64)
            means = (states.encoder_states * mask).sum(1) / mask.sum(1)
            for index, mean in zip(indices, means.cpu().numpy(), strict=True):
                result[index] = mean
        return np.array(result)

    def _predict(self) -> list[Tensor | None]:
        """The model's own log-probabilities, of as many batches as fit."""
        size, known = 0, []
        for _, labels, states in self._batches:
            fits = size < self._max_bytes
            known.append(self._log_probs(self._tail.logits(states), labels != PADDING) if fits else None)
            size += known[-1].nbytes if fits else 0
        return known

    @staticmethod
    def _log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities at the chosen positions, of shape `(positions, vocabulary)`."""
        return full_precision(logits[tokens]).log_softmax(-1)


def _batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in batches of similar lengths, of at most so many positions with padding, or one sentence."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > most:
            batches.append([])
        batches[-1].append(index)
    return batches
