"""Positions of targets, as the feed-forward of the final decoder layer sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...decoding.score_rules import ScoreRules
from ...errors import EditableTypeError
from ...models.families import beam_search_tokens, decoder_inputs
from ...models.feed_forward import FeedForward, find_feed_forward
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
        self._note("layer", f"{path}.{len(layers) - 1}")
        self._note("first", self.found.firsts[0])
        self._note("second", self.found.second)
        self._note("encoder", model_path(model, model.get_encoder()))
        if self.found.norm is not None:
            self._note("norm", self.found.norm)
        self._rules = ScoreRules(model, batch["input_ids"][:1])
        with torch.no_grad():
            self._twin(**_inputs(model, batch), use_cache=False)
        if self._seen["first"][0].shape[:2] != batch["labels"].shape:
            raise EditableTypeError(
                f"Neurons cannot be added to {type(model).__name__}: its feed-forward is given states of shape "
                f"{tuple(self._seen['first'][0].shape)} for tokens of shape {tuple(batch['labels'].shape)}, which are "
                "not in their order. Edit it by gradients: editor='gradient'."
            )
        self._after = AfterLayers(model, self._seen["layer"][1], _tensor(self._seen["encoder"][1]).shape[-1])

    def _note(self, name: str, path: str) -> None:
        def note(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            self._seen[name] = (next((each for each in args if isinstance(each, Tensor)), None), output)

        self._twin.get_submodule(path).register_forward_hook(note, with_kwargs=True)

    @torch.no_grad()
    def positions(self, batch: Mapping[str, Tensor | None], first_row: int = 0) -> Positions:
        """
        The positions of targets that beam search scores.

        Args:
            batch (`dict[str, torch.Tensor]`): `input_ids`, `attention_mask` and `labels`, −100 on padding.
            first_row (`int`, *optional*, defaults to 0): number of the first target.
        """
        labels = batch["labels"]
        scored, _ = beam_search_tokens(self.model, labels)
        logits = self._twin(**_inputs(self.model, batch), use_cache=False).logits
        kept = scored != PADDING
        states, outputs = self._seen["first"][0], self._seen["second"][1]
        if self.found.sum == "post":
            rests = self._seen["norm"][0] - outputs
        elif self.found.sum == "pre":
            rests = _tensor(self._seen["layer"][1]) - outputs
        else:
            rests = _tensor(self._seen["layer"][1]) - self._seen["norm"][1]
        self._seen = {}
        tokens = scored[kept]
        log_probs = full_precision(self._rules.logits(logits[kept])).log_softmax(-1)
        return Positions(
            rows=first_row + kept.nonzero()[:, 0],
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


def model_path(model: nn.Module, part: nn.Module) -> str:
    """The path of a module in a model."""
    return next(path for path, module in model.named_modules() if module is part)


def _tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return output[0] if isinstance(output, tuple | list) else output.last_hidden_state


def _inputs(model: PreTrainedModel, batch: Mapping[str, Tensor | None]) -> dict[str, Any]:
    labels = batch["labels"]
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "decoder_input_ids": decoder_inputs(model, labels),
        "return_dict": True,
    }
