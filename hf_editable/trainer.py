"""Training of translation models, and Editable Training of them."""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, Seq2SeqTrainer
from transformers.utils import logging

from .collator import DataCollatorForEditableSeq2Seq
from .configuration import BaseLoss
from .errors import EditableTypeError, EditableValueError
from .modeling import EditableMixin
from .scoring import cross_entropy
from .tail import decoder_inputs
from .training_args import EditableSeq2SeqTrainingArguments, TranslationTrainingArguments


logger = logging.get_logger(__name__)

# Sets the order of edits apart from the order of the training rows, of which there may be as many: the edit of a batch
# would else be of one of its own sentences.
EDIT_SEED_OFFSET = 1_000_003

LOGGED_TERMS = ("base_loss", "edit_loss", "locality_loss", "edit_success", "edit_steps")


class TokenBatchSampler(Sampler[list[int]]):
    """
    Batches of rows of about one length, at most `max_tokens` tokens each with padding, as fairseq makes them.

    The batches are made once; each epoch has its own order of them, which depends on `seed` and the epoch alone, so a
    resumed run and every process see the same.

    Args:
        lengths (`list[int]`): tokens of each row, on its longer side.
        max_tokens (`int`): the most tokens of a batch: rows × the longest. A longer row is a batch by itself.
        seed (`int`): of the choice among rows of one length, and of the order.
        epoch (`Callable[[], int]`): tells the current epoch, from 0.
    """

    def __init__(self, lengths: list[int], max_tokens: int, seed: int, epoch: Callable[[], int]):
        self.seed, self.epoch = seed, epoch
        self.batches: list[list[int]] = []
        shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
        for row in sorted(shuffled, key=lengths.__getitem__):
            # Rows come in ascending order, so this row is the longest of its batch.
            if not self.batches or lengths[row] * (len(self.batches[-1]) + 1) > max_tokens:
                self.batches.append([])
            self.batches[-1].append(row)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for index in _permutation(len(self.batches), self.seed, self.epoch()):
            yield self.batches[index]


class TranslationTrainer(Seq2SeqTrainer):
    """
    A [`~transformers.Seq2SeqTrainer`] whose training loss, batches and evaluation are exact for translation models.

    - The loss of an optimizer step is its mean over all target tokens, however they are spread over gradient
      accumulation steps and processes. (Under the stock trainer, the loss of Marian, BART or T5 grows with both.)
    - `label_smoothing_factor` counts in training only, so evaluation losses of different runs can be compared.
    - Batches can be measured in tokens (`max_tokens_per_batch`).
    - Predictions made on several processes hold each example once. (Stock ones repeat some, to fill the last batch.)

    Args:
        model ([`~transformers.PreTrainedModel`]): encoder-decoder model to train.
        args ([`TranslationTrainingArguments`]): arguments.
        **kwargs: what [`~transformers.Seq2SeqTrainer`] takes. Datasets hold `input_ids` and `labels`.
    """

    def __init__(self, model: PreTrainedModel, args: TranslationTrainingArguments, **kwargs: Any):
        if kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            kwargs["data_collator"] = self._default_collator(kwargs["processing_class"], model)
        super().__init__(model, args, **kwargs)
        # The stock smoother would take the loss from us, and smooth evaluation losses too.
        self.label_smoother = None
        self.compute_loss_func = self._token_loss

    def _default_collator(self, tokenizer: Any, model: PreTrainedModel) -> Callable:
        return DataCollatorForSeq2Seq(tokenizer, model=model)

    def _token_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        smoothing = self.args.label_smoothing_factor if self.model.training else 0.0
        return cross_entropy(outputs["logits"], labels, smoothing, num_items_in_batch)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The stock loss; the stock trainer takes away the labels that some models make their inputs from."""
        if inputs.get("decoder_input_ids") is None:
            inputs = {**inputs, "decoder_input_ids": decoder_inputs(self.model, inputs["labels"])}
        return super().compute_loss(model, inputs, *args, **kwargs)

    @property
    def _sampling_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_train_dataloader(self) -> DataLoader:
        """The training batches, measured in tokens if `max_tokens_per_batch` is set."""
        if self.args.max_tokens_per_batch is None or self.train_dataset is None:
            return super().get_train_dataloader()
        dataset = self._remove_unused_columns(self.train_dataset, description="training")
        lengths = [
            max(len(source), len(target))
            for source, target in zip(dataset["input_ids"], dataset["labels"], strict=True)
        ]
        sampler = TokenBatchSampler(
            lengths, self.args.max_tokens_per_batch, self._sampling_seed, epoch=lambda: int(self.state.epoch or 0)
        )
        return self.accelerator.prepare(
            DataLoader(
                dataset,
                batch_sampler=sampler,
                collate_fn=self.data_collator,
                num_workers=self.args.dataloader_num_workers,
                pin_memory=self.args.dataloader_pin_memory,
                persistent_workers=self.args.dataloader_persistent_workers,
            )
        )

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the stock trainer does, but leave out predictions that only fill up the last batch."""
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)


class EditableSeq2SeqTrainer(TranslationTrainer):
    """
    Editable Training ([Sinitsin et al., 2020](https://arxiv.org/abs/2004.00345)) of a translation model.

    Each training batch gets `edits_per_step` mined edits, and the model's forward computes
    `base_loss + c_edit · edit_loss + c_loc · locality_loss`. Which edits an optimizer step sees depends on its number
    alone, so interrupted runs, accumulated batches and several processes go the way of one uninterrupted batch.

    Beside what [`~transformers.Seq2SeqTrainer`] logs, there are `base_loss`, `edit_loss` (nats), `locality_loss`
    (nats a token), `edit_success` (share of edits) and `edit_steps` (mean over edits), each a mean since the last log,
    and `editor_learning_rate`, the step size α of edits as it is.

    Args:
        model ([`EditableMixin`]): the model to train. The weights `c_edit`, `c_loc` and `base_loss` of `args`, where
            they are set, are written to its `edit_config`.
        args ([`EditableSeq2SeqTrainingArguments`]): arguments.
        edit_dataset ([`~datasets.Dataset`], *optional*):
            Mined edits: text columns `source`, `target` and `alternatives`. `None` trains on the base loss alone.
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
        teacher_model: PreTrainedModel | None = None,
        **kwargs: Any,
    ):
        _check_kinds(model, args, kwargs.get("data_collator"))
        weights = {name: getattr(args, name) for name in ("c_edit", "c_loc", "base_loss")}
        model.edit_config = model.edit_config.replace(
            **{name: value for name, value in weights.items() if value is not None}
        )
        if edit_dataset is not None:
            _check_edits(edit_dataset)
        if args.n_gpu > 1:
            raise EditableValueError(
                f"{args.n_gpu} GPUs in one process: torch.nn.DataParallel would split the edits. Start one process a "
                "GPU, by accelerate launch."
            )
        _keep_layers(model)
        distils = model.edit_config.base_loss == BaseLoss.DISTILLATION.value
        if teacher_model is not None and not distils:
            raise EditableValueError(
                "teacher_model is for base_loss='distillation' only: set that, or give no teacher."
            )
        super().__init__(model, args, **kwargs)
        # The model's forward computes the whole objective, scaled by the counts that we pass it.
        self.compute_loss_func = None
        self.edit_dataset = edit_dataset
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
                    {"params": coefficients, "lr": self.args.editor_learning_rate, "weight_decay": 0.0}
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
            _permutation(size, seed, position // size)[position % size]
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, adding the terms of the objective to the logs of training steps."""
        if "loss" in logs:
            for name, total in self._term_sums.items():
                logs[name] = self.accelerator.gather(total).mean().item() / self._steps_since_log
            if self.edit_dataset is not None:
                logs["editor_learning_rate"] = self.model.editor.coefficients()["learning_rate"]
            self._reset_terms()
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # A checkpoint is a plain one: the editor's coefficients are in its config.json, not among its weights.
        self.model.load_editor_state(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.model.load_editor_state(self.state.best_model_checkpoint)


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(size, generator=generator).tolist()


def _check_kinds(model: Any, args: Any, collator: Any) -> None:
    if not isinstance(model, EditableMixin):
        raise EditableTypeError(
            f"{type(model).__name__} cannot be trained for edits. Load it by AutoEditableModelForSeq2SeqLM."
        )
    if not isinstance(args, EditableSeq2SeqTrainingArguments):
        raise EditableTypeError(f"args is a {type(args).__name__}. Give EditableSeq2SeqTrainingArguments.")
    if collator is not None and not hasattr(collator, "collate_edits"):
        raise EditableTypeError(
            f"{type(collator).__name__} cannot collate edits. Give a DataCollatorForEditableSeq2Seq, or none."
        )


def _keep_layers(model: EditableMixin) -> None:
    """An edit needs the layers that it edits in every step, so none may be dropped at random (LayerDrop)."""
    decoder = model.get_decoder()
    if getattr(decoder, "layerdrop", 0.0):
        logger.warning(f"Setting the decoder's layerdrop={decoder.layerdrop} to 0: edited layers must not be skipped.")
        decoder.layerdrop = 0.0


def _check_edits(edits: Dataset) -> None:
    missing = sorted({"source", "target", "alternatives"} - set(edits.column_names))
    if missing:
        raise EditableValueError(f"edit_dataset lacks {missing}; it has {edits.column_names}. mine_edits makes all.")
    if len(edits) == 0:
        raise EditableValueError("edit_dataset is empty. Mine edits first, or give None to train without edits.")
