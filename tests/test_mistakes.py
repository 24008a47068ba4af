"""What a model translates worst."""

import csv
import json

import datasets
import pytest
from sacrebleu.metrics import CHRF

from hf_editable import EditableValueError, TranslationEditor
from hf_editable.cli.commands import find_mistakes as command
from hf_editable.operations.corrections.mistakes import find_mistakes, write_mistakes


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)


@pytest.fixture
def pairs(editor, tiny_pairs):
    """Pairs, of which one is translated as its reference says, and one has a reference that cannot be written."""
    pairs = [dict(pair) for pair in tiny_pairs[:6]]
    pairs[2]["target"] = editor.translate([pairs[2]["source"]])[0]
    pairs[4]["target"] = "the unicorn ."
    return pairs


def found(editor, pairs, number=None):
    return find_mistakes(editor, [pair["source"] for pair in pairs], [pair["target"] for pair in pairs], number)


def test_the_worst_come_first(editor, pairs):
    mistakes = found(editor, pairs)
    assert {each.source for each in mistakes} == {pairs[place]["source"] for place in (0, 1, 3, 5)}
    for each in mistakes:
        assert each.translation == editor.translate([each.source])[0].strip() != each.target
        assert each.chrf == CHRF().sentence_score(each.translation, [each.target]).score
    assert [each.chrf for each in mistakes] == sorted(each.chrf for each in mistakes)
    assert found(editor, pairs, 2) == mistakes[:2]


def test_the_file_is_one_of_corrections(editor, pairs, tmp_path):
    from hf_editable.operations import read_corrections

    mistakes = found(editor, pairs)
    write_mistakes(mistakes, tmp_path / "new" / "mistakes.csv")
    read = read_corrections(tmp_path / "new" / "mistakes.csv")
    assert [(each.source, each.target) for each in read] == [(each.source, each.target) for each in mistakes]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda editor, path: find_mistakes(editor, ["der hund ."], []), "1 sources and 0 references"),
        (lambda editor, path: find_mistakes(editor, ["der hund ."], ["the dog ."], 0), "num_mistakes=0"),
        (lambda editor, path: write_mistakes([], path / "mistakes.tsv"), "ends in .csv"),
    ],
)
def test_bad_input(editor, tmp_path, call, message):
    with pytest.raises(EditableValueError, match=message):
        call(editor, tmp_path)


def test_the_command(editor, pairs, tmp_path, capsys):
    editor.model.save_pretrained(tmp_path / "model")
    editor.tokenizer.save_pretrained(tmp_path / "model")
    datasets.DatasetDict(validation=datasets.Dataset.from_list(pairs)).save_to_disk(tmp_path / "data")
    capsys.readouterr()
    path = tmp_path / "mistakes.csv"
    given = ["--model_name_or_path", str(tmp_path / "model"), "--data_dir", str(tmp_path / "data")]
    assert command.main([*given, "--output_file", str(path), "--num_beams", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["mistakes"]
    assert told == [vars(each) for each in found(editor, pairs)]
    with open(path, encoding="utf-8", newline="") as file:
        assert [row["translation"] for row in csv.DictReader(file)] == [each["translation"] for each in told]
