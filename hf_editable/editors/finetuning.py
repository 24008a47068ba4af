"""Fine-tuning on the corrected pairs alone, of all weights, of the edited ones, or of low-rank adapters."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..checks import Numbers, check_count
from ..errors import EditableImportError, EditableValueError
from ..models.families import decoder_inputs
from ..models.layers import matching_paths
from ..numerics.scoring import cross_entropy
from .problems.constraint import check_finite, constraint_value
from .problems.translation_problem import JointEditProblem, TranslationEditProblem
from .protocol import Editor, EditOutcome, Tunable
from .registry import register_editor


Problem = TranslationEditProblem | JointEditProblem


@dataclass(frozen=True)
class FineTuningOptions:
    """
    Settings of [`FineTuning`].

    Args:
        adamw_learning_rate (`float`, *optional*): of AdamW; `None` takes 3e-4 for all weights, 1e-3 for the edited.
        weight_decay (`float`, *optional*, defaults to `0.01`): of AdamW.

    Raises:
        EditableValueError: if a value is out of range.
    """

    adamw_learning_rate: float | None = None
    weight_decay: float = 0.01

    def __post_init__(self):
        _check_rates(self.adamw_learning_rate, self.weight_decay)


class FineTuning(Editor):
    """
    Plain fine-tuning on the one pair, or on the pairs of a joint edit: AdamW on the token cross-entropy of the
    targets, until `l_e ≤ 0` or `max_steps` steps are taken. Dropout is off. The alternatives only decide when to stop.

    `"finetune_edited"` moves the weights that [`EditConfig`] names, `"finetune_all"` all of them.
    """

    learning_rate = 1e-3

    def forward(self, problem: Problem, create_graph: bool = False) -> EditOutcome:
        """See [`Editor`]."""
        with torch.inference_mode(False):
            working = copy.deepcopy(problem.model).eval().requires_grad_(False)
            named = dict(working.named_parameters(remove_duplicate=False))
            tuned = {name: named[name].requires_grad_() for name in self.moved(problem.model)}
            steps, before, after = _tune(working, tuned, problem, self.config.max_steps, *self._rates())
        tensors = {name: parameter.detach() for name, parameter in tuned.items()}
        return EditOutcome(tensors, torch.tensor(after), before, steps)

    def _rates(self) -> tuple[float, float]:
        rate = self.options.adamw_learning_rate
        return self.learning_rate if rate is None else rate, self.options.weight_decay

    def tunables(self) -> dict[str, Tunable]:
        """Its learning rate."""
        return {"adamw_learning_rate": Tunable((1e-5, 1e-2), scale=True)}


class FineTuningOfAll(FineTuning):
    """Fine-tuning of all weights that the model trains. See [`FineTuning`]."""

    learning_rate = 3e-4

    def moved(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        """All parameters that require gradients, tied ones by all of their names; not those of the model's editor."""
        # What the model itself does not train (sinusoidal positions) stays.
        named = model.named_parameters(remove_duplicate=False)
        return {name: each for name, each in named if each.requires_grad and not name.startswith("editor.")}


@dataclass(frozen=True)
class LoraOptions:
    """
    Settings of [`LoraTuning`].

    Args:
        rank (`int`, *optional*, defaults to `8`): of the adapters; from 1 to 1,024.
        alpha (`float`, *optional*, defaults to `16.0`): adapters are scaled by `alpha / rank`.
        adapted_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`):
            which modules are adapted; see `target_modules` of [`~peft.LoraConfig`].
        adamw_learning_rate (`float`, *optional*, defaults to `3e-3`): of AdamW.
        weight_decay (`float`, *optional*, defaults to `0.01`): of AdamW.
        adapter_seed (`int`, *optional*, defaults to `0`): of the adapters' first values, the same for every edit.

    Raises:
        EditableImportError: if PEFT is not installed.
        EditableValueError: if a value is out of range.
    """

    rank: int = 8
    alpha: float = 16.0
    adapted_modules: str | list[str] = "all-linear"
    adamw_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    adapter_seed: int = 0

    def __post_init__(self):
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise EditableImportError(
                f"The editor 'lora' needs PEFT, which cannot be imported ({error}). pip install hf_editable[lora]."
            ) from error
        Numbers(1, 1024).check("rank=", self.rank)
        check_count("adapter_seed", self.adapter_seed, least=0)
        _check_rates(self.adamw_learning_rate, self.weight_decay)
        if not 0 < self.alpha < float("inf"):
            raise EditableValueError(f"alpha={self.alpha!r}: it must be a number above 0, such as 16.0.")


class LoraTuning(Editor):
    """
    Fine-tuning of low-rank adapters ([Hu et al., 2022](https://arxiv.org/abs/2106.09685)) on the corrected pairs, by
    PEFT: as [`FineTuning`], and merged into the adapted weights at the end.
    """

    def forward(self, problem: Problem, create_graph: bool = False) -> EditOutcome:
        """See [`Editor`]."""
        options, model = self.options, problem.model
        with torch.inference_mode(False):
            working = copy.deepcopy(model).eval().requires_grad_(False)
            adapted = self._adapt(working)
            tuned = {name: parameter for name, parameter in working.named_parameters() if parameter.requires_grad}
            rates = (options.adamw_learning_rate, options.weight_decay)
            steps, before, _ = _tune(working, tuned, problem, self.config.max_steps, *rates)
            for layer in adapted.values():
                layer.merge()
            # The merged weights are what is applied, and rounding may decide.
            after = before
            if steps:
                after = constraint_value(working, problem.edits, problem.length_penalty)
        named = dict(model.named_parameters(remove_duplicate=False))
        tensors = {}
        for path, layer in adapted.items():
            name = f"{path}.weight"
            tensors[name] = layer.get_base_layer().weight.detach().to(named[name].dtype)
        return EditOutcome(tensors, torch.tensor(after), before, steps)

    def moved(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        """The weights of the modules that adapters are put into."""
        working = copy.deepcopy(model).requires_grad_(False)
        named = dict(model.named_parameters(remove_duplicate=False))
        return {f"{path}.weight": named[f"{path}.weight"] for path in self._adapt(working)}

    def tunables(self) -> dict[str, Tunable]:
        """Its learning rate."""
        return {"adamw_learning_rate": Tunable((1e-4, 1e-1), scale=True)}

    def _adapt(self, working: PreTrainedModel) -> dict[str, nn.Module]:
        """Put adapters into the model; the adapted layers by their paths in it."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        options, wanted = self.options, self.options.adapted_modules
        if isinstance(wanted, str) and wanted != "all-linear":
            # PEFT would match for as long as it takes.
            wanted = matching_paths([path for path, _ in working.named_modules() if path], wanted)
        config = LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules=wanted, lora_dropout=0.0)
        with _seeded(options.adapter_seed, working.device):
            try:
                inject_adapter_in_model(config, working)
            except ValueError as error:
                raise EditableValueError(
                    f"adapted_modules={options.adapted_modules!r} cannot be adapted by PEFT: {error}"
                ) from error
        return {path: module for path, module in working.named_modules() if isinstance(module, LoraLayer)}


def _check_rates(learning_rate: float | None, weight_decay: float) -> None:
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise EditableValueError(f"adamw_learning_rate={learning_rate!r}: it must be a number above 0, such as 1e-4.")
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
    working: PreTrainedModel,
    tuned: dict[str, nn.Parameter],
    problem: Problem,
    max_steps: int,
    learning_rate: float,
    weight_decay: float,
) -> tuple[int, float, float]:
    """Steps taken on a copy of the model, and `l_e` before and after them."""
    # Half precision would swallow small steps, so the optimizer has its own weights. Tied ones are one weight.
    parameters = list({id(parameter): parameter for parameter in tuned.values()}.values())
    masters = [parameter.detach().float().requires_grad_() for parameter in parameters]
    optimizer = torch.optim.AdamW(masters, lr=learning_rate, weight_decay=weight_decay)
    batches = [_batch(working, edit) for edit in problem.edits]
    before = loss = constraint_value(working, problem.edits, problem.length_penalty)
    steps = 0
    while loss > 0 and steps < max_steps:
        with torch.enable_grad():
            losses = [_target_loss(working, *batch) for batch in batches]
            target_loss = torch.stack(losses).mean()
        check_finite(target_loss.item(), "cross-entropy")
        gradients = torch.autograd.grad(target_loss, parameters, materialize_grads=True)
        for master, gradient in zip(masters, gradients, strict=True):
            master.grad = gradient.to(master.dtype)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
        steps += 1
        loss = constraint_value(working, problem.edits, problem.length_penalty)
    return steps, before, loss


def _batch(working: PreTrainedModel, edit: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    labels = edit["labels"]
    batch = {name: edit[name] for name in ("input_ids", "attention_mask")}
    return {**batch, "decoder_input_ids": decoder_inputs(working, labels)}, labels


def _target_loss(working: PreTrainedModel, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    return cross_entropy(working(**batch, use_cache=False, return_dict=True).logits, labels)


register_editor("finetune_all", FineTuningOptions, FineTuningOfAll)
register_editor("finetune_edited", FineTuningOptions, FineTuning)
register_editor("lora", LoraOptions, LoraTuning)
