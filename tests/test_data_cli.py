"""The prepare_data command, end to end."""

import json

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from test_data_iwslt14 import members, pack
from transformers import AutoTokenizer

from hf_editable.cli.commands.prepare_data import main


def run(output, *options):
    return main(["--output_dir", str(output), *map(str, options)])


def files(tmp_path, size=30):
    paths = [tmp_path / "train.de", tmp_path / "train.en"]
    for path in paths:
        path.write_text("".join(f"Nr. {number} &apos;s gut .\n" for number in range(size)) + "\n")
    return paths


def test_grammar(tmp_path):
    out = tmp_path / "new" / "data"
    assert run(out, "--num_train", 200, "--num_validation", 20, "--num_test", 10, "--vocab_size", 300) == 0
    data, info = load_from_disk(out), json.loads((out / "data_info.json").read_text())
    assert {split: len(rows) for split, rows in data.items()} == {"train": 200, "validation": 20, "test": 10}
    assert info["kept"] == {"train": 200, "validation": 20, "test": 10} and info["dropped"] == 0
    assert info["arguments"]["seed"] == 0 and info["arguments"]["source"] == "grammar"
    assert info["versions"]["sacremoses"] and info["encoding_agreement"] == 1.0
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
    assert len(tokenizer) == info["vocab_size"] == 300
    targets = data["test"]["target"][:]
    decoded = tokenizer.batch_decode(tokenizer(text_target=targets)["input_ids"], skip_special_tokens=True)
    assert decoded == targets
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_iwslt14(tmp_path):
    archive = pack(tmp_path / "de-en.tgz", members())
    assert run(tmp_path / "out", "--source", "iwslt14", "--archive", archive, "--vocab_size", 150) == 0
    info = json.loads((tmp_path / "out" / "data_info.json").read_text())
    assert info["kept"] == {"train": 48, "validation": 2, "test": 10} and info["dropped"] == 0
    assert load_from_disk(tmp_path / "out")["validation"]["target"][:] == ["sentence 23.", "sentence 46."]


def test_files_without_tokenizer(tmp_path):
    options = ["--source", "files", "--train_files", *files(tmp_path), "--moses", "detokenize", "--lowercase"]
    assert run(tmp_path / "out", *options, "--num_validation", 3, "--num_test", 2, "--vocab_size", 0) == 0
    data, info = load_from_disk(tmp_path / "out"), json.loads((tmp_path / "out" / "data_info.json").read_text())
    assert info["dropped"] == 1 and sum(info["kept"].values()) == 30
    assert "encoding_agreement" not in info and not (tmp_path / "out" / "tokenizer").exists()
    pairs = {pair for rows in data.values() for pair in zip(rows["source"], rows["target"], strict=True)}
    # English joins 's to the word before it, German takes the apostrophe for a quotation mark.
    assert ("nr. 7 's gut." in {source for source, _ in pairs}) and ("nr. 7's gut." in {target for _, target in pairs})


def test_dataset_folder(tmp_path):
    rows = Dataset.from_dict({"translation": [{"de": "Ja.", "en": "Yes."}, {"de": "Nein.", "en": "No."}]})
    DatasetDict(train=rows, validation=rows, test=rows).save_to_disk(tmp_path / "raw")
    options = ["--source", "dataset", "--dataset_name", tmp_path / "raw", "--source_lang", "en", "--target_lang", "de"]
    assert run(tmp_path / "out", *options, "--vocab_size", 40, "--moses", "tokenize") == 0
    assert load_from_disk(tmp_path / "out")["test"][0] == {"source": "Yes .", "target": "Ja ."}


@pytest.mark.parametrize("options, message", [
    (["--source", "iwslt14"], "--source iwslt14 needs --archive"),
    (["--source", "files", "--train_files", "a"], r"--train_files takes a source and a target file, not ['a']"),
    (["--source", "files", "--train_files", "a", "b"], "No such file: a"),
    (["--target_lang", "fr"], "from de to en, not de to fr"),
    (["--num_train", "5", "--vocab_size", "2"], "vocab_size is 2"),
])  # fmt: skip
def test_errors_leave_nothing_behind(tmp_path, capsys, options, message):
    assert run(tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


SMALL = ["--num_train", 5, "--num_validation", 1, "--num_test", 1]


def test_output_is_replaced_only_when_asked(tmp_path, capsys):
    out = tmp_path / "out"
    assert run(out, *SMALL, "--vocab_size", 100) == 0
    before = load_from_disk(out)["train"][:]
    assert run(out, *SMALL, "--seed", 1) == 2
    assert "is not empty" in capsys.readouterr().err
    assert load_from_disk(out)["train"][:] == before
    assert run(out, *SMALL, "--seed", 1, "--vocab_size", 0, "--overwrite") == 0
    assert load_from_disk(out)["train"][:] != before
    # Nothing of the old data stays.
    assert not (out / "tokenizer").exists()


def test_overwrite_deletes_prepared_data_only(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert run(tmp_path, *SMALL, "--overwrite") == 2
    assert "holds no data_info.json" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert run(tmp_path / "out", *SMALL) == 2
    assert "is a file" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--vocab_size" in capsys.readouterr().out
