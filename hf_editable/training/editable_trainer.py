"""Editable Training of translation models."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..configuration import BaseLoss
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..errors import EditableValueError
from ..modeling.mixin import EditableMixin
from ..models.private_names import check_private_names
from ..numerics.scoring import num_tokens
from ..runs.processes import share_out
from .arguments import EditableSeq2SeqTrainingArguments
from .batches import permutation
from .preconditions import check_edits, check_kinds, check_whole, keep_layers
from .translation_trainer import TranslationTrainer


check_private_names(__name__)


logger = logging.get_logger(__name__)


# Sets the order of edits apart from the order of the training rows, of which there may be as many: the edit of a batch
# would else be of one of its own sentences.
EDIT_SEED_OFFSET = 1_000_003


LOGGED_TERMS = ("base_loss", "edit_loss", "locality_loss", "edit_success", "edit_steps")


class EditableSeq2SeqTrainer(TranslationTrainer):
    """
    Editable Training ([Sinitsin et al., 2020](https://arxiv.org/abs/2004.00345)) of a translation model.

    Each training batch gets `edits_per_step` mined edits, and the model's forward computes
    `base_loss + c_edit · edit_loss + c_loc · locality_loss`. Which edits an optimizer step sees depends on its number
    alone, so interrupted runs, accumulated batches and several processes go the way of one uninterrupted batch.

    Beside what [`~transformers.Seq2SeqTrainer`] logs, there are `base_loss`, `edit_loss` (nats), `locality_loss`
    (nats a token), `edit_success` (share of edits) and `edit_steps` (mean over edits), each a mean since the last log,
    and what the editor logs: of gradient editors `editor_learning_rate`, the step size α of edits as it is.

    Mixed precision, activation checkpointing, `torch_compile` (of the model's own pass; edits run uncompiled) and
    DistributedDataParallel go on working. DeepSpeed, FSDP and tensor parallelism are refused: edits need whole layers.

    Args:
        model ([`EditableMixin`]): the model to train. The weights `c_edit`, `c_loc` and `base_loss` of `args`, where
            they are set, are written to its `edit_config`.
        args ([`EditableSeq2SeqTrainingArguments`]): arguments.
        edit_dataset ([`~datasets.Dataset`], *optional*):
            Mined edits: text columns `source`, `target` and `alternatives`. `None` trains on the base loss alone.
        eval_edit_dataset ([`~datasets.Dataset`], *optional*):
            Held-out mined edits that evaluation measures too, on any number of processes the same: `eval_edit_success`
            (share of edits), `eval_edit_steps`, `eval_edit_loss` (nats; means over edits) and `eval_locality_loss`
            (nats a token, each edit on its own `per_device_eval_batch_size` rows of the evaluation set). Any of them
            can be `metric_for_best_model`.
        teacher_model ([`~transformers.PreTrainedModel`], *optional*):
            Model to stay near, for `base_loss="distillation"`. `None` takes a frozen copy of `model` as it is now, so
            construct a resumed trainer from the same original model.
        **kwargs: what [`~transformers.Seq2SeqTrainer`] takes (`train_dataset`, `processing_class`, `callbacks`, …).

    Raises:
        EditableTypeError: if the model cannot be edited, or the arguments or the collator are of another kind.
        EditableValueError: if the edits are none or lack a column, or a teacher is given that nothing would use.

    Example:

    ```python
    >>> trainer = EditableSeq2SeqTrainer(
    ...     model, args, train_dataset=train, edit_dataset=edits, processing_class=tokenizer
    ... )  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        model: EditableMixin,
        args: EditableSeq2SeqTrainingArguments,
        *,
        edit_dataset: Dataset | None = None,
        eval_edit_dataset: Dataset | None = None,
        teacher_model: PreTrainedModel | None = None,
        **kwargs: Any,
    ):
        check_kinds(model, args, kwargs.get("data_collator"))
        weights = {name: getattr(args, name) for name in ("c_edit", "c_loc", "base_loss")}
        model.edit_config = model.edit_config.replace(
            **{name: value for name, value in weights.items() if value is not None}
        )
        for name, edits in (("edit_dataset", edit_dataset), ("eval_edit_dataset", eval_edit_dataset)):
            if edits is not None:
                check_edits(name, edits)
        check_whole(model, args.n_gpu)
        keep_layers(model)
        distils = model.edit_config.base_loss == BaseLoss.DISTILLATION.value
        if teacher_model is not None and not distils:
            raise EditableValueError(
                "teacher_model is for base_loss='distillation' only: set that, or give no teacher."
            )
        super().__init__(model, args, **kwargs)
        # The model's forward computes the whole objective, scaled by the counts that we pass it.
        self.compute_loss_func = None
        self.edit_dataset, self.eval_edit_dataset = edit_dataset, eval_edit_dataset
        self.teacher_model = None
        if distils:
            teacher = copy.deepcopy(model) if teacher_model is None else teacher_model
            self.teacher_model = teacher.to(args.device).eval().requires_grad_(False)
        self._reset_terms()

    def _default_collator(self, tokenizer: Any, model: PreTrainedModel) -> Callable:
        return DataCollatorForEditableSeq2Seq(tokenizer, model=model)

    def _reset_terms(self) -> None:
        self._term_sums: dict[str, Tensor] = {}
        self._steps_since_log = 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as [`~transformers.Trainer.train`] does."""
        self._reset_terms()
        return super().train(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the stock optimizer, with the editor's coefficients in a group of their own."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            coefficients = [weight for weight in self.model.editor.parameters() if weight.requires_grad]
            own = {id(weight) for weight in coefficients}
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if id(weight) not in own]
            if coefficients:
                optimizer.add_param_group(
                    {"params": coefficients, "lr": self.args.coefficients_learning_rate, "weight_decay": 0.0}
                )
        return self.optimizer

    def edit_indices(self, step: int, micro_batch: int) -> list[int]:
        """
        Rows of the edit dataset that this process uses in one micro-batch.

        The edits are one endless stream, a new permutation of the dataset after each pass; micro-batches take their
        share of it in the order in which accelerate deals batches to processes.

        Args:
            step (`int`): optimizer step, from 0.
            micro_batch (`int`): position among the accumulated micro-batches, from 0.

        Returns:
            `list[int]`: `edits_per_step` rows.
        """
        turn = step * self.args.gradient_accumulation_steps + micro_batch
        start = (turn * self.args.world_size + self.args.process_index) * self.args.edits_per_step
        size = len(self.edit_dataset)
        seed = self._sampling_seed + EDIT_SEED_OFFSET
        return [
            permutation(size, seed, position // size)[position % size]
            for position in range(start, start + self.args.edits_per_step)
        ]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        """Take the micro-batches of one optimizer step, as the stock trainer does, and add their edits."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps_since_log += 1
        if self.edit_dataset is None:
            return batches, num_items
        num_edits = self.args.edits_per_step * len(batches) * self._loss_scale
        for micro_batch, batch in enumerate(batches):
            rows = [self.edit_dataset[index] for index in self.edit_indices(self.state.global_step, micro_batch)]
            batch.update(self.data_collator.collate_edits(rows), num_edits_in_batch=num_edits)
        return batches, num_items

    @property
    def _loss_scale(self) -> int:
        """Processes over which counts are summed; the loss is multiplied by it, as DDP averages gradients."""
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The objective of a training batch; in evaluation, the plain mean token cross-entropy."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        extra = {"label_smoothing": self.args.label_smoothing_factor}
        if self.teacher_model is not None:
            extra["reference_logits"] = self._reference_logits(inputs)
        loss, outputs = super().compute_loss(model, {**inputs, **extra}, True, num_items_in_batch)
        for name in LOGGED_TERMS:
            if (term := outputs.get(name)) is not None:
                self._term_sums[name] = self._term_sums.get(name, 0.0) + term.detach() * self._loss_scale
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _reference_logits(self, inputs: dict[str, Any]) -> Tensor:
        base = {name: value for name, value in inputs.items() if "edit" not in name}
        with self.accelerator.autocast():
            return self.teacher_model(**base).logits

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Evaluate as [`TranslationTrainer`] does, and measure the edits of `eval_edit_dataset`."""
        options = {**kwargs, "metric_key_prefix": metric_key_prefix}
        output = super().evaluation_loop(dataloader, description, *args, **options)
        if self.eval_edit_dataset is not None and description == "Evaluation":
            measures = self._measure_edits(dataloader.dataset)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in measures.items()})
        return output

    @torch.no_grad()
    def _measure_edits(self, dataset: Dataset) -> dict[str, float]:
        """Means over the edits of `eval_edit_dataset`, made one by one as in training, of the model as it is."""

        def measure(index: int) -> list[float]:
            start, count = index * self.args.eval_batch_size, min(self.args.eval_batch_size, len(dataset))
            batch = self.data_collator([dataset[row % len(dataset)] for row in range(start, start + count)])
            edit = self.data_collator.collate_edits([self.eval_edit_dataset[index]])
            inputs = self._prepare_inputs({**batch, **edit, "num_items_in_batch": 1})
            with self.compute_loss_context_manager():
                outputs = self.model(**inputs)
            return [float(num_tokens(inputs["labels"])), *(float(outputs[name]) for name in LOGGED_TERMS[1:])]

        rows = share_out(measure, range(len(self.eval_edit_dataset)))
        tokens, *sums = (math.fsum(column) for column in zip(*rows, strict=True))
        divisors = {"locality_loss": tokens}
        return {
            name: total / divisors.get(name, len(self.eval_edit_dataset))
            for name, total in zip(LOGGED_TERMS[1:], sums, strict=True)
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, adding the terms of the objective to the logs of training steps."""
        if "loss" in logs:
            for name, total in self._term_sums.items():
                logs[name] = self.accelerator.gather(total).mean().item() / self._steps_since_log
            if self.edit_dataset is not None:
                logs.update(self.model.editor.logs())
            self._reset_terms()
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # A checkpoint is a plain one: the editor's coefficients are in its config.json, not among its weights.
        self.model.load_editor_state(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.model.load_editor_state(self.state.best_model_checkpoint)
