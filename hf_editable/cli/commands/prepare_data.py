"""Prepare translation data: splits with plain text columns, a tokenizer, and a record of how they were made.

The built-in corpus, offline, in seconds:

    hf-editable prepare --vocab_size 2000 --output_dir data

IWSLT14 German-English, from the official archive:

    hf-editable prepare --source iwslt14 --archive de-en.tgz --output_dir data
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import ExplicitEnum

from ..shared.running import parse_arguments, run_main, tell


if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerFast

INFO_FILE = "data_info.json"


class DataSource(ExplicitEnum):
    """Where the data comes from."""

    GRAMMAR = "grammar"
    IWSLT14 = "iwslt14"
    DATASET = "dataset"
    FILES = "files"


@dataclass
class PrepareDataArguments:
    """
    Where the data comes from, and how it is prepared.

    Args:
        output_dir (`str`): Folder to write.
        source (`DataSource` or `str`, *optional*, defaults to `"grammar"`): Where the data comes from.
        archive (`str`, *optional*): For `iwslt14`: de-en.tgz, or the folder that it was unpacked to.
        dataset_name (`str`, *optional*): For `dataset`: name on the Hub, or a folder.
        dataset_config (`str`, *optional*): For `dataset`: its configuration.
        dataset_revision (`str`, *optional*): For `dataset`: branch, tag or commit on the Hub.
        train_files (`list[str]`, *optional*): For `files`: a source and a target file.
        validation_files (`list[str]`, *optional*): The same for validation.
        test_files (`list[str]`, *optional*): The same for testing.
        source_lang (`str`, *optional*, defaults to `"de"`): Language of the source.
        target_lang (`str`, *optional*, defaults to `"en"`): Language of the target.
        moses (`str`, *optional*, defaults to `"none"`): What to do with the text of a dataset or of files.
        normalize (`bool`, *optional*, defaults to `True`): For `iwslt14`: whether to normalise punctuation.
        lowercase (`bool`, *optional*, defaults to `False`): Whether to lowercase the text; `iwslt14` always does.
        vocab_size (`int`, *optional*, defaults to `10000`): Size of the joint vocabulary; 0 trains no tokenizer.
        num_train (`int`, *optional*, defaults to `20000`): For `grammar`: training pairs.
        num_validation (`int`, *optional*, defaults to `500`): Validation pairs, where the source has no such split.
        num_test (`int`, *optional*, defaults to `500`): Test pairs, where the source has no such split.
        seed (`int`, *optional*, defaults to `0`): Seed of the grammar, and of the rows cut from the training split.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace prepared data in `output_dir`.
    """

    output_dir: str = field(metadata={"help": "Folder to write."})
    source: DataSource = field(default=DataSource.GRAMMAR, metadata={"help": "Where the data comes from."})
    archive: str | None = field(default=None, metadata={"help": "iwslt14: de-en.tgz, or the unpacked folder."})
    dataset_name: str | None = field(default=None, metadata={"help": "dataset: name on the Hub, or a folder."})
    dataset_config: str | None = field(default=None, metadata={"help": "dataset: its configuration."})
    dataset_revision: str | None = field(default=None, metadata={"help": "dataset: branch, tag or commit."})
    train_files: list[str] | None = field(default=None, metadata={"help": "files: a source and a target file."})
    validation_files: list[str] | None = field(default=None, metadata={"help": "files: the same for validation."})
    test_files: list[str] | None = field(default=None, metadata={"help": "files: the same for testing."})
    source_lang: str = field(default="de", metadata={"help": "Language of the source, a two-letter code."})
    target_lang: str = field(default="en", metadata={"help": "Language of the target, a two-letter code."})
    moses: str = field(
        default="none",
        metadata={
            "help": "Text of a dataset or of files: none (as it is), tokenize (the columns hold Moses tokens, for "
            "tokenizers that split on white space only), detokenize (the input is Moses-tokenized: make it plain).",
            "choices": ["none", "tokenize", "detokenize"],
        },
    )
    normalize: bool = field(
        default=True,
        metadata={"help": "iwslt14: normalise punctuation, which fairseq's script leaves as it is."},
    )
    lowercase: bool = field(default=False, metadata={"help": "Lowercase the text; iwslt14 always does."})
    vocab_size: int = field(default=10_000, metadata={"help": "Size of the joint vocabulary; 0: train no tokenizer."})
    num_train: int = field(default=20_000, metadata={"help": "grammar: training pairs."})
    num_validation: int = field(
        default=500,
        metadata={"help": "Validation pairs that are made, or cut from the training split where there are none."},
    )
    num_test: int = field(
        default=500,
        metadata={"help": "Test pairs that are made, or cut from the training split where there are none."},
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the grammar, and of the pairs cut from the training split."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace prepared data in output_dir."})

    def __post_init__(self):
        self.source = DataSource(self.source)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable prepare`; returns the exit code."""
    return run_main(_prepare, argv)


def _prepare(argv: list[str] | None) -> None:
    from ...runs.processes import on_main

    (args,) = parse_arguments([PrepareDataArguments], argv, __doc__)
    on_main(lambda: _write(args))


def _write(args: PrepareDataArguments) -> None:
    from transformers.utils import logging

    from ...runs.files import whole_folder, write_json

    logger = logging.get_logger(__name__)
    output = _check_output(args)
    read, data = _load(args)
    with whole_folder(output, alone=args.overwrite) as folder:
        data.save_to_disk(str(folder))
        info = {
            "arguments": {key: value for key, value in asdict(args).items() if key not in ("output_dir", "overwrite")},
            "kept": {split: len(rows) for split, rows in data.items()},
            "dropped": read - sum(map(len, data.values())),
            "versions": {name: version(name) for name in ("datasets", "sacremoses", "tokenizers", "transformers")},
        }
        if args.vocab_size:
            tokenizer, info["encoding_agreement"] = _train_tokenizer(args, data)
            tokenizer.save_pretrained(folder / "tokenizer")
            info["vocab_size"] = len(tokenizer)
        write_json(folder / INFO_FILE, info)
    logger.warning(f"Wrote {output}: {json.dumps({key: info[key] for key in info if key != 'arguments'})}")
    tell("", output_dir=str(output), info=info)


def _check_output(args: PrepareDataArguments) -> Path:
    """Refuse a bad place before the long work; what `overwrite` deletes must be prepared data."""
    from ...errors import EditableFileError

    output = Path(args.output_dir)
    if output.is_dir() and any(output.iterdir()):
        if not args.overwrite:
            raise EditableFileError(f"{output} is not empty. Give another output_dir, or --overwrite to replace it.")
        if not (output / INFO_FILE).is_file():
            raise EditableFileError(
                f"{output} holds no {INFO_FILE}, so it is no prepared data and --overwrite does not delete it. Give "
                "another output_dir."
            )
    return output


def _load(args: PrepareDataArguments) -> tuple[int, "DatasetDict"]:
    """The number of pairs that were read, and the splits prepared from them."""
    from datasets import DatasetDict

    from ... import data
    from ...errors import EditableValueError

    needed = {DataSource.IWSLT14: "archive", DataSource.DATASET: "dataset_name", DataSource.FILES: "train_files"}
    if (option := needed.get(args.source)) and not getattr(args, option):
        raise EditableValueError(f"--source {args.source.value} needs --{option}.")
    languages = args.source_lang, args.target_lang
    if args.source is DataSource.GRAMMAR:
        if languages != ("de", "en"):
            raise EditableValueError(f"The grammar translates from de to en, not {languages[0]} to {languages[1]}.")
        corpus = data.generate_corpus(args.num_train, args.num_validation, args.num_test, args.seed)
        return sum(map(len, corpus.values())), data.prepare_text(corpus, *languages, args.moses, args.lowercase)
    if args.source is DataSource.IWSLT14:
        raw = data.read_iwslt14(args.archive, *languages)
        return sum(map(len, raw.values())), data.clean_iwslt14(raw, *languages, args.normalize)
    if args.source is DataSource.DATASET:
        raw = data.load_translations(args.dataset_name, *languages, args.dataset_config, args.dataset_revision)
    else:
        raw = DatasetDict()
        for split in ("train", "validation", "test"):
            files = getattr(args, f"{split}_files")
            if files and len(files) != 2:
                raise EditableValueError(f"--{split}_files takes a source and a target file, not {files}.")
            if files:
                raw[split] = data.read_parallel(*files)
    raw = data.hold_out(raw, args.num_validation, args.num_test, args.seed)
    return sum(map(len, raw.values())), data.prepare_text(raw, *languages, args.moses, args.lowercase)


def _train_tokenizer(args: PrepareDataArguments, data: "DatasetDict") -> tuple["PreTrainedTokenizerFast", float]:
    """Learn the tokenizer on the Moses-tokenized training text, and measure its agreement on the validation split."""
    from ...data import moses
    from ...data.tokenization import encoding_agreement, train_tokenizer

    languages = {"source": args.source_lang, "target": args.target_lang}

    def tokenized(split: str) -> Iterator[str]:
        for column, lang in languages.items():
            yield from (moses.tokenize(text, lang) for text in data[split][column])

    lowercase = args.lowercase or args.source is DataSource.IWSLT14  # whose recipe lowercases the text
    tokenizer = train_tokenizer(tokenized("train"), args.vocab_size, tuple(languages.values()), lowercase)
    plain = [text for column in languages for text in data["validation"][column]]
    return tokenizer, encoding_agreement(tokenizer, plain, list(tokenized("validation")))
