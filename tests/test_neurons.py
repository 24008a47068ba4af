"""Cap neurons: corrections that stay out of each other's way, whatever becomes of the others."""

import copy
import dataclasses
import json
import pickle
import re

import pytest
import torch
from datasets import Dataset
from families import FAMILIES
from safetensors.torch import load_file, save_file
from test_families import editable, hard_edit
from transformers import AutoModelForSeq2SeqLM

from hf_editable import (
    EditableFileError,
    EditableTypeError,
    EditableValueError,
    EditPatch,
    TranslationEditor,
    evaluate_edits,
)
from hf_editable.decoding.generation import frozen
from hf_editable.evaluation.full_divergence import full_divergence
from hf_editable.models.families import decoder_inputs
from hf_editable.operations import EditStore, ImpactGate
from hf_editable.patches.added_neurons import AddedNeurons
from hf_editable.patches.application import added_neurons, applied
from hf_editable.patches.composition import Composition


# Families to which neurons cannot be added, and why; and those of which no plain checkpoint can hold them.
REFUSED = {"nllb-moe": "mixture of experts", "fsmt": "not in their order", "prophetnet": "not in their order"}
NOT_PLAIN = {"t5", "mt5", "umt5", "longt5", "longt5-tglobal", "switch_transformers", "t5gemma", "t5gemma2"}
NOT_PLAIN |= {"encoder-decoder"}


@pytest.fixture
def model(make_tiny_model, taught_weights):
    model = make_tiny_model()
    model.load_state_dict(taught_weights)
    return model


@pytest.fixture
def editor(model, tiny_tokenizer, tiny_pairs):
    references = [pair for pair in tiny_pairs if "hund" not in pair["source"]]
    return TranslationEditor(model, tiny_tokenizer, editor="neurons", references=references)


@pytest.fixture
def corrections(tiny_pairs):
    """Sources of one noun, and targets with another verb each."""
    own = [pair for pair in tiny_pairs if "hund" in pair["source"]]
    return [(pair["source"], own[(place + 1) % len(own)]["target"]) for place, pair in enumerate(own)]


def logits(model, tokenizer, pairs):
    batch = tokenizer([source for source, _ in pairs], return_tensors="pt")
    labels = tokenizer(text_target=[target for _, target in pairs], return_tensors="pt").input_ids
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).logits


def neurons(model):
    (layer,) = [module for name, module in model.named_modules() if name.endswith("decoder.layers.1.fc2")]
    return dict(layer.named_buffers())


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_one_correction_is_said_and_taken_back(editor, model, corrections, tiny_tokenizer):
    source, target = corrections[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said, scores = editor.translate([source]), logits(model, tiny_tokenizer, corrections)
    assert said != [target]
    result = editor.edit(source, target)
    assert result.decoded and result.success and result.translation == target and said == editor.translate([source])
    assert result.patch.editor == "neurons" and result.patch.names == [] and result.initial_loss > 0 >= result.loss
    result.patch.apply(model)
    assert editor.translate([source]) == [target]
    assert not torch.equal(logits(model, tiny_tokenizer, corrections), scores)
    assert same(before, dict(model.state_dict()))
    with pytest.raises(EditableValueError, match="applied already"):
        result.patch.apply(model)
    result.patch.revert(model)
    assert neurons(model) == {} and torch.equal(logits(model, tiny_tokenizer, corrections), scores)


def test_positions_outside_every_cap_keep_every_bit(editor, model, corrections, tiny_tokenizer, tiny_pairs):
    others = [(pair["source"], pair["target"]) for pair in tiny_pairs if "hund" not in pair["source"]]
    model.config.activation_function = "relu"
    for layer in model.model.decoder.layers:
        layer.activation_fn = torch.nn.ReLU()
    before, seen = logits(model, tiny_tokenizer, others), []
    with model.edited(editor.edit(*corrections[0]).patch):
        handle = model.model.decoder.layers[-1].fc1.register_forward_hook(lambda *call: seen.append(call[-1]))
        after = logits(model, tiny_tokenizer, others)
        handle.remove()
    outside = (seen[0][..., model.config.decoder_ffn_dim :] <= 0).all(-1)
    assert outside.sum() > 0 and torch.equal(after[outside], before[outside])
    assert (after[~outside] != before[~outside]).any(-1).all()


def test_edits_commute_and_any_of_them_comes_out_alone(editor, model, corrections):
    patches = [editor.edit(*each).patch for each in corrections]
    found = []
    for order in (patches, patches[::-1]):
        for patch in order:
            patch.apply(model)
        found.append(neurons(model))
        for patch in order[1:]:
            patch.revert(model)  # under others, or on top of them
        assert len(applied(model)) == 1
        order[0].revert(model)
        assert neurons(model) == {}
    assert same(*found)
    for patch in (patches[0], patches[2], patches[3]):
        patch.apply(model)
    never = neurons(model)
    patches[1].apply(model)
    assert not same(neurons(model), never)
    patches[1].revert(model)
    assert same(neurons(model), never)


def test_the_order_of_a_list_changes_nothing(editor, corrections):
    results = [editor.edit_jointly(*zip(*order, strict=True)) for order in (corrections, corrections[::-1])]
    assert all(results[0].decoded) and results[1].decoded == results[0].decoded
    assert results[0].patch.fingerprint() == results[1].patch.fingerprint()
    assert results[0].loss == results[1].loss
    alone = [part for part in results[0].parts if part]
    assert len(alone) == len(corrections) and {change.kind for part in alone for change in part} == {"added_neurons"}


def test_a_composition_is_what_its_set_is(editor, corrections):
    (change,) = editor.edit_jointly(*zip(*corrections, strict=True)).patch.changes
    whole = Composition(change.site).with_groups(change.groups)
    assert whole.raised  # these states are near each other
    for group in change.groups:
        others = [each for each in change.groups if each is not group]
        without = Composition(change.site).with_groups(others)
        taken, put = whole.without([group.key]), without.with_groups([group])
        assert all(
            torch.equal(getattr(taken.neurons(), n), getattr(without.neurons(), n)) for n in vars(without.neurons())
        )
        assert all(torch.equal(getattr(put.neurons(), n), getattr(whole.neurons(), n)) for n in vars(whole.neurons()))


def test_two_tokens_at_one_state_are_a_conflict(editor, corrections):
    (change,) = editor.edit(*corrections[0]).patch.changes
    (group,) = change.groups
    other = dataclasses.replace(group, tokens=group.tokens + 1, state_tokens=group.state_tokens + 1)
    both = Composition(change.site).with_groups([group, other])
    assert sorted(both.conflicts()) == sorted([(group.key, other.key), (other.key, group.key)])
    assert Composition(change.site).with_groups([group]).conflicts() == []


def test_neurons_of_two_kinds_at_one_place_are_refused(editor, model, corrections):
    patches = [editor.edit(*each).patch for each in corrections[:2]]
    (change,) = patches[1].changes
    other = AddedNeurons(dataclasses.replace(change.site, sharpness=2.0), change.groups)
    patches[0].apply(model)
    expected = neurons(model)
    with pytest.raises(EditableValueError, match="in two ways"):
        dataclasses.replace(patches[1], changes=(other,)).apply(model)
    assert same(neurons(model), expected) and len(applied(model)) == 1


def test_a_patch_is_a_small_file(editor, model, corrections, tmp_path):
    patch = editor.edit_jointly(*zip(*corrections[:2], strict=True)).patch
    patch.save_pretrained(tmp_path)
    loaded = EditPatch.from_pretrained(tmp_path, model=model)
    assert loaded.fingerprint() == patch.fingerprint() and loaded.fits_plain_checkpoint
    with model.edited(patch):
        expected = neurons(model)
    with model.edited(loaded):
        assert same(neurons(model), expected)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda says, tensors: says["changes"][0].update(second="model.encoder"), "lack|no linear layer"),
        (lambda says, tensors: says["changes"][0].update(groups=[[1, 1]]), "is torch"),
        (lambda says, tensors: says["changes"][0].update(sharpness=-1), "place of added neurons"),
        (lambda says, tensors: says["changes"][0].update(firsts=[]), "place of added neurons"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(editor, model, corrections, tmp_path, change, error):
    editor.edit(*corrections[0]).patch.save_pretrained(tmp_path)
    place = tmp_path / "edit_config.json"
    says, tensors = json.loads(place.read_text()), load_file(tmp_path / "edit_model.safetensors")
    change(says, tensors)
    place.write_text(json.dumps(says))
    save_file(tensors, tmp_path / "edit_model.safetensors")
    with pytest.raises((EditableFileError, EditableValueError), match=error):
        EditPatch.from_pretrained(tmp_path, model=model).apply(model)
    assert applied(model) == [] and neurons(model) == {}


@pytest.mark.parametrize("name", ["thresholds", "values", "offsets"])
def test_neurons_that_are_not_finite_are_refused(editor, model, corrections, name):
    patch = editor.edit(*corrections[0]).patch
    (change,) = patch.changes
    getattr(change.groups[0], name)[0] = torch.nan
    with pytest.raises(EditableValueError, match=f"{name} that are NaN"):
        patch.apply(model)
    assert applied(model) == [] and neurons(model) == {}


def test_a_plain_checkpoint_says_the_same(editor, model, corrections, tiny_tokenizer, tmp_path):
    patch = editor.edit_jointly(*zip(*corrections, strict=True)).patch
    patch.apply(model)
    width, sources = model.config.decoder_ffn_dim, [source for source, _ in corrections]
    model.save_pretrained(tmp_path)
    plain, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()) and type(plain).__name__ == "MarianMTModel"
    assert plain.config.decoder_ffn_dim == width + patch.changes[0].count and model.config.decoder_ffn_dim == width
    batch = tiny_tokenizer(sources, return_tensors="pt")
    said = plain.eval().generate(**batch, num_beams=5, max_length=16)
    texts = tiny_tokenizer.batch_decode(said, skip_special_tokens=True)
    assert texts == editor.translate(sources) == [target for _, target in corrections]
    torch.testing.assert_close(logits(plain, tiny_tokenizer, corrections), logits(model, tiny_tokenizer, corrections))


def test_copies_and_other_types_have_the_neurons(editor, model, corrections, tiny_tokenizer):
    patch = editor.edit(*corrections[0]).patch
    patch.apply(model)
    expected = logits(model, tiny_tokenizer, corrections)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.model.decoder.layers[-1].fc2))):
        assert any(name.endswith("added_columns") for name, _ in copied.named_buffers())
    assert torch.equal(logits(copy.deepcopy(model), tiny_tokenizer, corrections), expected)
    model.double()
    torch.testing.assert_close(logits(model, tiny_tokenizer, corrections).float(), expected, atol=1e-4, rtol=1e-4)
    patch.revert(model)
    assert neurons(model) == {} and applied(model) == []


def test_a_store_takes_any_edit_out_without_an_editor(
    editor, model, corrections, tmp_path, make_tiny_model, taught_weights
):
    store = EditStore.create(tmp_path / "store", model)
    for source, target in corrections:
        result = editor.edit(source, target)
        store.add(result)
        result.patch.apply(model)
    sources = [source for source, _ in corrections]
    fresh = make_tiny_model()
    fresh.load_state_dict(taught_weights)
    store.load(fresh)
    assert same(neurons(fresh), neurons(model))
    store.check()
    gone = store.edits[1]
    result = store.revert(gone.id)
    assert result.redone == [] and [edit.revision for edit in store.edits] == [0, 0, 0]
    applied(model)[1].owner.revert(model)
    again = make_tiny_model()
    again.load_state_dict(taught_weights)
    store.load(again)
    assert same(neurons(again), neurons(model))
    result.patch.apply(fresh)
    assert same(neurons(fresh), neurons(model))
    said = TranslationEditor(again, editor.tokenizer).translate(sources)
    assert [said[place] == corrections[place][1] for place in (0, 2, 3)] == [True] * 3
    store.check()


def test_earlier_corrections_are_kept(editor, corrections):
    first = editor.edit(*corrections[0])
    first.patch.apply(editor.model)
    result = editor.edit(*corrections[1], keep=[corrections[0]])
    assert result.decoded and result.lost == []


def test_contradictions_are_named(editor, corrections):
    source = corrections[0][0]
    with pytest.raises(EditableValueError, match=re.escape(repr(source)) + ".*Leave one of them out"):
        editor.edit_jointly([source, source], [corrections[0][1], corrections[1][1]])


def test_without_references_caps_are_small(model, tiny_tokenizer, corrections, caplog):
    result = TranslationEditor(model, tiny_tokenizer, editor="neurons").edit(*corrections[0])
    assert result.decoded
    (change,) = result.patch.changes
    assert isinstance(change, AddedNeurons) and float((1 - change.groups[0].thresholds).max()) <= 0.021


@pytest.mark.parametrize("settings", [{"reach": 0}, {"gain": 0.5}, {"confidence": 1}, {"metric": "far"}])
def test_settings_out_of_range_are_refused(model, tiny_tokenizer, settings):
    with pytest.raises(EditableValueError, match=next(iter(settings))):
        TranslationEditor(model, tiny_tokenizer, editor="neurons", **settings)


def test_a_model_with_neurons_is_edited_by_gradients(editor, model, corrections):
    first = editor.edit(*corrections[0]).patch
    first.apply(model)
    result = TranslationEditor(model, editor.tokenizer, editor="gradient").edit(*corrections[1])
    assert result.success
    with model.edited(result.patch):
        assert [each.site.second for each in added_neurons(model)] == ["model.decoder.layers.1.fc2"]


def test_what_they_change_is_measured(editor, model, corrections, tiny_pairs):
    patch = editor.edit(*corrections[0]).patch
    gate = ImpactGate(editor, [corrections[0][0], *(pair["source"] for pair in tiny_pairs[4:8])])
    for _ in range(2):  # the second time it has a record of the search
        report = gate.measure(patch)
        assert corrections[0][0] in [each.source for each in report.changed] and report.said == corrections[0][1]
    pairs = [{"source": source, "target": target} for source, target in corrections]
    with frozen(model):
        found = full_divergence(model, patch.changes, editor.collator, pairs, 4)
        assert found > 0 == full_divergence(model, (), editor.collator, pairs, 4)
    assert neurons(model) == {}


def test_single_edits_are_measured(model, editor, tiny_tokenizer, tiny_edits, tiny_pairs):
    data = Dataset.from_list(tiny_pairs)
    options = {"num_edits": 3, "editor": "neurons", "num_beams": 2}
    report = evaluate_edits(model, tiny_tokenizer, tiny_edits, data, references=editor.references, **options)
    assert report.summary["success_rate"] == 1 and report.summary["changed_rate"] > 0 and report.summary["kl"] > 0
    assert neurons(model) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_edited_or_refused_by_name(family):
    model = editable(family)
    edit, state = hard_edit(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if family in REFUSED:
        with pytest.raises(EditableTypeError, match=rf"Neurons cannot be added to .*{REFUSED[family]}"):
            model.edit(**edit, editor="neurons")
        return
    result = model.edit(**edit, editor="neurons")
    assert result.success and result.initial_loss > 0
    assert [module.training for module in model.modules()] == modes
    assert result.patch.fits_plain_checkpoint == (family not in NOT_PLAIN)
    inputs = {name: edit[name] for name in ("input_ids", "attention_mask")}
    inputs["decoder_input_ids"] = decoder_inputs(model, edit["labels"])
    with torch.no_grad():
        before = model(**inputs).logits
        with model.edited(result.patch):
            assert not torch.equal(model(**inputs).logits, before)
        assert torch.equal(model(**inputs).logits, before) and same(dict(model.state_dict()), state)


def test_what_no_checkpoint_can_hold_is_refused(tmp_path):
    model = editable("t5")
    model.edit(**hard_edit(model), editor="neurons").patch.apply(model)
    with pytest.raises(EditableValueError, match="no checkpoint of T5ForConditionalGeneration can hold them"):
        model.save_pretrained(tmp_path)
