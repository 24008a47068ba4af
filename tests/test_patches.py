"""Patches: applied and reverted bit for bit, saved and loaded whole, refused where they do not belong."""

import json

import pytest
import torch
from transformers import MarianMTModel

from hf_editable import EditableFileError, EditableValueError, EditPatch
from hf_editable.patches import fingerprint


@pytest.fixture
def edits(tiny_batch):
    return [
        {
            name.removeprefix("edit_"): tensor[index : index + 1]
            for name, tensor in tiny_batch.items()
            if name.startswith("edit_")
        }
        for index in range(2)
    ]


@pytest.fixture
def patch(tiny_model, edits):
    return tiny_model.edit(**edits[0]).patch


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_apply_and_revert_leave_every_tensor_equal(tiny_model, patch):
    before = state(tiny_model)
    patch.apply(tiny_model)
    after = state(tiny_model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(patch.tensors)
    patch.revert(tiny_model)
    assert same(state(tiny_model), before)


def test_save_load_apply_gives_equal_tensors(tiny_model, patch, tmp_path):
    patch.source, patch.target = "Grüße", "regards"
    patch.save_pretrained(tmp_path / "patch")
    assert {path.name for path in (tmp_path / "patch").iterdir()} == {
        "edit_model.safetensors", "edit_config.json", "README.md",
    }  # fmt: skip
    loaded = EditPatch.from_pretrained(tmp_path / "patch")
    assert same(loaded.tensors, patch.tensors) and loaded.source == "Grüße" and loaded.steps == patch.steps
    before = state(tiny_model)
    loaded.apply(tiny_model)
    assert all(torch.equal(tiny_model.get_parameter(name), tensor) for name, tensor in patch.tensors.items())
    patch.revert(tiny_model)  # the same patch, whether it came from memory or from disk
    assert same(state(tiny_model), before)


def test_a_patch_applies_to_the_vanilla_model_too(tiny_model, patch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    vanilla = MarianMTModel.from_pretrained(tmp_path)
    before = state(vanilla)
    patch.apply(vanilla)
    assert not same(state(vanilla), before)
    patch.revert(vanilla)
    assert same(state(vanilla), before)


def test_patches_stack_and_are_reverted_in_order(tiny_model, edits):
    before = state(tiny_model)
    first = tiny_model.edit(**edits[0]).patch
    first.apply(tiny_model)
    between = state(tiny_model)
    second = tiny_model.edit(**edits[1]).patch
    second.apply(tiny_model)
    with pytest.raises(EditableValueError, match="opposite order"):
        first.revert(tiny_model)
    second.revert(tiny_model)
    assert same(state(tiny_model), between)
    first.revert(tiny_model)
    assert same(state(tiny_model), before)
    with pytest.raises(EditableValueError, match="No patch is applied"):
        first.revert(tiny_model)
    with pytest.raises(EditableValueError, match=second.base_fingerprint):
        second.apply(tiny_model)
    assert same(state(tiny_model), before)


def test_reverting_does_not_lose_later_changes(tiny_model, patch):
    patch.apply(tiny_model)
    name = next(iter(patch.tensors))
    tiny_model.get_parameter(name).data += 1.0
    with pytest.raises(EditableValueError, match="changed since the patch was applied"):
        patch.revert(tiny_model)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda name, tensor: {f"other.{name}": tensor}, "which EditableMarianMTModel does not have"),
        (lambda name, tensor: {name: tensor[:1]}, r"of shape \(1"),
        (lambda name, tensor: {name: tensor.half()}, "torch.float16"),
        (lambda name, tensor: {name: tensor * float("nan")}, "NaN or infinite"),
    ],
)
def test_patches_that_do_not_fit_change_nothing(tiny_model, patch, spoil, message):
    before = state(tiny_model)
    name = next(iter(patch.tensors))
    tensor = patch.tensors.pop(name)
    patch.tensors.update(spoil(name, tensor))
    with pytest.raises(EditableValueError, match=message):
        patch.apply(tiny_model)
    assert same(state(tiny_model), before)


def test_another_base_is_refused_with_both_fingerprints(tiny_model, patch):
    tiny_model.model.decoder.layers[1].fc1.bias.data[0] += 1e-6
    found = fingerprint({name: tiny_model.get_parameter(name) for name in patch.tensors})
    with pytest.raises(EditableValueError, match=f"{patch.base_fingerprint}.*{found}"):
        patch.apply(tiny_model)


@pytest.mark.parametrize("damage", ["edit_model.safetensors", "edit_config.json"])
@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_damaged_files(patch, tmp_path, damage, how):
    patch.save_pretrained(tmp_path / "patch")
    file = tmp_path / "patch" / damage
    content = file.read_bytes()
    file.unlink()
    if how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(EditableFileError, match="is not an edit patch"):
        EditPatch.from_pretrained(tmp_path / "patch")


def test_unknown_base(patch, tmp_path):
    patch.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "edit_config.json").read_text())
    del config["base_fingerprint"]
    (tmp_path / "edit_config.json").write_text(json.dumps({**config, "written_by": "a newer version"}))
    with pytest.raises(EditableFileError, match="no base_fingerprint"):
        EditPatch.from_pretrained(tmp_path)


def test_a_card_that_a_person_wrote_is_kept(patch, tmp_path):
    (tmp_path / "README.md").write_text("By hand.")
    patch.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "By hand."


def test_saving_to_a_file_is_refused(patch, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(EditableFileError, match="taken' is a file"):
        patch.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
