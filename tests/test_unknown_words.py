"""Sources whose words the tokenizer does not know: an edit of one changes all that look the same to the model."""

import json

import pytest
from hub_checkpoints import KINDS, write
from idioms import make_tokenizer
from transformers import AutoTokenizer

from hf_editable import EditableValueError, TranslationEditor
from hf_editable.cli.main import main
from hf_editable.correction import translation_editor
from hf_editable.correction.unknown_words import describe_unknown, unknown_words
from hf_editable.operations import Correction, EditStore, apply_corrections


TARGET = "the dog sees the ball ."


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    tiny_model.edit_config = tiny_model.edit_config.replace(num_alternatives=4)
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=3)


@pytest.fixture
def warnings(monkeypatch):
    """What the editor warns of."""
    told = []
    monkeypatch.setattr(translation_editor.logger, "warning", told.append)
    return told


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["Er hat einen Hund."], None),
        (["", " "], None),
        (["😀"], r"'😀' has no known word, so it is like every other such source (its tokens: ['<unk>'])."),
        (
            ["Er 😀"],
            "'Er 😀' is like every source that has another unknown word for ['😀'] (its tokens: ['Er', '<unk>'])",
        ),
        (["\u200b\x1b[2J"], r"'\u200b\x1b[2J' has no known word"),
        ([f"Er {n}" for n in range(7)], "'Er 4' is like every source that has another unknown word for ['4'] (its to"),
    ],
)
def test_what_is_told(sources, told):
    tokenizer = make_tokenizer(["Er hat einen Hund."])
    found = describe_unknown(tokenizer, sources)
    assert found is None if told is None else told in found
    assert len(sources) < 7 or found.endswith("; and 2 more.")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_tokenizer_tells(name, tmp_path):
    KINDS[name].files(tmp_path)
    write(tmp_path, "config.json", KINDS[name].config(8).to_dict())  # by which the tokenizer's class is found
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    known = next(word for word in ["Ein", "Hund", "Haus", "Mann"] if not unknown_words(tokenizer, word))
    assert describe_unknown(tokenizer, [known]) is None
    assert "has no known word" in describe_unknown(tokenizer, ["😀"])
    assert "is like every source that has another unknown word for ['😀']" in describe_unknown(
        tokenizer, [f"{known} 😀"]
    )


def test_an_edit_warns_before_its_work_once_and_says_the_truth(editor, warnings, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(translation_editor, "Verification", stop)
        with pytest.raises(KeyboardInterrupt):
            editor.edit("😀", TARGET)
    assert len(warnings) == 1 and "'😀' has no known word" in warnings[0]
    result = editor.edit("😀", TARGET)
    assert len(warnings) == 1 and result.decoded
    with editor.model.edited(result.patch):
        assert editor.translate(["🎉", "xyz"]) == [TARGET, TARGET]


def test_what_is_the_same_to_the_model_is_not_kept_otherwise(editor, warnings):
    before = editor.translate(["🎉"])[0]
    result = editor.edit("😀", TARGET, keep=[("🎉", before)])
    assert result.decoded and result.rounds < 20 and result.lost == []


def test_a_target_that_cannot_be_said_is_refused(editor):
    with pytest.raises(EditableValueError, match=r"has no tokens for \['😀'\] of the target"):
        editor.edit("der hund .", "the 😀 .")


def test_a_list_warns_of_all_before_its_first_edit(editor, warnings, tmp_path, monkeypatch):
    corrections = [Correction("der 😀 .", TARGET), Correction("der hund .", TARGET), Correction("xyz", TARGET)]
    monkeypatch.setattr(editor, "edit", lambda *_, **__: pytest.fail(f"{len(warnings)} warnings"))
    with pytest.raises(pytest.fail.Exception, match="1 warnings"):
        apply_corrections(editor, corrections, EditStore.create(tmp_path / "store", editor.model), tmp_path / "out")
    assert "'der 😀 .'" in warnings[0] and "'xyz'" in warnings[0] and "'der hund .'" not in warnings[0]


def test_the_command_tells(editor, tiny_tokenizer, tmp_path, capsys, warnings):
    editor.model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    arguments = ["--model_name_or_path", str(tmp_path / "model"), "--source", "😀", "--target", TARGET]
    main(["edit", *arguments, "--max_steps", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["unknown_words"] == ["😀"]
    assert len(warnings) == 1 and "'😀' has no known word" in warnings[0]
