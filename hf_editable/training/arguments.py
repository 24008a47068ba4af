"""Arguments of training, beside those of `Seq2SeqTrainingArguments`."""

import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from ..configuration import BaseLoss
from ..errors import EditableValueError


@dataclass
class TranslationTrainingArguments(Seq2SeqTrainingArguments):
    r"""
    Arguments of [`TranslationTrainer`]: [`~transformers.Seq2SeqTrainingArguments`] and batches measured in tokens.

    Args:
        max_tokens_per_batch (`int`, *optional*):
            The most tokens of a device's batch, padding included, on its longer side (fairseq's `--max-tokens`). A
            longer sentence gets a batch of its own. `None` takes `per_device_train_batch_size` sentences instead.

    Copies and saved arguments are without `hub_token`.

    Raises:
        EditableValueError: if a value is out of range.
    """

    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "The most tokens of a device's batch, padding included, on its longer side. Default: batches of "
            "per_device_train_batch_size sentences."
        },
    )

    def __getstate__(self) -> dict[str, Any]:
        # Trainers save their arguments beside the model, and upload them: `training_args.bin` must hold no token.
        return {name: None if name.endswith("_token") else value for name, value in self.__dict__.items()}

    def __post_init__(self):
        super().__post_init__()
        # Without an accelerator there is no other memory to copy to; torch warns of it at every loader.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise EditableValueError(
                f"max_tokens_per_batch={self.max_tokens_per_batch!r}: it must be 1 or more, or None for sentences."
            )


@dataclass
class EditableSeq2SeqTrainingArguments(TranslationTrainingArguments):
    r"""
    Arguments of [`EditableSeq2SeqTrainer`]: those of [`~transformers.Seq2SeqTrainingArguments`], and the weights and
    the pace of Editable Training ([Sinitsin et al., 2020](https://arxiv.org/abs/2004.00345)).

    `c_edit` and `c_loc` stand against the *mean* token loss. The authors' 100 stands against a token loss summed over
    a batch, so it is `100 / tokens in a batch` here: about 0.025 at 4,096 tokens. 100 itself drowns the translation
    loss.

    Args:
        c_edit (`float`, *optional*):
            Weight of the edit loss against the mean token loss, at least 0. `None` takes the model's
            [`EditConfig`] value.
        c_loc (`float`, *optional*):
            Weight of the locality loss against the mean token loss, at least 0. `None` takes the model's
            [`EditConfig`] value.
        base_loss (`str`, *optional*):
            `"cross_entropy"` of the references, or `"distillation"`: the KL divergence from the original model
            (paper, section 4.3). `None` takes the model's [`EditConfig`] value.
        edits_per_step (`int`, *optional*, defaults to `1`):
            Edits in each device's micro-batch, at least 1. An optimizer step sees
            `edits_per_step × gradient_accumulation_steps × processes` edits.
        coefficients_learning_rate (`float`, *optional*, defaults to `0.001`):
            Learning rate, at least 0, of the editor's own coefficients: the logarithm of its step size α and the logit
            of its decay β. They have no weight decay; the schedule scales this rate as it does `learning_rate`. Adam
            moves α by about this share of it a step, mostly down, as small steps are local: large rates soon make
            edits need `max_steps` steps.

    Raises:
        EditableValueError: if a value is out of range, DeepSpeed, FSDP or Megatron-LM would split the layers, or
            `activation_checkpointing_kwargs` asks for the reentrant kind, which cannot be differentiated twice.

    Example:

    ```python
    >>> from hf_editable import EditableSeq2SeqTrainingArguments

    >>> args = EditableSeq2SeqTrainingArguments(output_dir="editable", c_loc=100 / 4096, c_edit=100 / 4096)
    >>> args.edits_per_step
    1
    ```
    """

    c_edit: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the edit loss against the mean token loss (0 or more). The paper's 100 stands against "
            "a token loss summed over a batch: 100 / tokens in a batch, about 0.025 at 4,096. Default: the model's."
        },
    )
    c_loc: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the locality loss against the mean token loss (0 or more), converted as c_edit is. "
            "Default: the model's."
        },
    )
    base_loss: str | None = field(
        default=None,
        metadata={
            "help": "First term of the objective: 'cross_entropy' of the references, or 'distillation', the KL "
            "divergence from the original model. Default: the model's.",
            "choices": [kind.value for kind in BaseLoss],
        },
    )
    edits_per_step: int = field(
        default=1, metadata={"help": "Edits in each device's micro-batch of a training step (1 or more)."}
    )
    coefficients_learning_rate: float = field(
        default=1e-3,
        metadata={
            "help": "Learning rate (0 or more) of the editor's coefficients, log(step size) and logit(decay). They "
            "have no weight decay; the schedule scales this as it does learning_rate."
        },
    )
    # The forward pass also takes edit_labels, which would else count as labels that a batch must have.
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"],
        metadata={"help": "The keys in a batch that hold labels."},
    )

    def __post_init__(self):
        self._check_whole_layers()
        super().__post_init__()
        for name in ("c_edit", "c_loc", "coefficients_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise EditableValueError(f"{name}={value!r}: it must be a finite number, 0 or more.")
        if self.base_loss is not None and self.base_loss not in (allowed := [kind.value for kind in BaseLoss]):
            raise EditableValueError(f"base_loss={self.base_loss!r}: choose one of {', '.join(allowed)}.")
        if self.edits_per_step < 1:
            raise EditableValueError(f"edits_per_step={self.edits_per_step!r}: it must be a whole number, 1 or more.")
        if (self.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise EditableValueError(
                "activation_checkpointing_kwargs={'use_reentrant': True}: an edit is differentiated twice, which "
                "reentrant checkpointing cannot do. Use {'use_reentrant': False}, the default."
            )

    def _check_whole_layers(self) -> None:
        for name in ("deepspeed", "fsdp", "megatron_lm"):
            launched = os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() in ("1", "true")
            if launched or getattr(self, name, None):
                raise EditableValueError(
                    f"{name} splits layers over processes, but an edit needs them whole. Train with "
                    f"DistributedDataParallel: accelerate launch --multi_gpu, without {name} in its configuration or "
                    "in the arguments."
                )
