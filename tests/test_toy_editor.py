"""An editor that another package registers edits wherever the package's own do, without a line changed here."""

import copy
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import toy_editor
from bulk_lists import learn
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    DataCollatorForEditableSeq2Seq,
    EditableFileError,
    EditableTypeError,
    EditableValueError,
    EditConfig,
    EditPatch,
    TranslationEditor,
    evaluate_edits,
)
from hf_editable.app.sessions import Sessions
from hf_editable.cli.main import main
from hf_editable.editors import editor_names, register_editor, unregister_editor
from hf_editable.evaluation import tune_editor
from hf_editable.operations import EditStore, ImpactGate, apply_corrections
from hf_editable.operations.corrections.correction_list import Correction


TOY = Path(toy_editor.__file__)


@pytest.fixture(autouse=True)
def registered():
    toy_editor.register()
    yield
    unregister_editor("toy")


@pytest.fixture(scope="module")
def learned(make_tiny_model, tiny_tokenizer, tiny_pairs):
    return learn(make_tiny_model(), tiny_tokenizer, tiny_pairs)


@pytest.fixture
def model(learned):
    return copy.deepcopy(learned)


@pytest.fixture
def editor(model, tiny_tokenizer):
    return TranslationEditor(model, tiny_tokenizer, num_beams=2, batch_size=32, editor="toy")


@pytest.fixture
def corrections(tiny_pairs):
    """Other translations of sentences that the model has learned."""
    return [Correction(tiny_pairs[4 * i]["source"], tiny_pairs[(4 * i + 5) % 24]["target"]) for i in range(3)]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_is_small():
    assert TOY.read_text().count("\n") < 60 and "toy" in editor_names()


def test_through_the_model(model, tiny_tokenizer, tiny_edits):
    edit = DataCollatorForEditableSeq2Seq(tiny_tokenizer, model).edit_inputs(tiny_edits[1])
    before = state(model)
    result = model.edit(**edit, editor="toy", strength=0.25, max_steps=40)
    assert result.patch.editor == "toy" and result.steps > 0 and result.loss < result.initial_loss
    (name,) = result.patch.names
    half = model.edit(**edit, editor="toy", strength=0.125, max_steps=1)
    once = model.edit(**edit, editor="toy", strength=0.25, max_steps=1)
    moved = [each.patch.tensors[name] - before[name] for each in (half, once)]
    torch.testing.assert_close(2 * moved[0], moved[1])  # its own setting counts
    assert same(state(model), before)


def test_through_the_text_editor_and_a_patch(editor, corrections, tmp_path):
    before = state(editor.model)
    result = editor.edit(corrections[0].source, corrections[0].target)
    assert result.decoded and result.patch.editor == "toy" and len(result.patch.names) == 1
    result.patch.save_pretrained(tmp_path)
    patch = EditPatch.from_pretrained(tmp_path)
    assert patch.editor == "toy"
    with editor.model.edited(patch):
        assert editor.translate([corrections[0].source]) == [corrections[0].target]
    assert same(state(editor.model), before)


def test_through_a_list_a_store_and_an_undo_in_the_middle(editor, corrections, tmp_path):
    before = state(editor.model)
    store = EditStore.create(tmp_path / "store", editor.model, edit_config=editor.edit_config)
    report = apply_corrections(editor, corrections, store, tmp_path / "out", save_model=False)
    assert [row["outcome"] for row in report.rows] == ["accepted"] * 3 and same(state(editor.model), before)
    assert [edit.editor for edit in store.edits] == ["toy"] * 3
    reverted = store.revert(store.edits[1].id, editor)
    assert [edit.editor for edit in reverted.redone] == ["toy"] and not reverted.lost
    store.load(editor.model)
    said = editor.translate([each.source for each in corrections])
    assert [text == each.target for text, each in zip(said, corrections, strict=True)] == [True, False, True]


def test_through_the_page(editor, corrections, tiny_pairs, tmp_path):
    sessions = Sessions(editor, tmp_path, ImpactGate(editor, tiny_pairs[:3], max_lost=None))
    _, session = sessions.open()
    for each in corrections[:2]:
        assert session.propose(each.source, each.target).result.patch.editor == "toy"
        assert session.measure().num_sentences == 3
        session.keep()
        assert session.translate(each.source) == each.target
    session.undo_last()
    assert session.translate(corrections[1].source) != corrections[1].target


def test_through_the_evaluation_and_the_tuning(model, tiny_tokenizer, tiny_edits, tiny_pairs):
    test_set = Dataset.from_list(tiny_pairs[:6])
    options = {"num_beams": 2, "max_new_tokens": 8, "bleu_tokenize": "none", "max_steps": 15}
    edits = tiny_edits.select([0, 3])
    report = evaluate_edits(model, tiny_tokenizer, edits, test_set, editor="toy", strength=0.3, **options)
    assert report.summary["editor"] == "toy" and report.summary["edit_config"]["editor_options"] == {"strength": 0.3}
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, model)
    for row, edit in zip(report.rows, edits, strict=True):
        result = model.edit(**collator.edit_inputs(edit), editor="toy", strength=0.3, max_steps=15)
        assert (row["steps"], row["loss"]) == (result.steps, result.loss)
    tuned = tune_editor(model, tiny_tokenizer, edits, test_set, editor="toy", max_steps=15, refinements=0)
    assert tuned.chosen.coefficients.keys() == {"strength"} and len(tuned.tried) >= 5


def test_through_the_commands(model, tiny_tokenizer, corrections, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    first, second = corrections[:2]
    command = [
        "--json",
        "edit",
        "--model_name_or_path",
        str(tmp_path / "model"),
        "--num_beams",
        "2",
        "--editor",
        "toy",
    ]
    command += ["--editor_options", "strength=0.4", "--store", str(tmp_path / "store")]
    assert main([*command, "--source", first.source, "--target", first.target]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["after"] == first.target and said["editor"] == "toy"
    (tmp_path / "list.csv").write_text(f"source,target\n{second.source},{second.target}\n")
    command = ["apply", str(tmp_path / "list.csv"), "--store", str(tmp_path / "store"), "--output_dir"]
    command += [str(tmp_path / "out"), "--editor", "toy", "--num_beams", "2"]
    assert main(command) == 0
    assert [edit.editor for edit in EditStore.open(tmp_path / "store").edits] == ["toy", "toy"]
    fixed = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out" / "result" / "model")
    output = fixed.generate(tiny_tokenizer(second.source, return_tensors="pt").input_ids, num_beams=2)
    assert tiny_tokenizer.decode(output[0], skip_special_tokens=True) == second.target
    capsys.readouterr()
    assert main([*command[:-4], "--editor", "nobody"]) == 1
    assert "editor='nobody': choose one of 'gradient'" in capsys.readouterr().err


def test_its_own_tensors_survive_a_checkpoint_and_a_new_process(model, tiny_tokenizer, corrections, tmp_path):
    model.edit_config = EditConfig(editor="toy", editor_options={"strength": 0.4}, num_alternatives=4)
    model.editor.gain.fill_(1.75)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert load_file(tmp_path / "editor.safetensors").keys() == {"gain"}
    program = f"""
        import sys
        sys.path.insert(0, {str(TOY.parent)!r})
        import toy_editor
        from transformers import AutoTokenizer
        from hf_editable import AutoEditableModelForSeq2SeqLM, TranslationEditor
        toy_editor.register()
        model = AutoEditableModelForSeq2SeqLM.from_pretrained({str(tmp_path)!r}).eval()
        assert model.editor.gain.item() == 1.75 and model.editor.options.strength == 0.4
        editor = TranslationEditor(model, AutoTokenizer.from_pretrained({str(tmp_path)!r}), num_beams=2)
        result = editor.edit({corrections[0].source!r}, {corrections[0].target!r})
        print(result.patch.editor, result.translation)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.strip() == f"toy {corrections[0].target}", done.stderr[-2000:]
    # Vanilla transformers does not look at the file.
    vanilla = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert not any("gain" in name for name in vanilla.state_dict())
    # An edit with other settings has the tensors too.
    assert model.editor_with(strength=0.1).gain.item() == 1.75


def test_what_is_missing_of_a_checkpoint_is_said(model, tmp_path):
    model.edit_config = EditConfig(editor="toy")
    model.save_pretrained(tmp_path)
    (tmp_path / "editor.safetensors").write_bytes(b"damaged")
    with pytest.raises(EditableFileError, match="no whole editor.safetensors for its editor 'toy'"):
        AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    (tmp_path / "editor.safetensors").unlink()
    with pytest.raises(EditableFileError, match="it is not there.*give edit_config=EditConfig"):
        AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path, EditConfig(editor="toy")).editor.gain == 1.0
    unregister_editor("toy")
    with pytest.raises(EditableValueError, match="editor='toy': choose one of 'gradient'"):
        AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    # With another editor, the file of the last one goes.
    model.edit_config = EditConfig()
    model.save_pretrained(tmp_path)
    AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_settings_are_checked(model, tiny_tokenizer, tiny_batch):
    with pytest.raises(EditableValueError, match="strength=-1: it must be above 0"):
        TranslationEditor(model, tiny_tokenizer, editor="toy", strength=-1)
    with pytest.raises(EditableTypeError, match="'toy' has no setting colour, .*It has: strength"):
        TranslationEditor(model, tiny_tokenizer, editor="toy", colour="blue")
    with pytest.raises(EditableTypeError, match="EditConfig has no colour"):
        TranslationEditor(model, tiny_tokenizer, colour="blue")
    with pytest.raises(EditableValueError, match="'kl' takes care of sentences.*Give references"):
        TranslationEditor(model, tiny_tokenizer, editor="kl")
    for name in ("", "a b", None):
        with pytest.raises(EditableValueError, match="is no name of an editor"):
            register_editor(name, None, toy_editor.ToyEditor)
    with pytest.raises(EditableValueError, match="There is another editor 'gradient'"):
        register_editor("gradient", None, toy_editor.ToyEditor)
    with pytest.raises(EditableTypeError, match="Give a dataclass, or None"):
        register_editor("other", dict, toy_editor.ToyEditor)
    model.edit_config = EditConfig(editor="toy")
    with pytest.raises(EditableTypeError, match="cannot be differentiated through edits of the editor 'toy'"):
        model(**tiny_batch)
