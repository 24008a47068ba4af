"""What the commands that compare share: their options, and the way from data to the table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EditableValueError
from .language_options import LanguageArguments
from .loading import load_data, load_edits
from .measuring import DataArguments, DecodingArguments, ScoreArguments, command_line, load_editable
from .running import tell


if TYPE_CHECKING:
    from ...evaluation.edit_variants import EditVariants
    from ...modeling.mixin import EditableMixin


@dataclass(kw_only=True)
class ComparisonArguments(ScoreArguments, DecodingArguments, DataArguments):
    """What to edit, what to tune with, and what to measure with."""

    model_name_or_path: str = field(metadata={"help": "Model to edit: a folder, or a name on the Hub."})
    validation_edits_dir: str = field(metadata={"help": "Folder of mined edits that coefficients are tuned with."})
    test_edits_dir: str = field(metadata={"help": "Folder of mined edits to measure with, of other sources."})
    names: list[str] | None = field(default=None, metadata={"help": "Which ones to compare. Default: all."})
    validation_split: str = field(default="validation", metadata={"help": "Split that locality is tuned on."})
    test_split: str = field(default="test", metadata={"help": "Split that is translated after every test edit."})
    num_validation_edits: int | None = field(
        default=None, metadata={"help": "Edits to tune with, chosen at random. Default: all."}
    )
    num_validation_sentences: int = field(
        default=200, metadata={"help": "Sentences that locality is tuned on, chosen at random."}
    )
    num_edits: int | None = field(
        default=None, metadata={"help": "Test edits to measure, chosen at random. Default: all."}
    )
    target_success: float = field(
        default=0.95, metadata={"help": "Share of the validation edits that must succeed with a setting."}
    )
    max_steps: int = field(default=10, metadata={"help": "The most steps of an edit."})
    refinements: int = field(
        default=2, metadata={"help": "How often the spacing of the step sizes is halved around the best: 0, 1 or 2."}
    )

    def check_apart(self) -> None:
        """
        Raises:
            EditableValueError: if something is to be tuned with what it is measured with.
        """
        if Path(self.validation_edits_dir).resolve() == Path(self.test_edits_dir).resolve():
            raise EditableValueError(
                f"--validation_edits_dir and --test_edits_dir are both {self.test_edits_dir!r}. Coefficients must not "
                "be tuned on what they are measured with: mine validation edits from another split."
            )
        if self.validation_split == self.test_split:
            raise EditableValueError(
                f"--validation_split and --test_split are both {self.test_split!r}; they must differ."
            )


def compare(
    arguments: ComparisonArguments,
    languages: LanguageArguments,
    variants: "Callable[[EditableMixin], EditVariants]",
    argv: list[str] | None,
) -> None:
    """Tune and measure the variants of a model, and print the table."""
    from ...evaluation.comparison import compare_variants
    from ...evaluation.tuning import TuningSettings
    from ...runs.processes import is_main_process

    arguments.check_apart()
    options = dict(vars(arguments))
    place, data_dir = options.pop("model_name_or_path"), options.pop("data_dir")
    splits = {name: options.pop(f"{name}_split") for name in ("validation", "test")}
    for name, split in splits.items():
        options[f"{name}_set"] = load_data(data_dir, split)[split]
        options[f"{name}_edits"] = load_edits(options.pop(f"{name}_edits_dir"))
    options.pop("names")
    tuning = TuningSettings(
        num_edits=options.pop("num_validation_edits"),
        num_sentences=options.pop("num_validation_sentences"),
        target_success=options.pop("target_success"),
        refinements=options.pop("refinements"),
    )
    model, tokenizer = load_editable(place, languages)
    comparison = compare_variants(
        model, tokenizer, variants(model), tuning=tuning, command=command_line(argv), **options
    )
    if is_main_process():
        tell(
            comparison.markdown().rstrip("\n"),
            variants=[each.summary for each in comparison.variants],
            output_dir=arguments.output_dir,
        )
