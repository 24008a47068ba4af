"""A patch fits the whole model that it was made from, not only its edited layer, and changes nothing else."""

import copy
import dataclasses
import json

import pytest
import torch
from cheap_edits import CheapEditor, fill
from transformers import MarianMTModel
from transformers.utils import logging

from hf_editable import EditableValueError, EditPatch
from hf_editable.cli.main import main
from hf_editable.models.weights import fingerprint_weights
from hf_editable.operations import EditStore
from hf_editable.patches.changes import Lookup, Whole
from hf_editable.runs.fingerprints import fingerprint, fingerprint_sum


ELSEWHERE = "model.encoder.layers.0.fc1.weight"
EMBEDDINGS = "model.shared.weight"
LAYER = "model.decoder.layers.1.fc1.weight"


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def whole(model, name=LAYER, value=1.0, **facts):
    before = {name: model.get_parameter(name).detach().clone()}
    made_from = {"model_fingerprint": fingerprint_weights(model)}
    return EditPatch({name: before[name] + value}, fingerprint(before), **{**made_from, **facts})


@pytest.mark.parametrize("editor", ["gradient", "cache"])
def test_another_model_with_the_same_layer_is_refused(tiny_model, tiny_batch, editor, tmp_path):
    edit = {name.removeprefix("edit_"): each[:1] for name, each in tiny_batch.items() if name.startswith("edit_")}
    patch = tiny_model.edit(**edit, editor=editor).patch
    patch.save_pretrained(tmp_path)
    other = copy.deepcopy(tiny_model)
    # As `.data` does it, no counter of PyTorch's notices.
    other.get_parameter(ELSEWHERE).data[0, 0] += 1e-6
    before = state(other)
    with pytest.raises(EditableValueError) as refused:
        EditPatch.from_pretrained(tmp_path).apply(other)
    for named in (patch.model_fingerprint, fingerprint_weights(other), "Apply it to the model that it was made from"):
        assert named in str(refused.value)
    assert same(state(other), before)
    EditPatch.from_pretrained(tmp_path).apply(tiny_model)


def test_the_command_refuses_another_model(tiny_model, tiny_tokenizer, tmp_path, capsys):
    whole(tiny_model).save_pretrained(tmp_path / "patch")
    tiny_model.get_parameter(ELSEWHERE).data += 1.0
    for part in (tiny_model, tiny_tokenizer):
        part.save_pretrained(tmp_path / "other")
    options = ["--model_name_or_path", str(tmp_path / "other"), "--output_dir", str(tmp_path / "corrected")]
    assert main(["apply", str(tmp_path / "patch"), *options]) == 1
    assert "made for a model whose weights have the fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "corrected").exists()


def test_what_does_not_decide_the_weights_does_not_count(tiny_model, tmp_path):
    found = fingerprint_weights(tiny_model)
    tiny_model.save_pretrained(tmp_path)
    assert fingerprint_weights(MarianMTModel.from_pretrained(tmp_path)) == found
    # Sines are computed when a model is loaded, and the last bit of them is the processor's.
    tiny_model.model.encoder.embed_positions.weight.data.mul_(1 + 1e-7)
    for parameter in tiny_model.editor.parameters():
        parameter.data += 1.0
    assert fingerprint_weights(tiny_model) == found
    tiny_model.final_logits_bias += 1.0  # a buffer
    assert fingerprint_weights(tiny_model) != found


def test_fingerprints_add_up_and_tell_names_types_and_shapes_apart():
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 3, dtype=torch.bfloat16), "c": torch.tensor(1)}
    found = fingerprint_sum(tensors)
    parts = [fingerprint_sum({name: tensor}) for name, tensor in tensors.items()]
    assert fingerprint_sum({}, *parts) == fingerprint_sum({"c": tensors["c"]}, *parts[:2]) == found
    changes = ({"a": tensors["a"].view(2, 3)}, {"a": tensors["a"].int()}, {"c": torch.tensor(2)}, {"d": torch.ones(1)})
    others = [fingerprint_sum({**tensors, **change}) for change in changes]
    others.append(fingerprint_sum({"a": tensors["b"], "b": tensors["a"], "c": tensors["c"]}))
    assert len({found, *others}) == len(others) + 1
    tied = torch.ones(3)
    assert fingerprint_sum({"a": tied, "b": tied}) == fingerprint_sum({"a": tied, "b": tied.clone()})


def test_a_patch_on_top_of_another_needs_it_also_where_they_change_different_tensors(tiny_model):
    first = whole(tiny_model)
    first.apply(tiny_model)
    second = whole(tiny_model, "model.decoder.layers.1.fc2.weight")
    both = second.after(first, tiny_model)
    second.apply(tiny_model)
    second.revert(tiny_model)
    first.revert(tiny_model)
    with pytest.raises(EditableValueError, match=second.model_fingerprint):
        second.apply(tiny_model)
    assert both.model_fingerprint == first.model_fingerprint == fingerprint_weights(tiny_model)


def test_patches_of_earlier_versions_are_checked_as_far_as_they_can_be(tiny_model, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging.get_logger("hf_editable.patches.patch"), "warning_once", said.append, raising=False)
    whole(tiny_model).save_pretrained(tmp_path)
    path = tmp_path / "edit_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "model_fingerprint"}))
    old = EditPatch.from_pretrained(tmp_path)
    with tiny_model.edited(old):
        pass
    assert len(said) == 1 and "of an earlier version" in said[0]
    tiny_model.get_parameter(LAYER).data += 1.0
    with pytest.raises(EditableValueError, match="made for tensors with fingerprint"):
        old.apply(tiny_model)


@pytest.mark.parametrize("editor", [None, "gradient", "cache", "somebody's"])
@pytest.mark.parametrize("name", [ELSEWHERE, EMBEDDINGS])
def test_a_file_that_changes_more_than_the_decoders_layers_is_refused(tiny_model, editor, name, tmp_path):
    names = [key for key, each in tiny_model.named_parameters(remove_duplicate=False)
             if each is tiny_model.get_parameter(name)]  # fmt: skip
    before = dict.fromkeys(names, tiny_model.get_parameter(name).detach().clone())
    made_from = {"model_fingerprint": fingerprint_weights(tiny_model), "editor": editor}
    patch = EditPatch({key: tensor + 1 for key, tensor in before.items()}, fingerprint(before), **made_from)
    patch.save_pretrained(tmp_path)
    message = f"none of the decoder's layers.*such as '{sorted(names)[0]}'.*Do not use it"
    with pytest.raises(EditableValueError, match=message):
        EditPatch.from_pretrained(tmp_path).apply(tiny_model)
    # Plain fine-tuning, which is there to be compared with, does change them.
    dataclasses.replace(patch, editor="finetune_all").apply(tiny_model)


def test_a_store_takes_edits_of_its_own_model_only(tiny_model, tmp_path):
    store = EditStore.create(tmp_path / "edits", tiny_model)
    other = copy.deepcopy(tiny_model)
    other.get_parameter(ELSEWHERE).data += 1.0
    facts = {"source": "1 a", "target": "b"}
    with pytest.raises(EditableValueError, match="made from a model whose weights have the fingerprint"):
        store.add(whole(other, **facts))
    assert store.edits == []
    table = EditPatch((Lookup({(1,): (2,)}),), fingerprint({}), **facts, model_fingerprint=fingerprint_weights(other))
    with pytest.raises(EditableValueError, match="made from a model whose weights have the fingerprint"):
        store.add(table)
    for _ in range(2):
        patch = whole(tiny_model, **facts)
        store.add(patch)
        patch.apply(tiny_model)
    patch.revert(tiny_model)
    merged = store.merge()
    base = copy.deepcopy(other)
    base.get_parameter(ELSEWHERE).data.copy_(tiny_model.get_parameter(ELSEWHERE))
    assert merged.model_fingerprint == fingerprint_weights(base)
    with pytest.raises(EditableValueError, match=merged.model_fingerprint):
        merged.apply(other)
    merged.apply(base)


def test_stores_of_earlier_versions_go_on(make_tiny_model, tmp_path):
    model = make_tiny_model()
    store = EditStore.create(tmp_path, model)
    path = tmp_path / "store.json"
    fill(store, CheapEditor(model), [("1 a", "1001")])
    manifest = json.loads(path.read_text())
    assert len(manifest.pop("rest_fingerprint")) == 32
    path.write_text(json.dumps(manifest))
    fill(store, CheapEditor(model), [("2 b", "1002")])
    fresh = make_tiny_model()
    assert store.load(fresh).model_fingerprint is None and fingerprint_weights(fresh) == fingerprint_weights(model)


def test_edits_of_all_weights_become_one_patch(tiny_model, tmp_path):
    config = tiny_model.edit_config.replace(editor="finetune_all")
    store = EditStore.create(tmp_path, tiny_model, edit_config=config)
    fresh = copy.deepcopy(tiny_model)
    for name, editor in ((LAYER, "gradient"), (ELSEWHERE, "finetune_all")):
        patch = whole(tiny_model, name, editor=editor, source=name, target="t")
        store.add(patch)
        patch.apply(tiny_model)
    merged = store.load(fresh)
    assert merged.editor == "finetune_all" and isinstance(merged.changes[0], Whole)
    assert fingerprint_weights(fresh) == fingerprint_weights(tiny_model)
