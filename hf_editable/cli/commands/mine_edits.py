r"""Mine edits from a model: of each source its most likely translations, and a target to put above them.

    hf-editable mine --model_name_or_path model --data_dir data --num_edits 1000 --output_dir edits

Corrections of what the model gets wrong, with the references as targets:

    hf-editable mine --model_name_or_path model --data_dir data --split validation --targets references \
        --output_dir corrections
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data, load_model, load_tokenizer
from ..shared.running import parse_arguments, run_main, tell


@dataclass
class MiningArguments:
    """What to mine, and with which model."""

    model_name_or_path: str = field(metadata={"help": "Model to mine with: a folder, or a name on the Hub."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with a column source."})
    output_dir: str = field(metadata={"help": "Folder for the edits. An interrupted run goes on where it ended."})
    split: str = field(default="train", metadata={"help": "Split whose sources are mined."})
    num_edits: int | None = field(default=None, metadata={"help": "Sources to mine, chosen at random. Default: all."})
    num_alternatives: int = field(
        default=32, metadata={"help": "How many of the most likely translations of each source."}
    )
    targets: str = field(
        default="sampled",
        metadata={
            "choices": ["sampled", "references"],
            "help": "What an edit is to make the model say: a translation that is sampled from it, or the reference, "
            "of sources that it translates otherwise.",
        },
    )
    temperature: float = field(default=1.2, metadata={"help": "Temperature that targets are sampled at."})
    batch_size: int = field(default=128, metadata={"help": "Sources encoded and sampled from at once."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "The most tokens of a translation. Default: the model's own setting, or 256."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the choice of sources and of the sampled targets."})


def _mine(argv: list[str] | None) -> None:
    from ...mining.mined_edits import INFO_NAME, mine_edits
    from ...runs.processes import is_main_process

    arguments, languages = parse_arguments([MiningArguments, LanguageArguments], argv, __doc__)
    options = vars(arguments)
    path = options.pop("model_name_or_path")
    split = options.pop("split")
    sources = load_data(options.pop("data_dir"), split)[split]
    tokenizer, model = load_tokenizer(path), load_model(path)
    languages.apply(model, tokenizer)
    mine_edits(model, tokenizer, sources, **options)
    if is_main_process():
        counts = json.loads((Path(arguments.output_dir) / INFO_NAME).read_text())["counts"]
        text = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
        tell(text, counts=counts, output_dir=arguments.output_dir)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable mine`; returns the exit code."""
    return run_main(_mine, argv)
