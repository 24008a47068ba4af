r"""Compare what edits may move, layers and parts of the decoder, each with tuned coefficients: the paper's Table 2.

    hf-editable compare-parameters --model_name_or_path model --data_dir data --validation_edits_dir edits_validation \
        --test_edits_dir edits_test --num_validation_edits 50 --num_edits 100 --output_dir results/parameters
"""

from dataclasses import dataclass, field

from ..shared.comparing import ComparisonArguments, compare
from ..shared.language_options import LanguageArguments
from ..shared.running import parse_arguments, run_main


@dataclass(kw_only=True)
class ParametersArguments(ComparisonArguments):
    """What to compare, and how."""

    names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parts to compare: some of layer_1 to the final layer, last_two_layers, all_layers, and, of the "
            "final layer, last_self_attention, last_cross_attention, last_feed_forward. Default: all."
        },
    )


@dataclass
class OptimizerArguments:
    """What edits take their steps with."""

    optimizer: str | None = field(
        default=None,
        metadata={
            "choices": ["gd", "scaled_gd", "rprop", "rmsprop", "momentum", "adam"],
            "help": "Optimizer of edits. Default: the model's.",
        },
    )


def _compare(argv: list[str] | None) -> None:
    kinds = [ParametersArguments, OptimizerArguments, LanguageArguments]
    arguments, editor, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.edit_variants import parameter_variants

    fixed = {} if editor.optimizer is None else {"optimizer": editor.optimizer}
    compare(
        arguments,
        languages,
        lambda model: {
            name: {**fields, **fixed} for name, fields in parameter_variants(model, arguments.names).items()
        },
        argv,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable compare-parameters`; returns the exit code."""
    return run_main(_compare, argv)
