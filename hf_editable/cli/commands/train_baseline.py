r"""Train a translation model from scratch: by default one of the paper's size, transformer_iwslt_de_en.

    hf-editable train --data_dir data --output_dir model --max_steps 50000 --save_steps 5000 --eval_strategy steps \
        --eval_steps 5000 --predict_with_generate

On two GPUs, with batches of the same size in all:

    accelerate launch --num_processes 2 -m hf_editable train --data_dir data --output_dir model --max_steps 50000 \
        --max_tokens_per_batch 2048 --save_steps 5000
"""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import EditableValueError
from ..shared.loading import load_data, load_tokenizer
from ..shared.running import parse_arguments, run_main
from ..shared.training_runs import check_resumed, run_training, trainer_inputs


if TYPE_CHECKING:
    from transformers import MarianMTModel, PreTrainedTokenizerBase

# fairseq's recipe for IWSLT14 De-En; each can be given on the command line.
TRAINING_DEFAULTS = {
    "learning_rate": 5e-4,
    "adam_beta2": 0.98,
    "weight_decay": 1e-4,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "inverse_sqrt",
    "warmup_steps": 4000,
    "label_smoothing_factor": 0.1,
    "max_tokens_per_batch": 4096,
    "per_device_eval_batch_size": 64,
}


@dataclass
class ModelArguments:
    """Sizes of the model; the defaults are those of transformer_iwslt_de_en."""

    d_model: int = field(default=512, metadata={"help": "Size of the embeddings and hidden states."})
    ffn_dim: int = field(default=1024, metadata={"help": "Size of the feed-forward layers."})
    num_layers: int = field(default=6, metadata={"help": "Layers of the encoder, and of the decoder."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads of each layer."})
    dropout: float = field(default=0.3, metadata={"help": "Dropout probability, between 0 and 1."})
    max_length: int = field(
        default=256, metadata={"help": "The most tokens of a sentence, its end included; longer pairs are dropped."}
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size that the saved model translates with."})

    def __post_init__(self):
        if self.d_model % self.num_heads:
            raise EditableValueError(
                f"--num_heads {self.num_heads}: it must divide --d_model {self.d_model}, as each head gets its share."
            )


@dataclass
class DataArguments:
    """Where the translations are."""

    data_dir: str = field(
        metadata={"help": "Folder of prepared data: splits with columns source and target, and the tokenizer."}
    )


def _build_model(arguments: ModelArguments, tokenizer: "PreTrainedTokenizerBase") -> "MarianMTModel":
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        # As fairseq does: the decoder starts from the end token.
        "decoder_start_token_id": tokenizer.eos_token_id,
        "forced_eos_token_id": None,
    }
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=arguments.d_model,
        encoder_ffn_dim=arguments.ffn_dim,
        decoder_ffn_dim=arguments.ffn_dim,
        encoder_layers=arguments.num_layers,
        decoder_layers=arguments.num_layers,
        encoder_attention_heads=arguments.num_heads,
        decoder_attention_heads=arguments.num_heads,
        dropout=arguments.dropout,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=arguments.max_length,
        **special,
    )
    model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        **special, num_beams=arguments.num_beams, max_length=arguments.max_length
    )
    return model


def _train(argv: list[str] | None) -> None:
    from transformers import set_seed

    from ...training.arguments import TranslationTrainingArguments
    from ...training.translation_trainer import TranslationTrainer

    kinds = (ModelArguments, DataArguments, TranslationTrainingArguments)
    model_args, data_args, args = parse_arguments(kinds, argv, __doc__, **TRAINING_DEFAULTS)
    check_resumed(args)
    data = load_data(data_args.data_dir, "train")
    tokenizer = load_tokenizer(os.path.join(data_args.data_dir, "tokenizer"))
    set_seed(args.seed)
    inputs = trainer_inputs(data, tokenizer, model_args.max_length, args)
    run_training(TranslationTrainer(_build_model(model_args, tokenizer), args, **inputs))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable train`; returns the exit code."""
    return run_main(_train, argv)
