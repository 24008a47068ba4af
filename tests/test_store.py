"""A store of edits: what it keeps, what it refuses, and that a revert does all of its work or nothing."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from cheap_edits import FOUR, CheapEditor, files, fill, same, weights_of
from transformers import AutoModelForSeq2SeqLM

from hf_editable import EditableFileError, EditableTypeError, EditableValueError, EditConfig, EditPatch
from hf_editable.cli.commands import list_edits
from hf_editable.operations import ChangedTranslation, EditStore, ImpactReport, StoredEdit
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.operations.store.files import exclusive


@pytest.fixture
def store(tmp_path, tiny_model):
    return EditStore.create(tmp_path / "store", tiny_model, lock_timeout=0)


@pytest.fixture
def editor(tiny_model):
    return CheapEditor(tiny_model)


def report(**values):
    default = {"accepted": True, "reasons": [], "source": "1 a", "target": "1001", "said": "1001"}
    default |= {"bleu": None, "chrf": None, "similarity": 98.5, "num_sentences": 7, "asked": []}
    return ImpactReport(**{**default, "changed": [ChangedTranslation("s", "old", "new")], **values})


def test_what_is_added_is_listed_and_loaded_exactly(store, editor, make_tiny_model, tmp_path):
    edits = fill(store, editor, FOUR)
    opened = EditStore.open(tmp_path / "store")
    assert opened.edits == edits
    assert [(edit.source, edit.target) for edit in edits] == FOUR
    assert [edit.id[:5] for edit in edits] == ["0001-", "0002-", "0003-", "0004-"]
    assert all(edit.success and edit.decoded and edit.steps == 1 and edit.accepted is None for edit in edits)
    fresh = make_tiny_model()
    patch = opened.load(fresh)
    assert same(weights_of(fresh), weights_of(editor.model))
    patch.revert(fresh)
    assert same(weights_of(fresh), weights_of(make_tiny_model()))
    opened.check()


def test_a_vanilla_model_is_loaded_too(store, editor, make_tiny_model, tmp_path):
    fill(store, editor, FOUR)
    make_tiny_model().save_pretrained(tmp_path / "checkpoint")
    vanilla = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint")
    store.load(vanilla)
    assert same(weights_of(vanilla), weights_of(editor.model))


def test_an_empty_store_loads_nothing(store, make_tiny_model):
    model = make_tiny_model()
    assert store.load(model) is None
    assert store.merge() is None
    assert same(weights_of(model), weights_of(make_tiny_model()))
    with pytest.raises(EditableValueError, match="is empty, so there is nothing to export"):
        store.export("anywhere")


def test_edits_of_some_tensors_merge_with_those_of_others(tmp_path, make_tiny_model):
    model = make_tiny_model()
    store = EditStore.create(tmp_path / "store", model)
    whole = CheapEditor(model).edit("1 a", "1001").patch
    names = sorted(whole.tensors)
    from hf_editable.runs.fingerprints import fingerprint

    for number, name in enumerate(names[:3]):
        current = dict(model.named_parameters())[name]
        patch = EditPatch({name: current.detach() + 1.0}, fingerprint({name: current}), f"s{number}", "t")
        store.add(patch)
        patch.apply(model)
    fresh = make_tiny_model()
    merged = store.load(fresh)
    assert same(weights_of(fresh), weights_of(model))
    assert sorted(merged.tensors) == names[:3]
    store.check()


def test_joint_edits_keep_all_their_corrections(store, editor):
    joint = editor.edit_jointly(["1 a", "2 b"], ["1001", "1002"])
    with pytest.raises(EditableValueError, match=r"does not say what it corrects.*Give corrections="):
        store.add(joint)
    corrections = [Correction("1 a", "1001", id="row 7"), Correction("2 b", "1002", note="urgent", place="line 3")]
    store.add(joint, corrections=corrections)
    edit = EditStore.open(store.path).edits[0]
    assert edit.corrections == tuple(corrections)
    assert edit.decoded is True
    assert edit.to_dict()["corrections"][0] == {"source": "1 a", "target": "1001", "id": "row 7"}


def test_of_two_corrections_of_one_source_the_later_one_counts(store, editor):
    fill(store, editor, [("1 a", "1001"), ("2 b", "1002"), ("1 a", "1009")])
    assert store.corrections == [Correction("1 a", "1009"), Correction("2 b", "1002")]


def test_an_edit_is_found_by_the_beginning_of_its_id(store, editor):
    edits = fill(store, editor, FOUR)
    assert store.get("0002") == store.get(edits[1].id) == edits[1]
    with pytest.raises(EditableValueError, match=r"4 edits have ids that begin with '000'.*ids: 0001-"):
        store.get("000")
    with pytest.raises(EditableValueError, match=r"There is no edit '9'.*ids: 0001-"):
        store.get("9")


def test_show_and_diff_tell_what_an_edit_is(store, editor):
    edits = fill(store, editor, FOUR[:1])
    result = editor.edit("2 b", "1002")
    second = store.add(result, report())
    shown = store.show(second.id)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["source"] == "2 b"
    assert shown["impact"]["changed"][0]["after"] == "new"
    assert shown["patch"]["loss_after"] == -1.0
    assert store.impact(second.id) == report()
    assert store.impact(edits[0].id) is None
    diff = store.diff(second.id)
    by_name = {each.name: each for each in diff.tensors}
    moved = by_name.pop(editor.name)
    old = editor.parameters[editor.name].flatten()
    assert moved.norm == pytest.approx(1002 - old[2].item())
    assert moved.relative_norm == pytest.approx(moved.norm / old.double().norm().item())
    assert moved.changed == pytest.approx(1 / old.numel())
    assert {each.norm for each in by_name.values()} == {0.0}
    assert diff.translations == [ChangedTranslation("s", "old", "new")]
    assert json.loads(json.dumps(diff.to_dict()))["edit"]["id"] == second.id


def test_tensors_of_zeros_are_listed_too(tmp_path, editor, capsys):
    with torch.no_grad():
        for tensor in editor.parameters.values():
            tensor.zero_()
    store = EditStore.create(tmp_path / "zeros", editor.model)
    store.add(editor.edit("2 b", "1002"))
    assert list_edits.main(["0001", "--store", store.path]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "moved" in line]
    assert editor.name in lines[0] and lines[0].endswith("moved from 0 to a norm of 1e+03")
    assert len(lines) == 5 and lines[1].endswith("moved from 0 to a norm of 0")


def test_an_edit_that_its_gate_refused_is_not_taken(store, editor):
    refused = report(accepted=False, reasons=["BLEU falls by 3."])
    result = editor.edit("1 a", "1001")
    with pytest.raises(EditableValueError, match=r"The gate refused this edit: BLEU falls by 3\. Give force=True"):
        store.add(result, refused)
    assert store.edits == []
    assert store.add(result, refused, force=True).accepted is False


def test_export_of_one_edit_and_of_all(store, editor, make_tiny_model, tmp_path):
    fill(store, editor, FOUR)
    all_edits, two, second = make_tiny_model(), make_tiny_model(), make_tiny_model()
    store.export(tmp_path / "all")
    EditPatch.from_pretrained(tmp_path / "all").apply(all_edits)
    assert same(weights_of(all_edits), weights_of(editor.model))
    store.export(tmp_path / "two", "0002", with_earlier=True)
    EditPatch.from_pretrained(tmp_path / "two").apply(two)
    for id in ("0001", "0002"):
        store.export(tmp_path / id, id)
        EditPatch.from_pretrained(tmp_path / id).apply(second)
    assert same(weights_of(two), weights_of(second))


def another_base(model):
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1.0


def other_edits(model):
    CheapEditor(model).edit("5 e", "1005").patch.apply(model)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (another_base, "is of a base model with fingerprint .* and this .* has .*Load the model|is of a base model"),
        (other_edits, "neither all 4 edits .* nor none of them"),
        (lambda model: model.to(torch.bfloat16), r"Load .*, in torch\.float32 and without training"),
        (lambda model: model.to("meta"), "not in memory"),
    ],
)
def test_a_model_that_is_not_the_base_is_refused(store, editor, make_tiny_model, spoil, message):
    fill(store, editor, FOUR)
    model = make_tiny_model()
    spoil(model)
    with pytest.raises(EditableValueError, match=message):
        store.load(model)


def test_edits_are_not_loaded_twice(store, editor, make_tiny_model):
    fill(store, editor, FOUR)
    model = make_tiny_model()
    store.load(model)
    with pytest.raises(EditableValueError, match="has the edits of the store .* in it already"):
        store.load(model)


def test_an_edit_of_other_edits_is_refused(store, editor, make_tiny_model):
    early = editor.edit("9 x", "1009")
    fill(store, editor, FOUR)
    for result in (early, CheapEditor(make_tiny_model()).edit("9 x", "1009")):
        with pytest.raises(EditableValueError, match=r"the base with the 4 edits .*after store\.load"):
            store.add(result)


def test_patches_that_do_not_fit_are_refused(store, editor):
    result = editor.edit("1 a", "1001")
    with pytest.raises(EditableTypeError, match="A str is no edit"):
        store.add("0001")
    more = {**result.patch.tensors, "model.shared.weight": torch.zeros(2)}
    with pytest.raises(EditableValueError, match=r"changes \['model.shared.weight'\], .* EditStore.create\("):
        store.add(EditPatch(more, result.patch.base_fingerprint, "a", "b"))
    for value in (torch.full((1,), float("nan")), torch.zeros(3)):
        with pytest.raises(EditableValueError, match="it must be finite, and"):
            store.add(EditPatch({editor.name: value}, result.patch.base_fingerprint, "a", "b"))
    assert store.edits == []


def test_edits_of_more_layers_need_a_store_for_them(tmp_path, tiny_model):
    config = EditConfig(layers_to_transform=[0, 1])
    store = EditStore.create(tmp_path / "store", tiny_model, edit_config=config)
    tiny_model.edit_config = config
    fill(store, CheapEditor(tiny_model), FOUR[:1])
    assert len(store.edits) == 1


def test_folders_that_cannot_be_a_store_are_refused(tmp_path, tiny_model, store, editor):
    with pytest.raises(EditableFileError, match="holds a store of edits already"):
        EditStore.create(store.path, tiny_model)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(EditableFileError, match=r"holds \['thesis.txt'\]. Give a new or an empty folder"):
        EditStore.create(tmp_path / "full", tiny_model)
    (tmp_path / "ignoring").mkdir()
    (tmp_path / "ignoring" / ".gitignore").write_text("*.log")
    with pytest.raises(EditableFileError, match=r"holds \['.gitignore'\]"):
        EditStore.create(tmp_path / "ignoring", tiny_model)
    with pytest.raises(EditableFileError, match="is no store of edits: it has no store.json"):
        EditStore.open(tmp_path / "full")
    assert not (tmp_path / "full" / ".lock").exists()
    other_edits(tiny_model)
    with pytest.raises(EditableValueError, match="1 patches are applied to the model"):
        EditStore.create(tmp_path / "other", tiny_model)


def test_what_an_interrupted_create_left_is_no_hindrance(tmp_path, tiny_model, store):
    shutil.copytree(store.path, tmp_path / "again")
    (tmp_path / "again" / "store.json").rename(tmp_path / "again" / ".store.json.new")
    (tmp_path / "again" / ".gitattributes").write_text("*.safe")
    (tmp_path / "again" / ".again-hf_editable_01234567").mkdir()
    assert EditStore.create(tmp_path / "again", tiny_model).edits == []


DAMAGES = {
    "no patch": (lambda path: shutil.rmtree(path / "edits" / sorted(os.listdir(path / "edits"))[1]), "'edits/0002-"),
    "no base": (lambda path: shutil.rmtree(path / "base"), "'base' is missing"),
    "cut off": (lambda path: (path / "store.json").write_text('{"edits": ['), "store.json' is damaged.*git"),
    "newer": (lambda path: change(path, format_version=9), "has format 9, .*Upgrade hf_editable"),
    "wrong type": (lambda path: change(path, next_number="4"), "damaged: next_number of store.json is '4'"),
    "no field": (lambda path: change(path, base_fingerprint=None), "base_fingerprint of store.json is None"),
    "no edits": (lambda path: change(path, edits=[3]), "one of edits of store.json is 3, not an object"),
    "no ids": (
        lambda path: change(path, edits=[{"added": "", "corrections": []}]),
        "one of edits of store.json has no id",
    ),
    "twice": (lambda path: change(path, edits=lambda edits: edits * 2), "are there twice"),
}


def change(path, **values):
    manifest = json.loads((path / "store.json").read_text())
    for name, value in values.items():
        manifest[name] = value(manifest[name]) if callable(value) else value
    (path / "store.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_says_what_is_wrong(store, editor, tmp_path, damage):
    fill(store, editor, FOUR)
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "store")
    with pytest.raises(EditableFileError, match=message):
        EditStore.open(tmp_path / "store")


def test_check_finds_what_open_does_not_look_for(store, editor, tmp_path):
    edits = fill(store, editor, FOUR)
    tensors = tmp_path / "store" / "edits" / edits[1].folder / "edit_model.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    EditStore.open(tmp_path / "store")
    with pytest.raises(EditableFileError, match="a file was damaged or exchanged"):
        store.check()
    tensors.write_bytes(content)
    change(tmp_path / "store", edits=lambda listed: [listed[1], listed[0], *listed[2:]])
    with pytest.raises(EditableFileError, match="0002-.* is not made from the edits before it"):
        store.check()


def test_unknown_keys_are_tolerated(store, editor, tmp_path):
    fill(store, editor, FOUR)
    change(tmp_path / "store", colour="blue")
    assert len(EditStore.open(tmp_path / "store").edits) == 4


def test_one_writes_at_a_time_and_readers_do_not_wait(store, editor, tmp_path):
    fill(store, editor, FOUR[:1])
    result = editor.edit("2 b", "1002")
    with exclusive(tmp_path / "store", 0):
        with pytest.raises(EditableFileError, match=rf"is being written by process {os.getpid()} on .*Try again"):
            store.add(result)
        assert len(store.edits) == 1
        store.check()
    store.add(result)
    assert len(store.edits) == 2


def test_a_reader_that_is_overtaken_by_a_writer_reads_again(store, editor, monkeypatch):
    edits = fill(store, editor, FOUR)
    from hf_editable.operations.store.contents import Contents

    merge, overtaken = Contents.merge, []

    def slow(contents, count):
        if not overtaken:
            overtaken.append(store.revert(edits[0].id, editor))
        return merge(contents, count)

    monkeypatch.setattr(Contents, "merge", slow)
    assert store.merge().steps == 3


def test_git_holds_a_store(store, editor, make_tiny_model, tmp_path):
    fill(store, editor, FOUR)
    (tmp_path / "store" / "edits" / ".0005-00000000-x").mkdir()
    (tmp_path / "store" / "edits" / ".0005-00000000-x" / "half").write_text("x")
    git = ["git", "-C", str(tmp_path / "store"), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "edits"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "store"), str(tmp_path / "clone")], check=True)
    held = files(tmp_path / "clone")
    assert not any(".0005" in name or ".lock" in name for name in held)
    clone = EditStore.open(tmp_path / "clone")
    clone.check()
    model = make_tiny_model()
    clone.load(model)
    assert same(weights_of(model), weights_of(editor.model))
    text = (tmp_path / "store" / "store.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_files_of_others_are_left_alone(store, editor, tmp_path):
    fill(store, editor, FOUR[:1])
    (tmp_path / "store" / "edits" / "0001-notes").mkdir()
    (tmp_path / "store" / "edits" / "readme.txt").write_text("mine")
    (tmp_path / "store" / "edits" / "0009-0123abcd").mkdir()
    fill(store, editor, FOUR[1:2])
    listed = [edit.id for edit in store.edits]
    assert sorted(os.listdir(tmp_path / "store" / "edits")) == sorted([*listed, "0001-notes", "readme.txt"])


def test_a_stored_edit_names_its_first_correction():
    edit = StoredEdit("0001-00000000", (Correction("a", "b"), Correction("c", "d")), None, "now")
    assert (edit.source, edit.target, edit.folder) == ("a", "b", "0001-00000000")
