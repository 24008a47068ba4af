"""List what a model translates worst, as a file of corrections to its references.

    hf-editable mistakes --model_name_or_path model --data_dir data --num_mistakes 50 --output_file corrections.csv

`hf-editable apply corrections.csv` corrects them.
"""

from dataclasses import dataclass, field

from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data
from ..shared.measuring import load_editable
from ..shared.printing import inline
from ..shared.running import parse_arguments, run_main, tell


@dataclass
class MistakesArguments:
    """Which model and sentences, and where to write."""

    model_name_or_path: str = field(metadata={"help": "The model: a folder, or a Hub name."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with columns source and target."})
    output_file: str = field(
        metadata={"help": "CSV file to write, with the columns source, target, translation and chrf."}
    )
    split: str = field(default="validation", metadata={"help": "Split whose references are taken."})
    num_mistakes: int | None = field(
        default=None, metadata={"help": "How many to list, the worst first. Default: all."}
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size."})
    batch_size: int = field(default=64, metadata={"help": "Sentences translated at once."})


def _find(argv: list[str] | None) -> None:
    from ...correction.translation_editor import TranslationEditor
    from ...operations.corrections.mistakes import find_mistakes, write_mistakes

    arguments, languages = parse_arguments([MistakesArguments, LanguageArguments], argv, __doc__)
    pairs = load_data(arguments.data_dir, arguments.split)[arguments.split]
    model, tokenizer = load_editable(arguments.model_name_or_path, languages)
    editor = TranslationEditor(model, tokenizer, arguments.num_beams, arguments.batch_size)
    found = find_mistakes(editor, pairs["source"], pairs["target"], arguments.num_mistakes)
    write_mistakes(found, arguments.output_file)
    for each in found[:5]:
        source, translation, target = map(inline, (each.source, each.translation, each.target))
        tell(f"{each.chrf:5.1f}  {source}\n       {translation}\n       {target}\n")
    tell(f"{len(found)} of {len(pairs)} written to {arguments.output_file}", mistakes=[vars(each) for each in found])


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable mistakes`; returns the exit code."""
    return run_main(_find, argv)
