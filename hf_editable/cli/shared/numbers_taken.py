"""The numbers that the options of the commands may be, by the names of the options."""

from argparse import Namespace
from dataclasses import fields

from ...checks import BEAMS, SEEDS, Numbers


_COUNT = Numbers()
_SOME = Numbers(0)
_POSITIVE = Numbers(0, whole=False, above=True)
_BELOW_1 = Numbers(0, 1, whole=False, below=True)

_OPTIONS: dict[str, Numbers] = {
    **dict.fromkeys(("batch_size", "counts", "d_model", "edit_max_steps", "ffn_dim", "max_characters"), _COUNT),
    **dict.fromkeys(("max_edits", "max_length", "max_new_tokens", "max_rounds", "max_sessions", "max_steps"), _COUNT),
    **dict.fromkeys(("num_edits", "num_heads", "num_layers", "num_mistakes", "num_test", "num_train"), _COUNT),
    **dict.fromkeys(("num_validation", "num_validation_edits", "num_validation_sentences", "regression_size"), _COUNT),
    **dict.fromkeys(("max_lost", "verify", "vocab_size"), _SOME),
    **dict.fromkeys(("num_alternatives", "edit_num_alternatives", "num_beams"), BEAMS),
    **dict.fromkeys(("regression_seed", "seed"), SEEDS),
    **dict.fromkeys(("edit_learning_rate", "learning_rate", "temperature"), _POSITIVE),
    **dict.fromkeys(("dropout", "edit_beta", "edit_momentum"), _BELOW_1),
    "edit_length_penalty": Numbers(-100, 100, whole=False),
    "layers_to_transform": Numbers(-1000, 1000),
    "max_drawdown": Numbers(-100, 100, whole=False, why="BLEU has 100 points"),
    "port": Numbers(1, 65535, why="a port has 16 bits"),
    "record_gigabytes": Numbers(0, whole=False),
    "refinements": Numbers(0, 2),
    "target_success": Numbers(0, 1, whole=False, above=True),
}
# Those of the Trainer have other meanings: a step count of -1 is none, one below 1 is a share.
_TRAINING: dict[str, Numbers] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
    **dict.fromkeys(("edits_per_step", "gradient_accumulation_steps", "max_tokens_per_batch"), _COUNT),
    **dict.fromkeys(("eval_accumulation_steps", "generation_max_length", "save_total_limit", "ddp_timeout"), _COUNT),
    **dict.fromkeys(("dataloader_prefetch_factor", "ddp_bucket_cap_mb", "torch_empty_cache_steps"), _COUNT),
    "dataloader_num_workers": _SOME,
    **dict.fromkeys(("data_seed", "seed"), SEEDS),
    **dict.fromkeys(("c_edit", "c_loc", "coefficients_learning_rate", "learning_rate"), Numbers(0, whole=False)),
    **dict.fromkeys(("eval_delay", "max_grad_norm", "warmup_steps", "weight_decay"), Numbers(0, whole=False)),
    **dict.fromkeys(("adam_epsilon", "eval_steps", "logging_steps", "num_train_epochs", "save_steps"), _POSITIVE),
    "neftune_noise_alpha": _POSITIVE,
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), _BELOW_1),
    "generation_num_beams": BEAMS,
    "max_steps": Numbers(-1),
}


def numbers_taken(kind: type) -> dict[str, Numbers]:
    """The numbers that the options of a command's dataclass may be."""
    from transformers import TrainingArguments

    return _TRAINING if issubclass(kind, TrainingArguments) else _OPTIONS


def check_numbers(kind: type, values: Namespace) -> None:
    """
    Check the numbers among the options that were given.

    Args:
        kind (`type`): a dataclass of options.
        values ([`argparse.Namespace`]): what was given of them, and perhaps of others.

    Raises:
        EditableValueError: if one is out of range.
    """
    own = {item.name for item in fields(kind)}
    for name, taken in numbers_taken(kind).items():
        value = getattr(values, name, None) if name in own else None
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int | float):
                taken.check(f"--{name} ", each)
