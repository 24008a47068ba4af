"""Parallel text from anywhere: a dataset of the Hub or the disk, or plain files of one sentence a line."""

import gzip
import zlib
from pathlib import Path

from datasets import Dataset, DatasetDict, DownloadConfig, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from transformers.utils import ExplicitEnum, logging

from ..errors import EditableFileError, EditableValueError
from ..runs.files import settle
from . import moses


logger = logging.get_logger(__name__)


class MosesForm(ExplicitEnum):
    """What `prepare_text` does with the text.

    `none` keeps it as it is. `tokenize` normalises and splits it, for a model whose tokenizer splits on white space
    only. `detokenize` makes plain text of text that is Moses-tokenized already, with or without escapes.
    """

    NONE = "none"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"


def read_lines(path: str | Path) -> list[str]:
    """Read a text file of one sentence a line; a name that ends in `.gz` is read through gzip.

    Args:
        path (`str` or `Path`): The file, in UTF-8.

    Returns:
        `list[str]`: The lines, stripped.

    Raises:
        EditableFileError: The file is missing, a truncated or damaged gzip, or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise EditableFileError(f"No such file: {path}. Give a text file of one sentence a line (plain or .gz).")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [line.strip() for line in split_lines(raw)]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise EditableFileError(f"{path} is truncated or no gzip file ({error}). Fetch it again.") from error
    except UnicodeDecodeError as error:
        raise EditableFileError(f"{path} is not UTF-8 ({error}). Convert it, for instance by iconv.") from error


def split_lines(content: bytes) -> list[str]:
    """Decode UTF-8 and split it at line feeds alone: `str.splitlines` would split at a dozen other characters too."""
    lines = content.decode("utf-8-sig").split("\n")
    # The last line feed ends the last line; it does not begin another.
    return lines[:-1] if lines[-1] == "" else lines


def read_parallel(source_file: str | Path, target_file: str | Path) -> Dataset:
    """Read two files whose n-th lines are translations of each other.

    Args:
        source_file (`str` or `Path`): Source sentences, one a line, plain or `.gz`.
        target_file (`str` or `Path`): Their translations, as many lines.

    Returns:
        `datasets.Dataset`: Columns `source` and `target`.

    Raises:
        EditableFileError: A file cannot be read.
        EditableValueError: The files have different numbers of lines.
    """
    source, target = read_lines(source_file), read_lines(target_file)
    if len(source) != len(target):
        raise EditableValueError(
            f"{source_file} has {len(source)} lines but {target_file} has {len(target)}. The n-th lines of the two "
            "must be translations of each other: give the matching files."
        )
    return Dataset.from_dict({"source": source, "target": target})


def load_translations(
    name_or_path: str,
    source_lang: str | None = None,
    target_lang: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """Load a translation dataset from the Hub or from a folder.

    Args:
        name_or_path (`str`): Name on the Hub, folder written by `save_to_disk`, or folder of data files.
        source_lang (`str`, *optional*): Key of the source in the column `translation`, for instance `"de"`. Not
            needed where the dataset has columns `source` and `target`.
        target_lang (`str`, *optional*): Key of the target.
        config_name (`str`, *optional*): Configuration of the dataset, for instance `"de-en"`.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Returns:
        `datasets.DatasetDict`: The splits that the dataset has, with columns `source` and `target`.

    Raises:
        EditableFileError: There is no such dataset, or it cannot be read.
        EditableValueError: The dataset has neither form, or its pairs have no such language.
    """
    settle(name_or_path)
    try:
        folder = Path(name_or_path)
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            data = load_from_disk(name_or_path)
        else:
            data = load_dataset(
                name_or_path, config_name, revision=revision, download_config=DownloadConfig(max_retries=1)
            )
    except (OSError, ValueError, DatasetsError) as error:
        raise EditableFileError(
            f"Cannot load the dataset {name_or_path!r}: {error} Give a name on the Hub, a folder written by "
            "save_to_disk, or a folder of data files."
        ) from error
    data = data if isinstance(data, DatasetDict) else DatasetDict(train=data)
    return DatasetDict({split: _pick_pair(rows, source_lang, target_lang) for split, rows in data.items()})


def _pick_pair(rows: Dataset, source_lang: str | None, target_lang: str | None) -> Dataset:
    """Make the columns `source` and `target` of a column `translation`, unless they are there."""
    if {"source", "target"} <= set(rows.column_names):
        return rows.select_columns(["source", "target"])
    if "translation" not in rows.column_names:
        raise EditableValueError(
            f"The dataset has the columns {rows.column_names}. It needs `translation`, or `source` and `target`: "
            "rename its columns (datasets.Dataset.rename_columns), save it (save_to_disk) and give that folder."
        )
    feature = rows.features["translation"]
    languages = sorted(getattr(feature, "languages", None) or feature)
    for lang in (source_lang, target_lang):
        if lang not in languages:
            raise EditableValueError(f"The dataset has the languages {languages}, not {lang!r}. Choose two of them.")
    return rows.map(
        lambda pairs: {
            "source": [pair[source_lang] for pair in pairs],
            "target": [pair[target_lang] for pair in pairs],
        },
        input_columns="translation",
        batched=True,
        remove_columns=rows.column_names,
    )


def prepare_text(
    data: DatasetDict,
    source_lang: str,
    target_lang: str,
    moses_form: MosesForm | str = MosesForm.NONE,
    lowercase: bool = False,
) -> DatasetDict:
    """Bring both sides to the form that the tokenizer takes, and drop pairs of which a side is missing or empty.

    Args:
        data (`datasets.DatasetDict`): Splits with columns `source` and `target`.
        source_lang (`str`): Language of the source, a two-letter code.
        target_lang (`str`): Language of the target.
        moses_form (`MosesForm` or `str`, *optional*, defaults to `"none"`): `"none"`, `"tokenize"` or `"detokenize"`.
        lowercase (`bool`, *optional*, defaults to `False`): Whether to lowercase both sides.

    Returns:
        `datasets.DatasetDict`: The same splits, without the incomplete pairs.
    """
    form = MosesForm(moses_form)

    def convert(text: str | None, lang: str) -> str:
        text = (text or "").strip()
        if form is MosesForm.TOKENIZE:
            text = moses.tokenize(moses.normalize(text, lang), lang)
        elif form is MosesForm.DETOKENIZE:
            text = moses.detokenize(text, lang)
        return text.lower() if lowercase else text

    def convert_batch(source: list[str | None], target: list[str | None]) -> dict[str, list[str]]:
        sides = ([convert(text, source_lang) for text in source], [convert(text, target_lang) for text in target])
        complete = [pair for pair in zip(*sides, strict=True) if all(pair)]
        return {"source": [pair[0] for pair in complete], "target": [pair[1] for pair in complete]}

    prepared = DatasetDict()
    for split, rows in data.items():
        prepared[split] = rows.map(convert_batch, input_columns=["source", "target"], batched=True)
        if dropped := len(rows) - len(prepared[split]):
            logger.warning(f"{split}: dropped {dropped} of {len(rows)} pairs because a side is empty.")
    return prepared


def hold_out(data: DatasetDict, num_validation: int, num_test: int, seed: int) -> DatasetDict:
    """Cut the validation and test splits that a dataset lacks from its training split.

    Args:
        data (`datasets.DatasetDict`): At least a split `train`.
        num_validation (`int`): Rows of `validation`, where it is missing.
        num_test (`int`): Rows of `test`, where it is missing.
        seed (`int`): Seed of the choice of rows.

    Returns:
        `datasets.DatasetDict`: Splits `train`, `validation` and `test`.

    Raises:
        EditableValueError: There is no training split, or too few rows to cut from.
    """
    if "train" not in data:
        raise EditableValueError(f"The dataset has the splits {sorted(data)}; it needs `train`.")
    result = DatasetDict({split: data[split] for split in ("train", "validation", "test") if split in data})
    for split, size in (("validation", num_validation), ("test", num_test)):
        if split in result:
            continue
        if not 0 < size < len(result["train"]):
            raise EditableValueError(
                f"Cannot cut {size} rows for `{split}` from a training split of {len(result['train'])} rows: give a "
                f"number between 1 and {len(result['train']) - 1}, or a dataset that has the split `{split}`."
            )
        parts = result["train"].train_test_split(test_size=size, seed=seed)
        result["train"], result[split] = parts["train"], parts["test"]
        logger.warning(f"There is no split `{split}`: {size} rows were cut from `train`.")
    return result
