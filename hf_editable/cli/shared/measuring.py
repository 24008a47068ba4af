"""What the commands that measure edits share: their options, the way from data to reports, and what is written."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError
from .language_options import LanguageArguments
from .loading import load_data, load_edits, load_model, load_tokenizer
from .running import program_name, tell


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...evaluation.methods.base import EditMethod
    from ...modeling.mixin import EditableMixin
    from ...reporting.json_report import JsonReport

METHODS = ("edit", "verified", "kl", "rehearsal", "ewc", "finetune_all", "finetune_edited", "lora", "cache")


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


@dataclass
class StepArguments:
    """The steps of the model's own editor."""

    learning_rate: float | None = field(
        default=None, metadata={"help": "Step size of edits by the model's own editor. Default: the model's."}
    )
    max_steps: int | None = field(default=None, metadata={"help": "The most steps of an edit. Default: the model's."})

    def overrides(self) -> dict[str, Any]:
        """What is given of the editor's settings."""
        given = {"learning_rate": self.learning_rate, "max_steps": self.max_steps}
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class MeasuringArguments(StepArguments, DecodingArguments, EditsArguments):
    """What to edit, with which edits, and how to translate."""

    def options(self) -> dict[str, Any]:
        """The arguments that all evaluations take."""
        names = ("num_edits", "num_beams", "batch_size", "max_new_tokens", "seed")
        return {**{name: getattr(self, name) for name in names}, **self.overrides()}


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


@dataclass
class ModelsArguments(NamedModels):
    """Which models to measure, and how they are edited."""

    method: str = field(default="edit", metadata={"choices": list(METHODS), "help": "What makes the edits."})


@dataclass
class MethodArguments:
    """The settings of other ways to edit than the model's own; what is not given is each one's default."""

    pairs_split: str = field(
        default="train", metadata={"help": "Split of the pairs that kl, rehearsal and ewc protect."}
    )
    num_pairs: int | None = field(default=None, metadata={"help": "How many pairs they protect, chosen at random."})
    kl_weight: float | None = field(default=None, metadata={"help": "Weight of the penalty of kl."})
    rehearsal_weight: float | None = field(default=None, metadata={"help": "Weight of the penalty of rehearsal."})
    ewc_weight: float | None = field(default=None, metadata={"help": "Weight of the penalty of ewc."})
    finetune_all_learning_rate: float | None = field(
        default=None, metadata={"help": "Step size of AdamW on all weights."}
    )
    finetune_edited_learning_rate: float | None = field(
        default=None, metadata={"help": "Step size of AdamW on the weights that edits move."}
    )
    lora_learning_rate: float | None = field(default=None, metadata={"help": "Step size of AdamW on the adapters."})
    lora_rank: int | None = field(default=None, metadata={"help": "Rank of the adapters."})

    def make(
        self, name: str, tokenizer: "PreTrainedTokenizerBase", arguments: MeasuringArguments
    ) -> "EditMethod | None":
        """
        The method of a name; `None` for the model's own editor.

        Args:
            name (`str`): one of `METHODS`.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the model's.
            arguments ([`MeasuringArguments`]): name the data with the pairs to protect, the seed and the beam size.

        Raises:
            EditableValueError: if there is no such method, or a value is out of range.
            EditableImportError: if the method needs a package that is not installed.
        """
        from ...evaluation import methods

        settings = {
            key.removeprefix(f"{name}_"): value
            for key, value in vars(self).items()
            if key.startswith(f"{name}_") and value is not None
        }
        penalized = {
            "kl": methods.KLPenaltyEditor,
            "rehearsal": methods.RehearsalEditor,
            "ewc": methods.ElasticWeightConsolidation,
        }
        if name in penalized:
            if self.num_pairs is not None:
                settings["num_pairs"] = self.num_pairs
            pairs = load_data(arguments.data_dir, self.pairs_split)[self.pairs_split]
            return penalized[name](tokenizer, pairs, seed=arguments.seed, **settings)
        if name.startswith("finetune_"):
            return methods.FineTuning(name.removeprefix("finetune_"), **settings)
        if name == "verified":
            return methods.VerifiedEditing(tokenizer, arguments.num_beams)
        if name == "lora":
            return methods.LoraTuning(seed=arguments.seed, **settings)
        return methods.ExactMatchCache() if name == "cache" else None


def measure_models(
    arguments: Any,
    models: ModelsArguments,
    method: MethodArguments,
    languages: LanguageArguments,
    measure: "Callable[..., JsonReport]",
    argv: list[str] | None,
) -> None:
    """
    Measure each model, write the reports with the command that made them, their table and their picture, and print
    the table.

    Args:
        arguments ([`MeasuringArguments`]): what to measure.
        models ([`ModelsArguments`]): the models.
        method ([`MethodArguments`]): the settings of the method.
        languages ([`LanguageArguments`]): the models' languages.
        measure (`Callable`):
            takes a model, its tokenizer, the edits and the split, by name what all evaluations take, and gives a
            report.
        argv (`list[str]`, *optional*): the command line; `None` is that of the process.
    """
    from ...runs.files import check_folder
    from ...runs.processes import on_main

    check_folder(arguments.output_dir)
    labels = models.labels()
    # What is missing is said before the long work.
    rows, edits = load_data(arguments.data_dir, arguments.split)[arguments.split], load_edits(arguments.edits_dir)
    reports = []
    for path, name in zip(models.model_name_or_path, labels, strict=True):
        model, tokenizer = load_editable(path, languages)
        options = {**arguments.options(), "name": name, "output_dir": report_folder(arguments.output_dir, name)}
        options["method"] = method.make(models.method, tokenizer, arguments)
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
    return Path(output_dir) / name.replace("/", "_")


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
