"""Moses text processing and parallel text from files, folders and datasets."""

import gzip
import re

import pytest
from datasets import Dataset, DatasetDict, Features, Translation, Value

from hf_editable.data import hold_out, load_translations, moses, parallel, prepare_text, read_parallel
from hf_editable.errors import EditableFileError, EditableValueError


PLAIN = "I don't know, Mr. Smith: 5,300 [of them]."
TOKENS = "I don 't know , Mr. Smith : 5,300 [ of them ] ."


def write(path, lines):
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_moses_tokenizes_without_escapes_and_back():
    assert moses.tokenize(PLAIN, "en") == TOKENS
    assert moses.detokenize(TOKENS, "en") == PLAIN


def test_moses_undoes_escapes():
    assert moses.unescape("&apos; &quot; &amp; &lt; &gt; &#91; &#93; &#124;") == "' \" & < > [ ] |"
    assert moses.detokenize("it &apos;s &quot; good &quot; &#91; ... &#93; &amp; new", "en") == (
        'it\'s "good" [...] & new'
    )


def test_moses_normalizes_by_language():
    assert moses.normalize("„Gut“, sagte er…", "de") == '"Gut", sagte er...'


def test_read_parallel_plain_and_gz(tmp_path):
    # A next-line character (U+0085) and a form feed are no line ends.
    source = write(tmp_path / "a.de", ["Hallo\x85Welt", " zwei ", "", "vier\fvier"])
    target = write(tmp_path / "a.en.gz", ["hello world", "two", "three", "four four"])
    data = read_parallel(source, target)
    assert data["source"][:] == ["Hallo\x85Welt", "zwei", "", "vier\fvier"]
    assert data["target"][:] == ["hello world", "two", "three", "four four"]


def test_read_parallel_without_final_line_feed(tmp_path):
    (tmp_path / "a").write_text("eins\nzwei")
    assert read_parallel(tmp_path / "a", tmp_path / "a")["source"][:] == ["eins", "zwei"]


def test_read_parallel_names_both_counts(tmp_path):
    source, target = write(tmp_path / "a.de", ["eins", "zwei"]), write(tmp_path / "a.en.gz", ["one"])
    with pytest.raises(EditableValueError, match=r"a\.de has 2 lines but .*a\.en\.gz has 1"):
        read_parallel(source, target)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("cut.gz", gzip.compress(b"a long enough line\n" * 50)[:-12], "cut.gz is truncated or no gzip"),
        ("plain.gz", b"not gzip\n", "plain.gz is truncated or no gzip"),
        ("latin1.txt", "Tür\n".encode("latin-1"), "latin1.txt is not UTF-8"),
        ("missing.txt", None, "No such file: .*missing.txt"),
    ],
    # The compressed bytes hold the time: as an id, they would differ between the processes of pytest-xdist.
    ids=["truncated", "not gzip", "not UTF-8", "missing"],
)
def test_unreadable_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EditableFileError, match=message):
        read_parallel(tmp_path / name, tmp_path / name)


def translation_rows():
    rows = {"id": ["0", "1"], "translation": [{"de": "ja", "en": "yes"}, {"de": "nein", "en": "no"}]}
    features = Features({"id": Value("string"), "translation": Translation(["de", "en"])})
    return Dataset.from_dict(rows, features=features)


def test_translation_column_either_direction(tmp_path):
    DatasetDict(train=translation_rows()).save_to_disk(tmp_path / "data")
    data = load_translations(str(tmp_path / "data"), "en", "de")
    assert data["train"].column_names == ["source", "target"]
    assert data["train"][:] == {"source": ["yes", "no"], "target": ["ja", "nein"]}


def test_folder_of_json_lines_with_plain_dict(tmp_path):
    (tmp_path / "validation.jsonl").write_text('{"translation": {"de": "ja", "fr": "oui"}}\n')
    data = load_translations(str(tmp_path), "fr", "de")
    assert data["validation"][:] == {"source": ["oui"], "target": ["ja"]}


def test_source_and_target_columns_are_kept(tmp_path):
    rows = Dataset.from_dict({"source": ["a"], "target": ["b"], "alternatives": [["c"]]})
    rows.save_to_disk(tmp_path / "data")
    assert load_translations(str(tmp_path / "data"))["train"].column_names == ["source", "target"]


def test_missing_language_is_named(tmp_path):
    translation_rows().save_to_disk(tmp_path / "data")
    with pytest.raises(EditableValueError, match=re.escape("['de', 'en'], not 'fr'")):
        load_translations(str(tmp_path / "data"), "de", "fr")


def test_unsuitable_columns_are_named(tmp_path):
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "data")
    with pytest.raises(EditableValueError, match=r"columns \['text'\].*needs `translation`"):
        load_translations(str(tmp_path / "data"), "de", "en")


def test_missing_dataset(tmp_path):
    with pytest.raises(EditableFileError, match="Cannot load the dataset .*nowhere"):
        load_translations(str(tmp_path / "nowhere"), "de", "en")


@pytest.mark.parametrize(
    "form, lowercase, text, expected",
    [
        ("none", False, "Don't  go!", "Don't  go!"),
        ("none", True, "Don't go!", "don't go!"),
        ("tokenize", True, "“Don’t” go!", '" don \'t " go !'),
        ("detokenize", False, "Don &apos;t go !", "Don't go!"),
    ],
)
def test_text_forms(form, lowercase, text, expected):
    data = DatasetDict(train=Dataset.from_dict({"source": [text], "target": [text]}))
    assert prepare_text(data, "en", "en", form, lowercase)["train"][:] == {"source": [expected], "target": [expected]}


def test_incomplete_pairs_are_dropped_and_counted(caplog, monkeypatch):
    data = DatasetDict(train=Dataset.from_dict({"source": ["a", " ", "c", None], "target": ["x", "y", "", "z"]}))
    monkeypatch.setattr(parallel.logger, "propagate", True)
    with caplog.at_level("WARNING"):
        prepared = prepare_text(data, "de", "en")
    assert prepared["train"][:] == {"source": ["a"], "target": ["x"]}
    assert "train: dropped 3 of 4 pairs" in caplog.text


def numbered(size):
    texts = [str(number) for number in range(size)]
    return Dataset.from_dict({"source": texts, "target": texts})


def test_hold_out_cuts_only_missing_splits():
    validation = numbered(3)
    data = hold_out(DatasetDict(train=numbered(20), validation=validation, extra=numbered(1)), 5, 4, seed=1)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 16, "validation": 3, "test": 4}
    assert sorted(map(int, [*data["train"]["source"], *data["test"]["source"]])) == list(range(20))
    assert data["validation"][:] == validation[:]


@pytest.mark.parametrize("size", [0, 20])
def test_hold_out_of_too_few_rows(size):
    with pytest.raises(EditableValueError, match=f"Cannot cut {size} rows for `validation` from .* 20 rows"):
        hold_out(DatasetDict(train=numbered(20)), size, 1, seed=0)


def test_hold_out_needs_a_training_split():
    with pytest.raises(EditableValueError, match=r"splits \['test'\]; it needs `train`"):
        hold_out(DatasetDict(test=numbered(2)), 1, 1, seed=0)
