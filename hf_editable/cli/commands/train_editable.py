r"""Train a translation model so that edits of it are reliable, local and cheap (Editable Training).

    hf-editable make-editable --model_name_or_path model --data_dir data --edits_dir edits --output_dir editable \
        --c_edit 1 --c_loc 10 --dropout 0 --learning_rate 1e-4 --max_steps 3000 --max_tokens_per_batch 4096 \
        --save_steps 500 --logging_steps 50

On two GPUs, with batches of the same size in all and one edit on each:

    accelerate launch --num_processes 2 -m hf_editable make-editable --model_name_or_path model --data_dir data \
        --edits_dir edits --output_dir editable --c_edit 1 --c_loc 10 --dropout 0 --learning_rate 1e-4 \
        --max_steps 3000 --max_tokens_per_batch 2048
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import EditableValueError
from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data, load_edits, load_tokenizer, loading
from ..shared.running import parse_arguments, run_main
from ..shared.training_runs import check_resumed, run_training, trainer_inputs


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ...modeling.mixin import EditableMixin


@dataclass
class StartArguments:
    """The model and the data."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint to start from: a folder, or a name on the Hub."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with columns source and target."})
    edits_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of mined edits: a dataset with columns source, target and alternatives. Default: none; "
            "training is on the base loss alone."
        },
    )
    eval_edits_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of mined edits to hold out: evaluation on the validation split also measures these, as "
            "eval_edit_success, eval_edit_steps, eval_edit_loss and eval_locality_loss."
        },
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Start from new random weights of the checkpoint's shape."}
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout probability in training, between 0 and 1. Default: the checkpoint's."}
    )


@dataclass
class EditArguments:
    """What an edit is. Without a value here, that of the checkpoint holds, or else the default of EditConfig."""

    edit_optimizer: str | None = field(
        default=None, metadata={"help": "Optimizer of an edit: gd, scaled_gd, rprop, rmsprop, momentum or adam."}
    )
    edit_learning_rate: float | None = field(default=None, metadata={"help": "Step size of an edit, above 0."})
    edit_beta: float | None = field(
        default=None, metadata={"help": "Decay of the mean of squared gradients in an edit, between 0 and 1."}
    )
    edit_momentum: float | None = field(
        default=None, metadata={"help": "Decay of the sum or mean of gradients in an edit, between 0 and 1."}
    )
    edit_max_steps: int | None = field(default=None, metadata={"help": "The most steps an edit may take."})
    edit_length_penalty: float | None = field(
        default=None,
        metadata={"help": "Exponent of the length in a translation's score: 0 is the paper's, 1 the mean per token."},
    )
    edit_num_alternatives: int | None = field(
        default=None, metadata={"help": "The most alternatives that a target is made to outrank."}
    )
    layers_to_transform: list[int] | None = field(
        default=None, metadata={"help": "Decoder layers that an edit moves; -1 is the final one."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules of those layers that an edit moves. Default: all."}
    )
    exclude_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules of those layers that an edit leaves."}
    )
    learn_coefficients: bool | None = field(
        default=None, metadata={"help": "Whether training also learns the edit's own step size and decay."}
    )
    checkpoint_edits: bool | None = field(
        default=None,
        metadata={"help": "Whether to take each step of an edit again in the backward pass instead of keeping it."},
    )

    def overrides(self) -> dict[str, object]:
        """Fields of `EditConfig` that were given."""
        return {
            name.removeprefix("edit_"): value for name, value in dataclasses.asdict(self).items() if value is not None
        }


def _fitting(edits: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: float) -> "Dataset":
    """The edits whose texts the model takes, so that none stops the training when its turn comes."""
    from transformers.utils import logging

    def fits(source: str, target: str, alternatives: list[str]) -> bool:
        targets = tokenizer(text_target=[target, *alternatives], verbose=False)["input_ids"]
        encoded = [tokenizer(source, verbose=False)["input_ids"], *targets]
        return max(map(len, encoded)) <= max_length

    fitting = edits.filter(fits, input_columns=["source", "target", "alternatives"])
    if dropped := len(edits) - len(fitting):
        logging.get_logger(__name__).warning(
            f"Dropped {dropped} of {len(edits)} edits with a text of more than {max_length} tokens."
        )
    return fitting


def _load_model(start: StartArguments, edit: EditArguments) -> "EditableMixin":
    from transformers import AutoConfig, GenerationConfig

    from ...modeling.auto import AutoEditableModelForSeq2SeqLM

    with loading("the model", start.model_name_or_path):
        config = AutoConfig.from_pretrained(start.model_name_or_path)
        if start.dropout is not None:
            # T5 and its kin call it dropout_rate.
            setattr(config, "dropout" if hasattr(config, "dropout") else "dropout_rate", start.dropout)
        if start.from_scratch:
            model = AutoEditableModelForSeq2SeqLM.from_config(config)
            model.generation_config = GenerationConfig.from_pretrained(start.model_name_or_path)
        else:
            model = AutoEditableModelForSeq2SeqLM.from_pretrained(start.model_name_or_path, config=config)
    model.edit_config = model.edit_config.replace(**edit.overrides())
    return model


def _train(argv: list[str] | None) -> None:
    from transformers import set_seed

    from ...data.collator import longest_input
    from ...training.arguments import EditableSeq2SeqTrainingArguments
    from ...training.editable_trainer import EditableSeq2SeqTrainer

    kinds = (StartArguments, EditArguments, LanguageArguments, EditableSeq2SeqTrainingArguments)
    start, edit, languages, args = parse_arguments(kinds, argv, __doc__)
    check_resumed(args)
    data = load_data(start.data_dir, "train")
    if start.eval_edits_dir is not None and "validation" not in data:
        raise EditableValueError(f"--eval_edits_dir needs a split 'validation', which {start.data_dir!r} has not.")
    folders = {"edit_dataset": start.edits_dir, "eval_edit_dataset": start.eval_edits_dir}
    edits = {name: load_edits(folder) for name, folder in folders.items() if folder is not None}
    set_seed(args.seed)
    tokenizer, model = load_tokenizer(start.model_name_or_path), _load_model(start, edit)
    languages.apply(model, tokenizer)
    limits = [longest_input(tokenizer, model, side) for side in ("encoder", "decoder")]
    max_length = min((limit for limit in limits if limit is not None), default=math.inf)
    inputs = trainer_inputs(data, tokenizer, max_length, args)
    with args.main_process_first(desc="filtering edits"):
        edits = {name: _fitting(rows, tokenizer, max_length) for name, rows in edits.items()}
    run_training(EditableSeq2SeqTrainer(model, args, **edits, **inputs))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable make-editable`; returns the exit code."""
    return run_main(_train, argv)
