"""Mine edits to train and to measure with: translations that a model finds likely, and one to prefer to them."""

from dataclasses import dataclass, field

from ..errors import EditableFileError, EditableValueError
from . import run_main


@dataclass
class MiningArguments:
    """What to mine, and with which model."""

    model_name_or_path: str = field(metadata={"help": "Model to mine with: a folder, or a name on the Hub."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with a column source."})
    output_dir: str = field(metadata={"help": "Folder for the edits. An interrupted run goes on where it ended."})
    split: str = field(default="train", metadata={"help": "Split whose sources are mined."})
    num_edits: int | None = field(default=None, metadata={"help": "Sources to mine, chosen at random. Default: all."})
    num_alternatives: int = field(default=32, metadata={"help": "Most likely translations of each source."})
    temperature: float = field(default=1.2, metadata={"help": "Temperature that the target is sampled at."})
    batch_size: int = field(default=8, metadata={"help": "Sources decoded at once."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "The most tokens of a translation. Default: the model's own setting, or 256."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the choice of sources and of the sampled targets."})


def _mine(argv: list[str] | None) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, HfArgumentParser

    from ..data.parallel import load_translations
    from ..mining import mine_edits

    (arguments,) = HfArgumentParser(MiningArguments, description=__doc__).parse_args_into_dataclasses(argv)
    data = load_translations(arguments.data_dir)
    if arguments.split not in data:
        raise EditableValueError(f"--split {arguments.split}: {arguments.data_dir} has the splits {sorted(data)}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model_name_or_path)
        model = AutoModelForSeq2SeqLM.from_pretrained(arguments.model_name_or_path)
    except (OSError, ValueError) as error:
        raise EditableFileError(f"Cannot load {arguments.model_name_or_path!r}: {error}") from error
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    options = vars(arguments)
    sources = data[options.pop("split")]
    del options["model_name_or_path"], options["data_dir"]
    mine_edits(model, tokenizer, sources, **options)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/mine_edits.py`; returns the exit code."""
    return run_main(_mine, argv)
