r"""Compare the optimizers of the gradient editor, each with tuned coefficients: the paper's Table 1.

    hf-editable compare-optimizers --model_name_or_path model --data_dir data --validation_edits_dir edits_validation \
        --test_edits_dir edits_test --num_validation_edits 50 --num_edits 100 --output_dir results/optimizers
"""

from dataclasses import dataclass, field

from ..shared.comparing import ComparisonArguments, compare
from ..shared.language_options import LanguageArguments
from ..shared.running import parse_arguments, run_main


@dataclass(kw_only=True)
class OptimizersArguments(ComparisonArguments):
    """What to compare, and how."""

    names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Optimizers to compare: some of gd, scaled_gd, rprop, rmsprop, momentum, adam. Default: all."
        },
    )


def _compare(argv: list[str] | None) -> None:
    arguments, languages = parse_arguments([OptimizersArguments, LanguageArguments], argv, __doc__)
    from ...evaluation.edit_variants import optimizer_variants

    variants = optimizer_variants(arguments.names)
    compare(arguments, languages, lambda model: variants, argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable compare-optimizers`; returns the exit code."""
    return run_main(_compare, argv)
