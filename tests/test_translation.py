"""Corrections at the level of text, and the command for one."""

import json

import pytest
import torch

from hf_editable import EditableValueError, EditPatch, TranslationEditor
from hf_editable.cli.commands import edit_translation


SOURCE, TARGET = "der hund sieht den ball .", "the dog sees the ball ."


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    tiny_model.edit_config = tiny_model.edit_config.replace(num_alternatives=4)
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=3)


def test_translations_are_those_of_generate_in_the_order_of_the_sources(editor, tiny_tokenizer, tiny_pairs):
    editor.batch_size = 5
    sources = [pair["source"] for pair in tiny_pairs[:8]] + ["hund ."]
    for source, found in zip(sources, editor.translate(sources), strict=True):
        encoded = tiny_tokenizer(source, return_tensors="pt")
        output = editor.model.generate(encoded.input_ids, attention_mask=encoded.attention_mask, num_beams=3)
        assert found == tiny_tokenizer.decode(output[0], skip_special_tokens=True)
    assert editor.translate([]) == []


def test_an_edit_mines_what_the_target_must_outrank(editor, tiny_tokenizer):
    encoded = tiny_tokenizer(SOURCE, return_tensors="pt")
    output = editor.model.generate(
        encoded.input_ids, attention_mask=encoded.attention_mask, num_beams=4, num_return_sequences=4
    )
    alternatives = tiny_tokenizer.batch_decode(output, skip_special_tokens=True)
    mined, given = editor.edit(SOURCE, TARGET), editor.edit(SOURCE, TARGET, alternatives)
    assert mined.success and mined.loss == given.loss and mined.initial_loss == given.initial_loss
    assert (mined.patch.source, mined.patch.target) == (SOURCE, TARGET)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda editor: editor.translate([SOURCE, "  "]), "source is empty"),
        (lambda editor: editor.edit("", TARGET), "source is empty"),
        (lambda editor: editor.edit(SOURCE, ""), "target is empty"),
        (lambda editor: editor.edit(SOURCE, TARGET, [TARGET]), "No alternative"),
        (lambda editor: editor.edit(SOURCE, "the dog sees the unicorn ."), r"no tokens for \['unicorn'\]"),
        (lambda editor: editor.edit(SOURCE, TARGET, max_rounds=0), "max_rounds=0"),
        (lambda editor: editor.edit("der " * 40, TARGET), "41 tokens long; 32 are allowed"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_input(editor, call, message):
    before = {name: tensor.clone() for name, tensor in editor.model.state_dict().items()}
    with pytest.raises(EditableValueError, match=message):
        call(editor)
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.model.state_dict().items())


@pytest.fixture
def model_dir(editor, tiny_tokenizer, tmp_path):
    editor.model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def command(model_dir, *more, target=TARGET):
    return ["--model_name_or_path", model_dir, "--source", SOURCE, "--target", target, *more]


def test_the_command_saves_the_edit_it_shows(editor, model_dir, tmp_path, capsys):
    assert edit_translation.main(command(model_dir, "--output_dir", str(tmp_path / "patch"))) == 0
    shown = capsys.readouterr().out
    assert f"before: {TranslationEditor(editor.model, editor.tokenizer).translate([SOURCE])[0]}\n" in shown
    patch = EditPatch.from_pretrained(tmp_path / "patch")
    with editor.model.edited(patch):
        assert f"after:  {TranslationEditor(editor.model, editor.tokenizer).translate([SOURCE])[0]}\n" in shown
    assert json.loads((tmp_path / "patch" / "edit_config.json").read_text())["target"] == TARGET


def test_the_command_says_when_an_edit_does_not_succeed(model_dir, capsys):
    assert edit_translation.main(command(model_dir, "--max_steps", "1", "--learning_rate", "1e-6")) == 3
    assert "does not hold after 20 steps" in capsys.readouterr().out


def test_the_command_explains_bad_input(model_dir, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert edit_translation.main(command(model_dir, target=" ")) == 2
    assert edit_translation.main(command(model_dir, "--output_dir", str(tmp_path / "taken"))) == 2
    shown = capsys.readouterr().err
    assert "error: A target is empty" in shown and "taken' is a file" in shown
