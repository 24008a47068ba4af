"""What a way of editing is, for the evaluation, and what all of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...checks import check_count
from ...configuration import EditConfig
from ...data.collator import DataCollatorForEditableSeq2Seq
from ...editors.candidates import candidates, check_edit
from ...editors.result import EditResult
from ...errors import EditableValueError, NonFiniteEditError
from ...modeling.mixin import EditableMixin
from ...models.families import beam_search_tokens, decoder_inputs, encoder_output
from ...numerics.scoring import constraint_loss, sequence_scores
from ...patches.patch import EditPatch
from ...runs.fingerprints import fingerprint, fingerprint_rows


@runtime_checkable
class EditMethod(Protocol):
    """
    A way to edit, to be measured beside the package's own. See [`evaluate_edits`].

    Attributes:
        name (`str`): what reports call it.
        arguments (`dict[str, Any]`):
            all that its edits depend on, as plain JSON values: a run is resumed only with the same ones.
    """

    name: str
    arguments: dict[str, Any]

    def __call__(self, model: EditableMixin, inputs: Mapping[str, Tensor], **overrides: Any) -> EditResult:
        """
        Find an edit. Nothing of the model is changed, also on an exception.

        Args:
            model ([`EditableMixin`]): the model.
            inputs (`dict[str, torch.Tensor]`):
                `input_ids`, `attention_mask`, `labels` and `alternative_labels` of one edit, as
                [`EditableMixin.edit`] takes them.
            overrides (*optional*): fields of [`EditConfig`] to change for this edit.

        Returns:
            [`EditResult`]; the patch has the changed tensors, any parameters of the model, by their names. A
            [`LookupResult`] changes none.
        """
        ...


@dataclass
class LookupResult(EditResult):
    """
    An edit that is kept in a table: the translation of its source, and of no other text, is its target, whatever the
    model says. See [`EditResult`]; its `success` and `loss` are those of the model, which no table moves.
    """


class PairSample:
    """
    Translation pairs that an edit must not disturb, chosen at random.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        pairs (`Sequence[dict[str, str]]`): rows with `source` and `target`, as those of a [`~datasets.Dataset`].
        num_pairs (`int`): how many are taken; all, if there are fewer.
        seed (`int`): of the choice.

    Attributes:
        arguments (`dict[str, Any]`): the number of pairs and their fingerprint.

    Raises:
        EditableValueError: if there are no pairs, or `num_pairs` is below 1.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Mapping[str, str]], num_pairs: int, seed: int
    ):
        check_count("num_pairs", num_pairs)
        if not len(pairs):
            raise EditableValueError("There are no pairs to protect; give rows with source and target.")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(pairs), generator=generator)[:num_pairs].tolist()
        self._tokenizer = tokenizer
        self._pairs = [{key: pairs[index][key] for key in ("source", "target")} for index in chosen]
        self.arguments = {"num_pairs": len(self._pairs), "pairs": fingerprint_rows(self._pairs)}

    def batch(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """All pairs as `input_ids`, `attention_mask` and `labels`, on the model's device."""
        collator = DataCollatorForEditableSeq2Seq(self._tokenizer, model)
        sources = collator.encode("source", [pair["source"] for pair in self._pairs])
        targets = collator.encode("target", [pair["target"] for pair in self._pairs])
        rows = [{"input_ids": x, "labels": y} for x, y in zip(sources, targets, strict=True)]
        return {name: tensor.to(model.device) for name, tensor in collator(rows).items()}


def method_config(model: EditableMixin, inputs: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> EditConfig:
    """
    The configuration of an edit.

    Raises:
        EditableValueError: if the inputs are none of one edit, or a value is out of range.
        EditableTypeError: if an override is no field of [`EditConfig`].
    """
    check_edit(model.config, inputs["input_ids"], inputs.get("labels"), inputs.get("alternative_labels"))
    return model.edit_config.replace(**overrides)


@torch.no_grad()
def edit_loss(model: EditableMixin, inputs: Mapping[str, Tensor], config: EditConfig) -> float:
    """
    `l_e` of a model as it is, by full passes: for edits that move more than the tail.

    Args:
        model ([`EditableMixin`]): in evaluation mode.
        inputs (`dict[str, torch.Tensor]`): of one edit; see [`EditMethod`].
        config ([`EditConfig`]): says how many alternatives there are, and the length penalty.

    Raises:
        NonFiniteEditError: if it is NaN or infinite.
    """
    labels = candidates(inputs["labels"], inputs["alternative_labels"][:, : config.num_alternatives])
    encoded = model.get_encoder()(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], return_dict=True
    )
    rows = labels.shape[0]
    logits = model(
        input_ids=inputs["input_ids"].expand(rows, -1),
        encoder_outputs=encoder_output(encoded.last_hidden_state.expand(rows, -1, -1)),
        attention_mask=inputs["attention_mask"].expand(rows, -1),
        decoder_input_ids=decoder_inputs(model, labels),
        use_cache=False,
        return_dict=True,
    ).logits
    scored, lengths = beam_search_tokens(model, labels)
    value = constraint_loss(sequence_scores(logits, scored, model.edit_length_penalty(config), lengths)).item()
    return check_finite(value, "l_e")


def check_finite(value: float, name: str) -> float:
    """
    Raises:
        NonFiniteEditError: if the value is NaN or infinite.
    """
    if not -float("inf") < value < float("inf"):
        raise NonFiniteEditError(
            f"The {name} of the edit is {value}; the model is unchanged. Check its weights for NaN, or lower the "
            "learning rate of the method."
        )
    return value


def method_result(
    model: EditableMixin,
    config: EditConfig,
    tensors: dict[str, Tensor],
    losses: tuple[float, float],
    steps: int,
    kind: type[EditResult] = EditResult,
) -> EditResult:
    """
    What a method returns.

    Args:
        model ([`EditableMixin`]): the model, unedited.
        config ([`EditConfig`]): of the edit.
        tensors (`dict[str, torch.Tensor]`): the changed tensors, by their names in the model.
        losses (`tuple[float, float]`): `l_e` before and after.
        steps (`int`): steps taken.
        kind (`type`, *optional*, defaults to [`EditResult`]): the class of the result.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    before, after = losses
    patch = EditPatch(
        changes=tensors,
        base_fingerprint=fingerprint({name: parameters[name] for name in tensors}),
        loss_before=before,
        loss_after=after,
        steps=steps,
        length_penalty=model.edit_length_penalty(config),
        base_model=model.config._name_or_path or None,
        base_revision=getattr(model.config, "_commit_hash", None),
    )
    return kind(success=after <= 0, steps=steps, loss=after, initial_loss=before, patch=patch)


def make_edit(
    model: EditableMixin,
    inputs: Mapping[str, Tensor],
    method: EditMethod | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> EditResult:
    """An edit by a method; `None` is the model's own `edit`. See [`EditMethod`]."""
    overrides = overrides or {}
    return model.edit(**inputs, **overrides) if method is None else method(model, inputs, **overrides)


def method_name(method: EditMethod | None) -> str:
    """What reports call a method; `None` is the model's own `edit`."""
    return "edit" if method is None else method.name


def method_arguments(method: EditMethod | None) -> dict[str, Any]:
    """What a journal keeps of a method."""
    return {} if method is None else {"method": method.arguments}
