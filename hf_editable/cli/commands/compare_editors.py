"""Compare the optimizers that edits can take their steps with, each with tuned coefficients: the paper's Table 1."""

from ..shared.comparing import ComparisonArguments, compare
from ..shared.language_options import LanguageArguments
from ..shared.running import parse_arguments, run_main


def _compare(argv: list[str] | None) -> None:
    arguments, languages = parse_arguments([ComparisonArguments, LanguageArguments], argv, __doc__)
    from ...evaluation.edit_variants import editor_variants

    variants = editor_variants(arguments.names)
    compare(arguments, languages, lambda model: variants, argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/compare_editors.py`; returns the exit code."""
    return run_main(_compare, argv)
