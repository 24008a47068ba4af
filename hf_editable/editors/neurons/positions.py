"""Positions of targets, as the feed-forward of the final decoder layer sees them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...decoding.score_rules import ScoreRules
from ...errors import EditableTypeError
from ...models.families import beam_search_tokens, decoder_inputs
from ...models.feed_forward import FeedForward, find_feed_forward, first_tensor, watch
from ...models.layers import find_decoder_layers
from ...models.private_copies import private_copy
from ...numerics.scoring import PADDING, full_precision
from ...tail.after_layers import AfterLayers


@dataclass
class Positions:
    """
    Positions at which beam search chooses a token of a target.

    Args:
        rows (`torch.LongTensor` of shape `(positions,)`): of which target they are.
        states (`torch.Tensor` of shape `(positions, hidden)`): what the feed-forward is given.
        outputs (`torch.Tensor` of shape `(positions, hidden)`): what it gives.
        rests (`torch.Tensor` of shape `(positions, hidden)`): what that is added to.
        tokens (`torch.LongTensor` of shape `(positions,)`): the target's tokens.
        predicted (`torch.LongTensor` of shape `(positions,)`): the most probable tokens.
        probabilities (`torch.Tensor` of shape `(positions,)`): of the target's tokens.
    """

    rows: Tensor
    states: Tensor
    outputs: Tensor
    rests: Tensor
    tokens: Tensor
    predicted: Tensor
    probabilities: Tensor

    def __getitem__(self, which: Any) -> "Positions":
        return Positions(*(getattr(self, item.name)[which] for item in fields(self)))

    @classmethod
    def join(cls, parts: Sequence["Positions"]) -> "Positions":
        """Several as one."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))


class FinalFeedForward:
    """
    The feed-forward of a model's final decoder layer, watched while targets are forced.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model as it is; it is not changed.
        batch (`dict[str, torch.Tensor]`): some `input_ids`, `attention_mask` and `labels`, to find it by.

    Attributes:
        found ([`FeedForward`]): the feed-forward.

    Raises:
        EditableTypeError: if neurons cannot be added to it; see `find_feed_forward`.
    """

    def __init__(self, model: PreTrainedModel, batch: Mapping[str, Tensor | None]):
        self.model = model
        self.found: FeedForward = find_feed_forward(model, _inputs(model, batch))
        self._twin = private_copy(model)
        self._seen: dict[str, Any] = {}
        path, layers = find_decoder_layers(model)
        watched = {"layer": f"{path}.{len(layers) - 1}", "first": self.found.firsts[0], "second": self.found.second}
        if self.found.norm is not None:
            watched["norm"] = self.found.norm
        for name, place in watched.items():
            watch(self._twin.get_submodule(place), functools.partial(self._see, name))
        self._rules = ScoreRules(model, batch["input_ids"][:1])
        self._after: AfterLayers | None = None

    def _see(self, name: str, given: Tensor, output: Any) -> None:
        self._seen[name] = given, output

    @torch.no_grad()
    def positions(self, batch: Mapping[str, Tensor | None]) -> Positions:
        """
        The positions of targets that beam search scores.

        Args:
            batch (`dict[str, torch.Tensor]`): `input_ids`, `attention_mask` and `labels`, −100 on padding.

        Raises:
            EditableTypeError: if the feed-forward is given the tokens in another order.
        """
        labels = batch["labels"]
        scored, _ = beam_search_tokens(self.model, labels)
        output = self._twin(**_inputs(self.model, batch), use_cache=False)
        kept = scored != PADDING
        (states, _), (_, outputs), (_, returned) = (self._seen[name] for name in ("first", "second", "layer"))
        if states.shape[:2] != labels.shape:
            raise EditableTypeError(
                f"Neurons cannot be added to {type(self.model).__name__}: its feed-forward is given states of shape "
                f"{tuple(states.shape)} for tokens of shape {tuple(labels.shape)}, which are not in their order. Edit "
                "it by gradients: editor='gradient'."
            )
        if self._after is None:
            self._after = AfterLayers(self.model, returned, output.encoder_last_hidden_state.shape[-1])
        if self.found.sum == "post":
            rests = self._seen["norm"][0] - outputs
        else:
            rests = first_tensor(returned) - (outputs if self.found.sum == "pre" else self._seen["norm"][1])
        self._seen = {}
        tokens = scored[kept]
        log_probs = full_precision(self._rules.logits(output.logits[kept])).log_softmax(-1)
        return Positions(
            rows=kept.nonzero()[:, 0],
            states=states[kept],
            outputs=outputs[kept],
            rests=rests[kept],
            tokens=tokens,
            predicted=log_probs.argmax(-1),
            probabilities=log_probs.gather(-1, tokens[:, None])[:, 0].exp(),
        )

    def logits(self, rests: Tensor, outputs: Tensor) -> Tensor:
        """
        Logits from what the feed-forward gives, with a graph to it.

        Args:
            rests (`torch.Tensor` of shape `(positions, hidden)`), outputs (`torch.Tensor` of the same shape): see
                [`Positions`].

        Returns:
            `torch.Tensor` of shape `(positions, vocabulary)`.
        """
        joined = self.found.joined(self.model, rests, outputs)
        return full_precision(self._rules.logits(self._after.logits(joined)))


def _inputs(model: PreTrainedModel, batch: Mapping[str, Tensor | None]) -> dict[str, Any]:
    labels = batch["labels"]
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "decoder_input_ids": decoder_inputs(model, labels),
        "return_dict": True,
    }
