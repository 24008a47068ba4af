"""Fine-tuning on the one pair, of all weights, of the edited ones, or of low-rank adapters."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ExplicitEnum

from ...checks import check_count
from ...configuration import EditConfig
from ...editors.result import EditResult
from ...errors import EditableImportError, EditableValueError
from ...modeling.mixin import EditableMixin
from ...models.families import decoder_inputs
from ...numerics.scoring import cross_entropy
from ...tail.decoder_tail import Tail
from .base import check_finite, edit_loss, method_config, method_result


class TunedWeights(ExplicitEnum):
    """Which weights [`FineTuning`] moves."""

    ALL = "all"
    EDITED = "edited"


_LEARNING_RATES = {TunedWeights.ALL.value: 3e-4, TunedWeights.EDITED.value: 1e-3}


class FineTuning:
    """
    Plain fine-tuning on the one pair: AdamW on the token cross-entropy of the target, until `l_e ≤ 0` or `max_steps`
    steps are taken. Dropout is off. The alternatives only decide when to stop.

    Args:
        parameters (`str`, *optional*, defaults to `"all"`):
            `"all"` weights of the model, or the `"edited"` ones, which [`EditConfig`] names.
        learning_rate (`float`, *optional*): of AdamW; `None` takes 3e-4 for all weights, 1e-3 for the edited ones.
        weight_decay (`float`, *optional*, defaults to `0.01`): of AdamW.

    Raises:
        EditableValueError: if a value is out of range.

    Example:

    ```python
    >>> from hf_editable.evaluation.methods import FineTuning

    >>> method = FineTuning("edited", learning_rate=1e-3)  # doctest: +SKIP
    >>> report = evaluate_edits(model, tokenizer, edits, data["test"], method=method)  # doctest: +SKIP
    ```
    """

    def __init__(self, parameters: str = "all", learning_rate: float | None = None, weight_decay: float = 0.01):
        allowed = [kind.value for kind in TunedWeights]
        if parameters not in allowed:
            raise EditableValueError(f"parameters={parameters!r}: choose one of {', '.join(map(repr, allowed))}.")
        if learning_rate is None:
            learning_rate = _LEARNING_RATES[parameters]
        _check_rates(learning_rate, weight_decay)
        self.name = f"finetune_{TunedWeights(parameters).value}"
        self.arguments: dict[str, Any] = {
            "method": self.name,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
        }

    def __call__(self, model: EditableMixin, inputs: Mapping[str, Tensor], **overrides: Any) -> EditResult:
        """See [`EditMethod`]."""
        config = method_config(model, inputs, overrides)
        with torch.inference_mode(False):
            working = copy.deepcopy(model).eval().requires_grad_(False)
            named = dict(working.named_parameters())
            if self.name.endswith(TunedWeights.EDITED.value):
                names = list(Tail(model, config).parameters)
            else:
                # What the model itself does not train (sinusoidal positions) stays, and so does its editor.
                names = [
                    name
                    for name, parameter in model.named_parameters()
                    if parameter.requires_grad and not name.startswith("editor.")
                ]
            tuned = {name: named[name].requires_grad_() for name in names}
            steps, before, after = _tune(working, tuned, inputs, config, self.arguments)
        tensors = {name: parameter.detach() for name, parameter in tuned.items()}
        return method_result(model, config, tensors, (before, after), steps)


class LoraTuning:
    """
    Fine-tuning of low-rank adapters ([Hu et al., 2022](https://arxiv.org/abs/2106.09685)) on the one pair, by PEFT:
    as [`FineTuning`], and merged into the adapted weights at the end.

    Args:
        rank (`int`, *optional*, defaults to `8`): of the adapters.
        alpha (`float`, *optional*, defaults to `16.0`): adapters are scaled by `alpha / rank`.
        target_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`):
            which modules are adapted; see [`~peft.LoraConfig`].
        learning_rate (`float`, *optional*, defaults to `3e-3`): of AdamW.
        weight_decay (`float`, *optional*, defaults to `0.01`): of AdamW.
        seed (`int`, *optional*, defaults to `0`): of the adapters' first values, the same for every edit.

    Raises:
        EditableImportError: if PEFT is not installed.
        EditableValueError: if a value is out of range.
    """

    name = "lora"

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        target_modules: str | list[str] = "all-linear",
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        seed: int = 0,
    ):
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise EditableImportError(
                f"The method {self.name!r} needs PEFT, which cannot be imported ({error}). "
                "pip install hf_editable[lora]."
            ) from error
        check_count("rank", rank)
        check_count("seed", seed, least=0)
        _check_rates(learning_rate, weight_decay)
        if not 0 < alpha < float("inf"):
            raise EditableValueError(f"alpha={alpha!r}: it must be a number above 0, such as 16.0.")
        self.arguments: dict[str, Any] = {
            "method": self.name,
            "rank": rank,
            "alpha": alpha,
            "target_modules": target_modules,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "seed": seed,
        }

    def __call__(self, model: EditableMixin, inputs: Mapping[str, Tensor], **overrides: Any) -> EditResult:
        """See [`EditMethod`]."""
        config = method_config(model, inputs, overrides)
        with torch.inference_mode(False):
            working = copy.deepcopy(model).eval().requires_grad_(False)
            adapted = self._adapt(working)
            tuned = {name: parameter for name, parameter in working.named_parameters() if parameter.requires_grad}
            steps, before, _ = _tune(working, tuned, inputs, config, self.arguments)
            for layer in adapted.values():
                layer.merge()
            # The merged weights are what is applied, and rounding may decide.
            after = before if steps == 0 else edit_loss(working, inputs, config)
        named = dict(model.named_parameters(remove_duplicate=False))
        tensors = {}
        for path, layer in adapted.items():
            name = f"{path}.weight"
            tensors[name] = layer.get_base_layer().weight.detach().to(named[name].dtype)
        return method_result(model, config, tensors, (before, after), steps)

    def _adapt(self, working: EditableMixin) -> dict[str, nn.Module]:
        """Put adapters into the model; the adapted layers by their paths in it."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        arguments = self.arguments
        config = LoraConfig(
            r=arguments["rank"],
            lora_alpha=arguments["alpha"],
            target_modules=arguments["target_modules"],
            lora_dropout=0.0,
        )
        with _seeded(arguments["seed"], working.device):
            try:
                inject_adapter_in_model(config, working)
            except ValueError as error:
                raise EditableValueError(
                    f"target_modules={arguments['target_modules']!r} cannot be adapted by PEFT: {error}"
                ) from error
        return {path: module for path, module in working.named_modules() if isinstance(module, LoraLayer)}


def _check_rates(learning_rate: float, weight_decay: float) -> None:
    if not 0 < learning_rate < float("inf"):
        raise EditableValueError(f"learning_rate={learning_rate!r}: it must be a number above 0, such as 1e-4.")
    if not 0 <= weight_decay < float("inf"):
        raise EditableValueError(f"weight_decay={weight_decay!r}: it must be 0 or a number above it.")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from a seed inside the block; the generators' own states after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _tune(
    working: EditableMixin,
    tuned: dict[str, nn.Parameter],
    inputs: Mapping[str, Tensor],
    config: EditConfig,
    arguments: Mapping[str, Any],
) -> tuple[int, float, float]:
    """Steps taken on a copy of the model, and `l_e` before and after them."""
    # Half precision would swallow small steps, so the optimizer has its own weights.
    masters = [parameter.detach().float().requires_grad_() for parameter in tuned.values()]
    rate, decay = arguments["learning_rate"], arguments["weight_decay"]
    optimizer = torch.optim.AdamW(masters, lr=rate, weight_decay=decay)
    labels = inputs["labels"]
    batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    batch["decoder_input_ids"] = decoder_inputs(working, labels)
    before = loss = edit_loss(working, inputs, config)
    steps = 0
    while loss > 0 and steps < config.max_steps:
        with torch.enable_grad():
            logits = working(**batch, use_cache=False, return_dict=True).logits
            target_loss = cross_entropy(logits, labels)
        check_finite(target_loss.item(), "cross-entropy")
        gradients = torch.autograd.grad(target_loss, list(tuned.values()), materialize_grads=True)
        for master, gradient in zip(masters, gradients, strict=True):
            master.grad = gradient.to(master.dtype)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, tuned.values(), strict=True):
                parameter.copy_(master)
        steps += 1
        loss = edit_loss(working, inputs, config)
    return steps, before, loss
