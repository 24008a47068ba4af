"""Training of translation models."""

import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from ..checks import checked
from ..models.families import decoder_inputs, freeze_computed_positions
from ..models.private_names import check_private_names
from ..numerics.scoring import PADDING, cross_entropy
from .arguments import TranslationTrainingArguments
from .batches import TokenBatchSampler
from .hub_trainer import HubTrainer


check_private_names(__name__)


class TranslationTrainer(HubTrainer):
    """
    A [`~transformers.Seq2SeqTrainer`] whose training loss, batches and evaluation are exact for translation models.

    - The loss of an optimizer step is its mean over all target tokens, however they are spread over gradient
      accumulation steps and processes. (Under the stock trainer, the loss of Marian, BART or T5 grows with both.)
    - `label_smoothing_factor` counts in training only, so evaluation losses of different runs can be compared.
    - Batches can be measured in tokens (`max_tokens_per_batch`).
    - Evaluation on several processes takes each example once (the stock one repeats some, to fill the last batch), and
      its loss is the mean over tokens.
    - `create_model_card` and `push_to_hub` write cards with data, arguments and measured numbers ([`HubTrainer`]).

    Args:
        model ([`~transformers.PreTrainedModel`]): encoder-decoder model to train.
        args ([`TranslationTrainingArguments`]): arguments.
        **kwargs: what [`~transformers.Seq2SeqTrainer`] takes. Datasets hold `input_ids` and `labels`.
    """

    @checked
    def __init__(self, model: PreTrainedModel, args: TranslationTrainingArguments, **kwargs: Any):
        if kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            kwargs["data_collator"] = self._default_collator(kwargs["processing_class"], model)
        freeze_computed_positions(model)
        super().__init__(model, args, **kwargs)
        # The stock smoother would take the loss from us, and smooth evaluation losses too.
        self.label_smoother = None
        self.compute_loss_func = self._token_loss

    def _default_collator(self, tokenizer: Any, model: PreTrainedModel) -> Callable:
        return DataCollatorForSeq2Seq(tokenizer, model=model)

    def _token_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        smoothing = self.args.label_smoothing_factor if self.model.training else 0.0
        return cross_entropy(outputs["logits"], labels, smoothing, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The stock loss; in evaluation, the mean over this batch's own tokens."""
        # The stock trainer takes away the labels, which some models make their inputs from.
        if inputs.get("decoder_input_ids") is None:
            inputs = {**inputs, "decoder_input_ids": decoder_inputs(self.model, inputs["labels"])}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch if model.training else None)

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

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """
        Evaluate as the stock trainer does, but leave out what only fills up the last batch, and take the loss as the
        mean over all tokens, not over batches.
        """
        self.gather_function = self.accelerator.gather_for_metrics
        self._eval_sums = (0.0, 0)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if f"{metric_key_prefix}_loss" in output.metrics:
            losses, tokens = zip(*gather_object([self._eval_sums]), strict=True)
            output.metrics[f"{metric_key_prefix}_loss"] = math.fsum(losses) / sum(tokens)
        return output

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> tuple:
        """The stock step, counting the tokens of the loss; rows that only fill up the last batch have none."""
        if "labels" not in inputs:
            return super().prediction_step(model, inputs, *args, **kwargs)
        labels, state = inputs["labels"], self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            rows = torch.arange(len(labels), device=labels.device) + self.accelerator.process_index * len(labels)
            labels = labels.masked_fill((rows >= state.remainder)[:, None], PADDING)
        loss, *others = super().prediction_step(model, {**inputs, "labels": labels}, *args, **kwargs)
        tokens = int((labels != PADDING).sum())
        if loss is not None and tokens:
            self._eval_sums = (self._eval_sums[0] + float(loss) * tokens, self._eval_sums[1] + tokens)
        return loss, *others
