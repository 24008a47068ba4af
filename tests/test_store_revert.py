"""Taking back an edit of a store: the later ones are made anew, and all of that happens or nothing."""

import os

import pytest
from cheap_edits import FOUR, CheapEditor, files, fill, same, weights_of

from hf_editable import EditableValueError, EditPatch, TranslationEditor
from hf_editable.operations import EditStore, ImpactGate
from hf_editable.operations.corrections.correction_list import Correction


@pytest.fixture
def store(tmp_path, tiny_model):
    return EditStore.create(tmp_path / "store", tiny_model, lock_timeout=0)


@pytest.fixture
def editor(tiny_model):
    return CheapEditor(tiny_model)


@pytest.mark.parametrize("start", ["base", "edits"])
@pytest.mark.parametrize("place", range(4))
def test_any_edit_is_reverted_and_the_later_ones_are_redone(store, editor, make_tiny_model, place, start):
    edits = fill(store, editor, FOUR)
    working = editor if start == "edits" else CheapEditor(make_tiny_model())
    result = store.revert(edits[place].id, working)
    left = FOUR[:place] + FOUR[place + 1 :]
    assert result.reverted == edits[place]
    assert result.lost == []
    assert [edit.id for edit in store.edits] == [edit.id for edit in edits if edit != edits[place]]
    assert [edit.revision for edit in store.edits] == [0] * place + [1] * (3 - place)
    if place < 3:
        assert working.kept == [source for source, _ in left[:-1]]
    expected = CheapEditor(make_tiny_model())
    for source, target in left:
        expected.edit(source, target).patch.apply(expected.model)
    loaded = make_tiny_model()
    store.load(loaded)
    assert same(weights_of(loaded), weights_of(expected.model))
    present = expected.model if start == "edits" else make_tiny_model()
    assert same(weights_of(working.model), weights_of(present))
    store.check()
    listed = sorted(edit.folder for edit in store.edits)
    assert sorted(os.listdir(os.path.join(store.path, "edits"))) == listed


def test_the_last_edit_is_reverted_without_an_editor(store, editor):
    edits = fill(store, editor, FOUR)
    with pytest.raises(EditableValueError, match=r"1 edits were made on top of .*Give an editor"):
        store.revert(edits[2].id)
    store.revert(edits[3].id)
    assert [(edit.source, edit.target) for edit in store.edits] == FOUR[:3]


def test_ids_are_never_given_again(store, editor):
    edits = fill(store, editor, FOUR[:2])
    store.revert(edits[1].id, editor)
    assert fill(store, editor, FOUR[1:2])[-1].id.startswith("0003-")


def test_joint_edits_are_redone_jointly(store, editor):
    fill(store, editor, FOUR[:1])
    joint = editor.edit_jointly(["2 b", "3 c"], ["1002", "1003"])
    store.add(joint, corrections=[Correction("2 b", "1002"), Correction("3 c", "1003")])
    joint.patch.apply(editor.model)
    store.revert("0001", editor)
    assert editor.translate(["1 a", "2 b", "3 c"])[1:] == ["1002", "1003"]
    assert len(store.edits) == 1


class Unable(CheapEditor):
    """An editor that meets an error at one source."""

    def edit(self, source, target, keep=()):
        if source in self.broken:
            raise EditableValueError(f"{source!r} is too long.")
        return super().edit(source, target, keep)


REFUSALS = {
    "redone badly": ({"broken": ["4 d"]}, CheapEditor, "0004-.* does not come out as well as it was"),
    "cannot be redone": ({"broken": ["4 d"]}, Unable, "0004-.* cannot be made anew: '4 d' is too long"),
    "another is lost": (
        {"spoils": {"4 d": 1}},
        CheapEditor,
        "1 corrections that hold now would be lost: '1 a' → '1001'",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_revert_that_fails_changes_nothing(store, editor, case, tmp_path):
    edits = fill(store, editor, FOUR)
    options, kind, message = REFUSALS[case]
    before, on_disk = weights_of(editor.model), files(tmp_path / "store")
    with pytest.raises(EditableValueError, match=message):
        store.revert(edits[1].id, kind(editor.model, **options))
    assert same(weights_of(editor.model), before)
    assert files(tmp_path / "store") == on_disk


def test_what_is_lost_can_be_allowed_and_is_told(store, editor):
    edits = fill(store, editor, FOUR)
    result = store.revert(edits[1].id, CheapEditor(editor.model, spoils={"4 d": 1}), allow_lost=True)
    assert result.lost == [Correction("1 a", "1001")]
    assert editor.translate(["1 a", "4 d"]) == ["0", "1004"]


@pytest.mark.parametrize("moment", ["the disk is full", "interrupted between model and store"])
def test_a_failure_leaves_store_and_model_as_they_were(store, editor, monkeypatch, tmp_path, moment):
    edits = fill(store, editor, FOUR)
    before, on_disk, apply = weights_of(editor.model), files(tmp_path / "store"), EditPatch.apply

    def full(*args):
        raise OSError(moment)

    def apply_and_stop(patch, model):
        apply(patch, model)
        if model is editor.model:
            raise KeyboardInterrupt(moment)

    with monkeypatch.context() as patched:
        if moment == "the disk is full":
            patched.setattr("hf_editable.operations.store.manifest.os.replace", full)
        else:
            patched.setattr(EditPatch, "apply", apply_and_stop)
        with pytest.raises((OSError, KeyboardInterrupt), match=moment):
            store.revert(edits[1].id, editor)
    (tmp_path / "store" / ".store.json.new").unlink(missing_ok=True)
    assert same(weights_of(editor.model), before)
    assert files(tmp_path / "store") == on_disk


def test_a_gate_weighs_a_revert(tmp_path, tiny_model, tiny_tokenizer, tiny_pairs):
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
    store = EditStore.create(tmp_path / "store", tiny_model)
    for pair in tiny_pairs[:2]:
        result = editor.edit(pair["source"], pair["target"])
        store.add(result)
        result.patch.apply(tiny_model)
    before = weights_of(tiny_model)
    strict = ImpactGate(editor, tiny_pairs[8:], max_drawdown=-101.0)
    with pytest.raises(EditableValueError, match=r"The gate refuses the change: BLEU falls by"):
        store.revert("0002", gate=strict)
    assert same(weights_of(tiny_model), before)
    assert len(store.edits) == 2
    sources = [pair["source"] for pair in tiny_pairs[8:]]
    said = editor.translate(sources)
    result = store.revert("0002", gate=ImpactGate(editor, tiny_pairs[8:], max_lost=None), allow_lost=True)
    changed = [(each.source, each.before, each.after) for each in result.impact.changed]
    now = editor.translate(sources)
    assert changed == [row for row in zip(sources, said, now, strict=True) if row[1] != row[2]]
    assert [each.target for each in result.impact.asked] == [tiny_pairs[0]["target"]]


def test_the_gate_and_the_editor_have_one_model(store, editor, make_tiny_model, tiny_tokenizer, tiny_pairs):
    edits = fill(store, editor, FOUR)
    gate = ImpactGate(TranslationEditor(make_tiny_model(), tiny_tokenizer), tiny_pairs)
    with pytest.raises(EditableValueError, match="the gate have two models"):
        store.revert(edits[0].id, editor, gate)


def test_edits_are_made_anew_by_the_family_that_made_them(tiny_model, tiny_tokenizer, tiny_pairs, tmp_path):
    def made_by(name, **settings):
        return TranslationEditor(tiny_model, tiny_tokenizer, 2, editor=name, learning_rate=1e-2, **settings)

    pairs = [(pair["source"], pair["target"]) for pair in tiny_pairs[:9:4]]
    gradient, penalized = made_by("gradient"), made_by("kl", references=tiny_pairs[12:15], num_pairs=3)
    store = EditStore.create(tmp_path / "store", tiny_model)
    for editor, pair in zip((gradient, penalized, gradient), pairs, strict=True):
        result = editor.edit(*pair, max_rounds=1)
        result.patch.apply(tiny_model)
        store.add(result)
    assert [edit.editor for edit in store.edits] == ["gradient", "kl", "gradient"]
    before = weights_of(tiny_model), files(tmp_path)
    with pytest.raises(EditableValueError, match=r"0002-.* cannot be made anew: The editor 'kl'.* Give references"):
        store.revert("0001", gradient, allow_lost=True)
    assert same(weights_of(tiny_model), before[0]) and files(tmp_path) == before[1]
    store.revert("0001", penalized, allow_lost=True)
    assert [(edit.editor, edit.revision) for edit in store.edits] == [("kl", 1), ("gradient", 1)]
