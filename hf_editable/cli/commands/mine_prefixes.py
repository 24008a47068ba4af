"""Add to mined edits the prefixes that push their targets out of the beam, for training that asks beam search too.

hf-editable mine-prefixes --model_name_or_path model --edits_dir edits --output_dir edits_prefixes
"""

from dataclasses import dataclass, field

from ..shared.language_options import LanguageArguments
from ..shared.loading import load_edits
from ..shared.measuring import DecodingArguments, load_editable
from ..shared.running import parse_arguments, run_main, tell


@dataclass(kw_only=True)
class PrefixArguments(DecodingArguments):
    """Which edits, and how to search."""

    model_name_or_path: str = field(
        metadata={"help": "Model that the edits were mined from: a folder, or a Hub name."}
    )
    edits_dir: str = field(metadata={"help": "Folder of mined edits."})
    output_dir: str = field(
        metadata={"help": "Folder for the same edits, with their prefixes in a column of that name."}
    )


def _mine(argv: list[str] | None) -> None:
    from ...mining.target_prefixes import mine_prefixes
    from ...runs.files import whole_folder

    arguments, languages = parse_arguments([PrefixArguments, LanguageArguments], argv, __doc__)
    edits = load_edits(arguments.edits_dir)
    model, tokenizer = load_editable(arguments.model_name_or_path, languages)
    options = {name: getattr(arguments, name) for name in ("num_beams", "batch_size", "max_new_tokens")}
    found = mine_prefixes(model, tokenizer, edits, **options)
    with whole_folder(arguments.output_dir) as folder:
        found.save_to_disk(folder)
    count = sum(map(len, found["prefixes"]))
    tell(f"{count} prefixes of {len(found)} edits: {arguments.output_dir}", edits=len(found), prefixes=count)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable mine-prefixes`; returns the exit code."""
    return run_main(_mine, argv)
