"""The IWSLT 2014 German-English data (TED talks), prepared as the field does.

The steps, their order and their limits are those of fairseq's examples/translation/prepare-iwslt14.sh, with
sacremoses in place of the Perl scripts of Moses, up to its lowercased Moses tokens; punctuation is normalised before
that, which fairseq's script leaves out. The tokens are then detokenized: the columns hold plain lowercased text. The
data may be had for research (CC BY-NC-ND), from https://wit3.fbk.eu.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from datasets import Dataset, DatasetDict
from transformers.utils import logging

from ..errors import EditableFileError, EditableValueError
from . import moses
from .parallel import split_lines


logger = logging.get_logger(__name__)

LANGUAGES = ("de", "en")
TRAIN_FILE = "train.tags.de-en.{lang}"
# In the order in which the recipe joins them to its test set of 6,750 pairs.
TEST_FILES = (
    "IWSLT14.TED.dev2010.de-en.{lang}.xml",
    "IWSLT14.TEDX.dev2012.de-en.{lang}.xml",
    "IWSLT14.TED.tst2010.de-en.{lang}.xml",
    "IWSLT14.TED.tst2011.de-en.{lang}.xml",
    "IWSLT14.TED.tst2012.de-en.{lang}.xml",
)
MIN_TOKENS, MAX_TOKENS, MAX_TOKEN_LENGTH, MAX_RATIO = 1, 175, 1000, 1.5
VALIDATION_EVERY = 23

# The recipe drops the first three; the others came with later years of the same archive.
_DROPPED_TAGS = re.compile("<(?:url|talkid|keywords|speaker|translator|reviewer)[ >]")
_STRIPPED_TAGS = re.compile("</?(?:title|description)>")
_SEGMENT = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')
_REMEDY = "Download de-en.tgz (IWSLT 2014, texts/de/en/de-en.tgz at https://wit3.fbk.eu) and give its path."


def read_iwslt14(path: str | Path, source_lang: str = "de", target_lang: str = "en") -> DatasetDict:
    """Read the raw sentence pairs of the official archive.

    Args:
        path (`str` or `Path`): `de-en.tgz`, or the folder that it was unpacked to.
        source_lang (`str`, *optional*, defaults to `"de"`): `"de"` or `"en"`.
        target_lang (`str`, *optional*, defaults to `"en"`): The other one.

    Returns:
        `datasets.DatasetDict`: `train` (with titles and descriptions, other tags dropped) and `test` (dev2010,
        dev2012, tst2010, tst2011, tst2012), with columns `source` and `target`, neither tokenized nor cleaned.

    Raises:
        EditableFileError: The archive is missing, empty, truncated, or lacks a file.
        EditableValueError: The languages are not German and English, or the sides of a file differ in length.
    """
    if sorted((source_lang, target_lang)) != sorted(LANGUAGES):
        raise EditableValueError(
            f"The archive holds the languages {LANGUAGES}, not {source_lang!r} to {target_lang!r}: choose de and en."
        )
    lines = _read_files(Path(path))
    train = _pair(lines, TRAIN_FILE, _train_lines)
    tests = [_pair(lines, name, _segments) for name in TEST_FILES]
    splits = {"train": train, "test": {lang: sum((test[lang] for test in tests), []) for lang in LANGUAGES}}
    return DatasetDict(
        {
            split: Dataset.from_dict({"source": sides[source_lang], "target": sides[target_lang]})
            for split, sides in splits.items()
        }
    )


def clean_iwslt14(
    data: DatasetDict, source_lang: str = "de", target_lang: str = "en", normalize: bool = True
) -> DatasetDict:
    """Normalise, tokenize, clean, lowercase and split the raw pairs, and detokenize what is left.

    A training pair stays if both sides have 1 to 175 Moses tokens of at most 1,000 characters, and neither side has
    more than 1.5 times the tokens of the other (`clean-corpus-n.perl -ratio 1.5 ... 1 175`). Every 23rd of those
    goes to `validation`. The test set is not cleaned.

    Args:
        data (`datasets.DatasetDict`): What `read_iwslt14` returned.
        source_lang (`str`, *optional*, defaults to `"de"`): Language of the column `source`.
        target_lang (`str`, *optional*, defaults to `"en"`): Language of the column `target`.
        normalize (`bool`, *optional*, defaults to `True`): Whether to normalise punctuation; `False` keeps it, as
            fairseq's script does.

    Returns:
        `datasets.DatasetDict`: `train`, `validation` and `test`: columns `source` and `target`, plain lowercased text.
    """
    tokenized = {split: _tokenized(rows, source_lang, target_lang, normalize) for split, rows in data.items()}
    kept = [pair for pair in tokenized["train"] if is_clean(*pair)]
    logger.info(f"Cleaning kept {len(kept)} of {len(data['train'])} training pairs.")
    splits: dict[str, list[tuple[str, str]]] = {
        "train": [pair for number, pair in enumerate(kept, 1) if number % VALIDATION_EVERY],
        "validation": kept[VALIDATION_EVERY - 1 :: VALIDATION_EVERY],
        "test": list(tokenized["test"]),
    }
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {
                    "source": [moses.detokenize(source.lower(), source_lang) for source, _ in pairs],
                    "target": [moses.detokenize(target.lower(), target_lang) for _, target in pairs],
                }
            )
            for split, pairs in splits.items()
        }
    )


def is_clean(source: str, target: str) -> bool:
    """Tell whether a pair of Moses-tokenized sentences passes `clean-corpus-n.perl -ratio 1.5 ... 1 175`."""
    words = source.split(), target.split()
    shorter, longer = sorted(map(len, words))
    if shorter < MIN_TOKENS or longer > MAX_TOKENS or longer / shorter > MAX_RATIO:
        return False
    return all(len(word) <= MAX_TOKEN_LENGTH for side in words for word in side)


def _tokenized(rows: Dataset, source_lang: str, target_lang: str, normalize: bool) -> Iterator[tuple[str, str]]:
    for source, target in zip(rows["source"], rows["target"], strict=True):
        if normalize:
            source, target = moses.normalize(source, source_lang), moses.normalize(target, target_lang)
        yield moses.tokenize(source, source_lang), moses.tokenize(target, target_lang)


def _pair(
    lines: dict[str, list[str]], name: str, select: Callable[[Iterable[str]], Iterator[str]]
) -> dict[str, list[str]]:
    """Select the sentences of both languages of a file, and check that they are as many."""
    sides = {lang: list(select(lines[name.format(lang=lang)])) for lang in LANGUAGES}
    counts = {lang: len(side) for lang, side in sides.items()}
    if len(set(counts.values())) > 1:
        raise EditableValueError(
            f"{name.format(lang='*')} has {counts['de']} German but {counts['en']} English sentences: one of the "
            f"files was changed. {_REMEDY}"
        )
    return sides


def _train_lines(lines: Iterable[str]) -> Iterator[str]:
    return (_STRIPPED_TAGS.sub("", line).strip() for line in lines if not _DROPPED_TAGS.search(line))


def _segments(lines: Iterable[str]) -> Iterator[str]:
    # The recipe replaces this one apostrophe, in these files only.
    return (_SEGMENT.sub("", line).replace("’", "'").strip() for line in lines if "<seg id" in line)


def _read_files(path: Path) -> dict[str, list[str]]:
    """Read the lines of the files of the recipe, by file name."""
    wanted = [name.format(lang=lang) for name in (TRAIN_FILE, *TEST_FILES) for lang in LANGUAGES]
    if path.is_dir():
        folder = path / "de-en" if (path / "de-en").is_dir() else path
        raw = {name: (folder / name).read_bytes() for name in wanted if (folder / name).is_file()}
    elif path.is_file():
        raw = _read_archive(path, wanted)
    else:
        raise EditableFileError(f"No such file or folder: {path}. {_REMEDY}")
    if missing := [name for name in wanted if name not in raw]:
        raise EditableFileError(f"{path} lacks {', '.join(missing)}. {_REMEDY}")
    try:
        return {name: split_lines(content) for name, content in raw.items()}
    except UnicodeDecodeError as error:
        raise EditableFileError(f"{path} holds a file that is not UTF-8 ({error}). {_REMEDY}") from error


def _read_archive(path: Path, wanted: list[str]) -> dict[str, bytes]:
    """Read the wanted files into memory, by base name: nothing is unpacked, so no path in the archive matters."""
    raw: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in wanted:
                    raw[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EditableFileError(f"{path} is empty, truncated or no .tgz archive ({error}). {_REMEDY}") from error
    return raw
