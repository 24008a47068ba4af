"""What the commands that measure edits share: their options, the way from data to reports, and what is written."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError
from .editor_options import EditorArguments
from .language_options import LanguageArguments
from .loading import load_data, load_edits, load_model, load_tokenizer
from .running import program_name, tell


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...data.references import References
    from ...modeling.mixin import EditableMixin
    from ...reporting.json_report import JsonReport


@dataclass
class DataArguments:
    """Where the data are, where the results go, and what is chosen at random."""

    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with columns source and target."})
    output_dir: str = field(metadata={"help": "Folder for the results. An interrupted run goes on where it ended."})
    num_edits: int | None = field(default=None, metadata={"help": "Edits to make, chosen at random. Default: all."})
    seed: int = field(default=0, metadata={"help": "Seed of whatever is chosen or computed at random."})


@dataclass(kw_only=True)
class EditsArguments(DataArguments):
    """Which edits to make, and which split to measure on."""

    edits_dir: str = field(metadata={"help": "Folder of mined edits."})
    split: str = field(default="test", metadata={"help": "Split to measure on."})


@dataclass
class DecodingArguments:
    """How to translate."""

    num_beams: int = field(default=5, metadata={"help": "Beam size."})
    batch_size: int = field(default=64, metadata={"help": "Sentences translated at once."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "The most tokens of a translation. Default: the model's own setting, or 256."}
    )


@dataclass(kw_only=True)
class MeasuringArguments(EditorArguments, DecodingArguments, EditsArguments):
    """What to edit, with which edits, and how to translate."""

    max_rounds: int | None = field(
        default=None,
        metadata={
            "help": "Ask beam search after each edit, and go on until it says the target, at most so often. Default: "
            "an edit ends once the target outranks its alternatives."
        },
    )
    reference_split: str = field(
        default="train", metadata={"help": "Split of --data_dir that stands for --reference_file where it is needed."}
    )

    def options(self) -> dict[str, Any]:
        """The arguments that all evaluations take."""
        names = ("num_edits", "num_beams", "batch_size", "max_new_tokens", "max_rounds", "seed")
        return {**{name: getattr(self, name) for name in names}, **self.overrides()}

    def references_for(
        self, model: "EditableMixin", tokenizer: "PreTrainedTokenizerBase", **overrides: Any
    ) -> "References | None":
        """
        The sentences that are to stay, if an editor needs them.

        Args:
            model ([`EditableMixin`]), tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the model.
            overrides (*optional*): what makes the editor; see [`EditableMixin.edit`].

        Raises:
            EditableValueError: if there is no such editor, or the data have no such split.
        """
        if not model.editor_with(**overrides).needs_references:
            return None
        if (given := self.references(tokenizer)) is not None:
            return given
        from ...data.references import References

        return References(tokenizer, load_data(self.data_dir, self.reference_split)[self.reference_split])


@dataclass
class ScoreArguments:
    """How a translated test set is scored."""

    num_test: int | None = field(
        default=None, metadata={"help": "Sentences to translate, chosen at random. Default: all."}
    )
    bleu_tokenize: str = field(
        default="13a", metadata={"help": "Tokenizer of sacrebleu; none where the data are tokenized text."}
    )
    lowercase: bool = field(default=False, metadata={"help": "Whether BLEU ignores case."})


@dataclass
class NamedModels:
    """Which models to compare."""

    model_name_or_path: list[str] = field(metadata={"help": "Models to compare: folders, or names on the Hub."})
    names: list[str] | None = field(
        default=None, metadata={"help": "What to call the models. Default: the last part of their paths."}
    )

    def labels(self) -> list[str]:
        """
        A name for each model.

        Raises:
            EditableValueError: if there are more or fewer names than models, or two are the same.
        """
        labels = self.names or [Path(model).name for model in self.model_name_or_path]
        if len(labels) != len(self.model_name_or_path) or len(set(labels)) != len(labels):
            raise EditableValueError(
                f"--names {' '.join(labels)}: {len(self.model_name_or_path)} models need as many names, all different."
            )
        return labels

    def path(self, label: str) -> str:
        """The model of a name."""
        return self.model_name_or_path[self.labels().index(label)]


def measure_models(
    arguments: Any,
    models: NamedModels,
    languages: LanguageArguments,
    measure: "Callable[..., JsonReport]",
    argv: list[str] | None,
) -> None:
    """
    Measure each model, write the reports with the command that made them, their table and their picture, and print
    the table.

    Args:
        arguments ([`MeasuringArguments`]): what to measure.
        models ([`NamedModels`]): the models.
        languages ([`LanguageArguments`]): the models' languages.
        measure (`Callable`):
            takes a model, its tokenizer, the edits and the split, by name what all evaluations take, and gives a
            report.
        argv (`list[str]`, *optional*): the command line; `None` is that of the process.
    """
    from ...runs.processes import on_main

    labels = models.labels()
    # What is missing is said before the long work.
    rows, edits = load_data(arguments.data_dir, arguments.split)[arguments.split], load_edits(arguments.edits_dir)
    reports = []
    for path, name in zip(models.model_name_or_path, labels, strict=True):
        model, tokenizer = load_editable(path, languages)
        options = {**arguments.options(), "name": name, "output_dir": report_folder(arguments.output_dir, name)}
        options["references"] = arguments.references_for(model, tokenizer, **arguments.overrides())
        reports.append(measure(model, tokenizer, edits, rows, **options))
    on_main(lambda: write_reports(arguments.output_dir, reports, command_line(argv)))


def load_editable(path: str, languages: LanguageArguments) -> "tuple[EditableMixin, PreTrainedTokenizerBase]":
    """A model and its tokenizer, set to the languages."""
    tokenizer, model = load_tokenizer(path), load_model(path)
    languages.apply(model, tokenizer)
    return model, tokenizer


def command_line(argv: list[str] | None) -> str:
    """The command, to be pasted into a shell."""
    return shlex.join([*program_name().split(), *(sys.argv[1:] if argv is None else argv)])


def report_folder(output_dir: str, name: str) -> Path:
    """The folder of one report."""
    return Path(output_dir) / name.replace("/", "_").replace(":", "_")


def write_reports(
    output_dir: str,
    reports: "Sequence[JsonReport]",
    command: str,
    what: str = "models",
    plot: "Callable[[Sequence[JsonReport], Path], None] | None" = None,
) -> None:
    """
    Write reports of one kind, `table.md` and a picture of all of them, and print the table.

    Args:
        output_dir (`str`): where to.
        reports (`Sequence[JsonReport]`): the reports.
        command (`str`): what made them.
        what (`str`, *optional*, defaults to `"models"`): what `--json` calls them.
        plot (`Callable`, *optional*): draws them, as `picture.png`; by default the reports draw themselves.
    """
    from ...reporting.json_report import PICTURE_NAME
    from ...runs.files import whole_folder

    kind = type(reports[0])
    for report in reports:
        report.summary["command"] = command
        report.save(report_folder(output_dir, report.summary["name"]))
    table = kind.table(reports)
    with whole_folder(output_dir) as folder:
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
        (plot or kind.plot)(reports, folder / (PICTURE_NAME if plot else kind.picture))
    tell(table, **{what: [report.summary for report in reports]}, output_dir=output_dir)
