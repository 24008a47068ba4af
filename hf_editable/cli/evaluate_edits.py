"""Measure single edits of one or several models on the same edits and test set: the paper's Table 6."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EditableValueError
from . import parse_arguments, run_main
from .languages import LanguageArguments
from .loading import load_data, load_edits, load_model, load_tokenizer


if TYPE_CHECKING:
    from datasets import Dataset

    from ..evaluation import EditReport


@dataclass
class EvaluationArguments:
    """Which models to edit, with which edits, and what to translate after each."""

    model_name_or_path: list[str] = field(metadata={"help": "Models to compare: folders, or names on the Hub."})
    edits_dir: str = field(metadata={"help": "Folder of mined edits."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with columns source and target."})
    output_dir: str = field(metadata={"help": "Folder for the results. An interrupted run goes on where it ended."})
    names: list[str] | None = field(
        default=None, metadata={"help": "What to call the models. Default: the last part of their paths."}
    )
    split: str = field(default="test", metadata={"help": "Split that is translated after every edit."})
    num_edits: int | None = field(default=None, metadata={"help": "Edits to measure, chosen at random. Default: all."})
    num_test: int | None = field(
        default=None, metadata={"help": "Sentences to translate, chosen at random. Default: all."}
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size."})
    batch_size: int = field(default=64, metadata={"help": "Sentences translated at once."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "The most tokens of a translation. Default: the model's own setting, or 256."}
    )
    learning_rate: float | None = field(default=None, metadata={"help": "Step size of edits. Default: the model's."})
    max_steps: int | None = field(default=None, metadata={"help": "The most steps of an edit. Default: the model's."})
    bleu_tokenize: str = field(
        default="13a", metadata={"help": "Tokenizer of sacrebleu; none where the data are tokenized text."}
    )
    lowercase: bool = field(default=False, metadata={"help": "Whether BLEU ignores case."})
    record_gigabytes: float = field(
        default=4.0,
        metadata={
            "help": "The most memory for the record of the search, in 10^9 bytes. 0 decodes the whole split anew "
            "after every edit."
        },
    )
    verify: int = field(
        default=0, metadata={"help": "Translations to decode anew after every edit, to hold the record against."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the choices at random and of the bootstrap."})
    update_cards: bool = field(
        default=False,
        metadata={
            "help": "Whether to put the numbers into the card (README.md) in each model's folder. A card that a "
            "person wrote is kept as it is."
        },
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

    def check_cards(self) -> None:
        """
        Check that there are folders for the cards that are to be updated.

        Raises:
            EditableValueError: if cards are to be updated of models that are no folders.
        """
        elsewhere = [model for model in self.model_name_or_path if not Path(model).is_dir()]
        if self.update_cards and elsewhere:
            raise EditableValueError(f"--update_cards writes into folders, which {elsewhere} are not. Leave it out.")


def _evaluate_model(
    arguments: EvaluationArguments, languages: LanguageArguments, path: str, name: str, test_set: "Dataset"
) -> "EditReport":
    from transformers.utils import logging

    from ..evaluation import evaluate_edits
    from ..model_card import update_card
    from ..processes import on_main

    tokenizer, model = load_tokenizer(path), load_model(path)
    languages.apply(model, tokenizer)
    options = (
        "num_edits",
        "num_test",
        "num_beams",
        "batch_size",
        "max_new_tokens",
        "bleu_tokenize",
        "lowercase",
        "record_gigabytes",
        "verify",
        "seed",
    )
    overrides = ("learning_rate", "max_steps")
    given = {key: getattr(arguments, key) for key in options}
    given |= {key: getattr(arguments, key) for key in overrides if getattr(arguments, key) is not None}
    report = evaluate_edits(
        model,
        tokenizer,
        load_edits(arguments.edits_dir),
        test_set,
        name=name,
        output_dir=_folder(arguments.output_dir, name),
        **given,
    )
    if arguments.update_cards and not on_main(lambda: update_card(model, path, report, Path(arguments.data_dir).name)):
        logging.get_logger(__name__).warning(f"The card of {path} was written by a person, so it is kept as it is.")
    return report


def _write(output_dir: str, reports: "list[EditReport]", command: str) -> None:
    """Write the reports, with the command that made them, and their table and picture."""
    from ..evaluation import format_table, plot_drawdown
    from ..files import whole_folder

    for report in reports:
        report.summary["command"] = command
        report.save(_folder(output_dir, report.summary["name"]))
    table = format_table(reports)
    with whole_folder(output_dir) as folder:
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
        plot_drawdown(reports, folder / "drawdown.png")
    print(table)


def _folder(output_dir: str, name: str) -> Path:
    return Path(output_dir) / name.replace("/", "_")


def _evaluate(argv: list[str] | None) -> None:
    from ..files import check_folder
    from ..processes import on_main

    arguments, languages = parse_arguments([EvaluationArguments, LanguageArguments], argv, __doc__)
    check_folder(arguments.output_dir)
    arguments.check_cards()
    labels, test_set = arguments.labels(), load_data(arguments.data_dir, arguments.split)[arguments.split]
    command = shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])
    models = zip(arguments.model_name_or_path, labels, strict=True)
    reports = [_evaluate_model(arguments, languages, path, name, test_set) for path, name in models]
    on_main(lambda: _write(arguments.output_dir, reports, command))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/evaluate_edits.py`; returns the exit code."""
    return run_main(_evaluate, argv)
