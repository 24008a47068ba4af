"""What the training commands share: data in, training, and what is written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableFileError, EditableValueError
from .running import tell


if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase, Seq2SeqTrainer, Seq2SeqTrainingArguments


def check_resumed(args: "Seq2SeqTrainingArguments") -> None:
    """
    Check what to go on with, before the long work.

    Raises:
        EditableFileError: if `resume_from_checkpoint` is no checkpoint of a training.
    """
    place = args.resume_from_checkpoint
    if place is not None and not (Path(place) / "trainer_state.json").is_file():
        raise EditableFileError(
            f"--resume_from_checkpoint {place!r} is no checkpoint: it has no trainer_state.json. Give a folder "
            "checkpoint-<step> in the output_dir of an earlier run."
        )


def encode_splits(
    data: "DatasetDict", tokenizer: "PreTrainedTokenizerBase", max_length: float
) -> "dict[str, Dataset]":
    """
    Encode the splits `train` and, if there is one, `validation`, without the pairs longer than `max_length` tokens.

    Returns:
        Datasets with the columns `input_ids`, `attention_mask` and `labels`, by split.

    Raises:
        EditableValueError: if no pair of a split is left.
    """
    return {
        split: _encode(data[split], tokenizer, max_length, split) for split in ("train", "validation") if split in data
    }


def _encode(rows: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: float, split: str) -> "Dataset":
    from transformers.utils import logging

    encoded = rows.map(
        lambda source, target: dict(
            tokenizer(source, verbose=False), labels=tokenizer(text_target=target, verbose=False)["input_ids"]
        ),
        input_columns=["source", "target"],
        batched=True,
        remove_columns=rows.column_names,
    )
    fitting = encoded.filter(
        lambda sources, labels: [max(len(x), len(y)) <= max_length for x, y in zip(sources, labels, strict=True)],
        input_columns=["input_ids", "labels"],
        batched=True,
    )
    if len(fitting) == 0:
        raise EditableValueError(
            f"None of the {len(rows)} pairs of the split {split!r} has {max_length} tokens or fewer. Allow more."
        )
    if dropped := len(encoded) - len(fitting):
        logging.get_logger(__name__).warning(
            f"{split}: dropped {dropped} of {len(encoded)} pairs of more than {max_length} tokens."
        )
    return fitting


def bleu_metric(tokenizer: "PreTrainedTokenizerBase") -> "Callable[[Any], dict[str, float]]":
    """The metric `bleu` (sacrebleu with its defaults) of what `predict_with_generate` gives."""
    import sacrebleu

    def compute(prediction: Any) -> dict[str, float]:
        texts = []
        for ids in (prediction.predictions, prediction.label_ids):
            ids[ids == -100] = tokenizer.pad_token_id
            texts.append(tokenizer.batch_decode(ids, skip_special_tokens=True))
        return {"bleu": sacrebleu.corpus_bleu(texts[0], [texts[1]]).score}

    return compute


def trainer_inputs(
    data: "DatasetDict", tokenizer: "PreTrainedTokenizerBase", max_length: float, args: "Seq2SeqTrainingArguments"
) -> dict[str, Any]:
    """What both trainers take: encoded datasets, the tokenizer, and BLEU if evaluation translates."""
    # One process encodes; the others find what it kept.
    with args.main_process_first(desc="encoding"):
        encoded = encode_splits(data, tokenizer, max_length)
    return {
        "train_dataset": encoded["train"],
        "eval_dataset": encoded.get("validation"),
        "processing_class": tokenizer,
        "compute_metrics": bleu_metric(tokenizer) if args.predict_with_generate else None,
    }


def run_training(trainer: "Seq2SeqTrainer") -> None:
    """Train, evaluate where there is an evaluation set, and save model, tokenizer, metrics and a card with them."""
    from ...runs.processes import disconnect_at_exit

    disconnect_at_exit()
    result = trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)
    tell("", output_dir=trainer.args.output_dir, metrics=result.metrics)
    if trainer.eval_dataset is not None:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
        tell("", metrics={**result.metrics, **metrics})
    if trainer.args.push_to_hub:
        trainer.push_to_hub()  # writes the card too
    else:
        trainer.create_model_card()
