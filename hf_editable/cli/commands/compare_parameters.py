"""Compare what edits move, layers and parts of the decoder, each with tuned coefficients: the paper's Table 2."""

from dataclasses import dataclass, field

from ..shared.comparing import ComparisonArguments, compare
from ..shared.language_options import LanguageArguments
from ..shared.running import parse_arguments, run_main


@dataclass
class EditorArguments:
    """The editor that moves them."""

    optimizer: str | None = field(
        default=None,
        metadata={
            "choices": ["gd", "scaled_gd", "rprop", "rmsprop", "momentum", "adam"],
            "help": "Optimizer of edits. Default: the model's.",
        },
    )


def _compare(argv: list[str] | None) -> None:
    kinds = [ComparisonArguments, EditorArguments, LanguageArguments]
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
    """Entry point of `scripts/compare_parameters.py`; returns the exit code."""
    return run_main(_compare, argv)
