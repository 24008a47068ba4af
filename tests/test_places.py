"""Results do not go to where what they are made from is, by whatever name."""

import json
import os
import re

import pytest
from cheap_edits import FOUR, CheapEditor, files, fill

from hf_editable import EditableFileError
from hf_editable.cli.main import COMMANDS, main
from hf_editable.cli.shared.running import INPUTS
from hf_editable.operations import EditStore, apply_corrections
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.runs.places import check_apart


# Options that are no inputs: what is written, and those of transformers' Trainer.
OTHERS = {"output_dir", "output_file", "logging_dir"}


@pytest.fixture
def work(tmp_path, make_tiny_model, monkeypatch):
    """A folder with a model, a store, a patch, prepared data, and other names of them."""
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "model")
    store = EditStore.create(tmp_path / "edits", model)
    model.config._name_or_path = "model"
    fill(store, CheapEditor(model), FOUR[:1])
    store.export(tmp_path / "patch")
    for name in ("data", "list.csv", "mined"):
        (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).write_text("source,target\na,b\n")
    (tmp_path / "data" / "dataset_dict.json").write_text("{}")
    (tmp_path / "data" / "data_info.json").write_text("{}")
    (tmp_path / "data" / "train.de").write_text("a\n")
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "linked_store").symlink_to(tmp_path / "edits")
    monkeypatch.chdir(tmp_path)
    return tmp_path


REFUSED = [
    "apply patch --model_name_or_path model --output_dir model",
    "apply patch --model_name_or_path model --output_dir ./model/../model/.",
    "apply patch --model_name_or_path model --output_dir link",
    "apply patch --model_name_or_path link --output_dir {here}/model",
    "apply patch --model_name_or_path model --output_dir patch",
    "apply edits --model_name_or_path model --output_dir edits",
    "apply edits --model_name_or_path model --output_dir edits/corrected",
    "apply edits --model_name_or_path model --output_dir linked_store/edits/new",
    "apply linked_store --model_name_or_path model --output_dir edits/base",
    "apply list.csv --model_name_or_path model --store edits --output_dir edits/out",
    "apply list.csv --model_name_or_path model --output_dir model",
    "export --store edits --output_dir edits/base",
    "revert 0001 --store edits --output_dir edits --model_name_or_path model",
    "revert 0001 --store edits --output_dir model --model_name_or_path model",
    "edit --model_name_or_path model --source a --target b --output_dir model",
    "edit --model_name_or_path model --source a --target b --output_dir edits/x --store edits",
    "edit --model_name_or_path model --source a --target b --output_dir new --store new",
    "mistakes --model_name_or_path model --data_dir data --output_file data/dataset_dict.json",
    "mine --model_name_or_path model --data_dir data --output_dir data",
    "mine-prefixes --model_name_or_path model --edits_dir mined --output_dir mined",
    "evaluate --model_name_or_path patch model --data_dir data --edits_dir mined --output_dir model",
    "train --data_dir data --output_dir data",
    "make-editable --model_name_or_path model --data_dir data --output_dir model",
    "prepare --source dataset --dataset_name data --output_dir data --overwrite",
    "prepare --source files --train_files data/train.de data/train.en --output_dir data --overwrite",
]


@pytest.mark.parametrize("line", REFUSED)
def test_commands_refuse_to_write_over_what_they_read(work, line, capsys):
    before = files(work)
    assert main([*line.format(here=work).split(), "--json"]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"The output '\S+' (is|is in|is emptied, and has in it|is a file of) the ", err), err
    assert err.count("\n") == 1 and json.loads(out)["error_type"] == "EditableFileError"
    assert files(work) == before


@pytest.mark.parametrize("place", ["model", "link", "./model/"])
def test_the_model_that_only_the_store_names_is_kept_apart(work, capsys, place):
    manifest = json.loads((work / "edits" / "store.json").read_text())
    (work / "edits" / "store.json").write_text(json.dumps({**manifest, "base_model": "model"}))
    before = files(work)
    for line in (f"apply edits --output_dir {place}", f"revert 0001 --store edits --output_dir {place}"):
        assert main(line.split()) == 1
        assert "is the model 'model'" in capsys.readouterr().err and files(work) == before


def test_every_option_that_names_a_place_is_known(capsys):
    named = set()
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        named |= set(re.findall(r"--(\w+_(?:dir|path|file|files))\b", capsys.readouterr().out))
    assert named <= {*INPUTS, *OTHERS}, named - {*INPUTS, *OTHERS}
    assert {"model_name_or_path", "data_dir", "train_files"} <= named


def test_other_places_are_fine(work):
    inputs = [("model", "model"), ("store", "edits"), ("list", "list.csv"), ("on the Hub", "user/name"), ("bad", "\0")]
    for place in ("corrected", ".", "..", "model/corrected", "edits2", "list"):
        check_apart(place, inputs)
    check_apart("data/mistakes.csv", [("data", "data")], is_file=True)
    check_apart("data/new", [("data", "data")], emptied=True)


def test_functions_refuse_it_too(work, make_tiny_model):
    store, model = EditStore.open("edits"), make_tiny_model()
    before = files(work)
    with pytest.raises(EditableFileError, match="is in the store"):
        store.export(os.path.join("linked_store", "edits", "0001-00000000"))
    with pytest.raises(EditableFileError, match="is in the store"):
        apply_corrections(CheapEditor(model), [Correction("1 a", "7")], store, "edits")
    assert files(work) == before
