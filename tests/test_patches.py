"""Patches: applied and reverted bit for bit, saved and loaded whole, refused where they do not belong."""

import copy

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import MarianMTModel

from hf_editable import EditableFileError, EditableValueError, EditPatch
from hf_editable.runs.fingerprints import fingerprint


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
    patches, states = [], []
    for number, edit in enumerate([*edits, edits[1]], 1):
        patch = tiny_model.edit(**edit).patch
        patch.source, patch.target = f"source {number}", f"target {number}"
        states.append(state(tiny_model))
        patch.apply(tiny_model)
        patches.append(patch)
    first, second, third = patches
    assert min(first.steps, second.steps) > third.steps == 0  # the last one changes nothing, and counts all the same
    top = state(tiny_model)
    labels = [rf"'source {n}' → 'target {n}' \(on base {patches[n - 1].base_fingerprint[:8]}\)" for n in (1, 2, 3)]
    with pytest.raises(EditableValueError, match=f"{labels[0]} is under 2 .*order: 1. {labels[2]}, 2. {labels[1]}\\."):
        first.revert(tiny_model)
    with pytest.raises(EditableValueError, match=f"{labels[1]} is under 1 .*order: 1. {labels[2]}\\."):
        second.revert(tiny_model)
    with pytest.raises(EditableValueError, match="made for tensors with fingerprint"):
        first.apply(tiny_model)
    assert same(state(tiny_model), top)
    for patch, earlier in zip(reversed(patches), reversed(states), strict=True):
        patch.revert(tiny_model)
        assert same(state(tiny_model), earlier)
    with pytest.raises(EditableValueError, match=f"{labels[0]} is not applied to this model. None is applied"):
        first.revert(tiny_model)
    with pytest.raises(EditableValueError, match=second.base_fingerprint):
        second.apply(tiny_model)
    first.apply(tiny_model)
    with pytest.raises(EditableValueError, match=f"{labels[1]} is not applied .* ones are: 1. {labels[0]}\\."):
        second.revert(tiny_model)
    with pytest.raises(EditableValueError, match=r"It is applied already\. Apply it to the model"):
        first.apply(tiny_model)
    first.revert(tiny_model)
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
        (lambda name, tensor: {f"other.{name}": tensor}, "which EditableMarianMTModel does not have. Apply it to"),
        (lambda name, tensor: {f"../{name}": tensor}, r"has '\.\./model.decoder.*does not have"),
        (lambda name, tensor: {"final_logits_bias": tensor}, "'final_logits_bias', which"),  # a buffer
        (lambda name, tensor: {name: tensor[:1]}, r"of shape \(1"),
        (lambda name, tensor: {name: tensor.half()}, "is torch.float16 of .*loaded with dtype=torch.float16"),
        (lambda name, tensor: {name: tensor.to(torch.int64)}, "torch.int64"),
        (lambda name, tensor: {name: tensor * float("nan")}, "NaN or infinite values.*Make the edit anew"),
        (lambda name, tensor: {name: tensor / 0.0}, "NaN or infinite"),
        (lambda name, tensor: {}, "made for tensors with fingerprint"),
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


CONVERSIONS = [torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", CONVERSIONS)
def test_a_model_converted_under_a_patch_reverts_to_the_converted_base(tiny_model, patch, dtype):
    expected = state(copy.deepcopy(tiny_model).to(dtype))
    patch.apply(tiny_model)
    tiny_model.to(dtype)
    assert not same(state(tiny_model), expected)
    patch.revert(tiny_model)
    assert same(state(tiny_model), expected) and tiny_model.lm_head.weight.dtype == dtype


def test_edited_ends_in_the_converted_base(tiny_model, patch):
    expected = state(copy.deepcopy(tiny_model).half())
    with tiny_model.edited(patch):
        tiny_model.half()
    assert same(state(tiny_model), expected)


def test_fewer_bits_and_back_is_a_change(tiny_model, patch):
    patch.apply(tiny_model)
    tiny_model.half().float()
    changed = state(tiny_model)
    with pytest.raises(EditableValueError, match="conversion to fewer bits and back.*Load the base model again"):
        patch.revert(tiny_model)
    assert same(state(tiny_model), changed)


@pytest.mark.parametrize("dtype", CONVERSIONS)
def test_a_patch_of_another_type_is_refused_with_the_way_round_it(tiny_model, patch, tmp_path, dtype):
    tiny_model.save_pretrained(tmp_path)
    other = MarianMTModel.from_pretrained(tmp_path, dtype=dtype)
    before = state(other)
    with pytest.raises(EditableValueError, match=f"model's is {dtype}.*loaded with dtype=torch.float32, and convert"):
        patch.apply(other)
    assert same(state(other), before)
    # What the message says to do.
    base = MarianMTModel.from_pretrained(tmp_path, dtype=torch.float32)
    patch.apply(base)
    base.to(dtype)
    patch.revert(base)
    assert same(state(base), before)


def test_a_half_precision_patch_survives_its_file(tiny_model, edits, tmp_path):
    tiny_model.to(torch.bfloat16)
    patch = tiny_model.edit(**edits[0]).patch
    patch.save_pretrained(tmp_path)
    before = state(tiny_model)
    EditPatch.from_pretrained(tmp_path).apply(tiny_model)
    assert not same(state(tiny_model), before)
    patch.revert(tiny_model)
    assert same(state(tiny_model), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_models_and_patches_on_different_devices(tiny_model, patch):
    before = state(tiny_model)
    patch.apply(tiny_model.to("cuda"))
    patch.revert(tiny_model.to("cpu"))
    assert same(state(tiny_model), before)
    patch.tensors = {name: tensor.to("cuda") for name, tensor in patch.tensors.items()}
    patch.apply(tiny_model)
    assert same({name: tensor.cuda() for name, tensor in patch.tensors.items()}, patch.tensors)
    patch.revert(tiny_model.to("cuda"))
    assert same(state(tiny_model.to("cpu")), before)


def test_a_model_that_is_not_in_memory_is_refused(tiny_model, patch):
    with pytest.raises(EditableValueError, match="not in memory .device 'meta'.*without offloading"):
        patch.apply(tiny_model.to("meta"))


def test_a_tied_parameter_is_refused(tiny_model, patch):
    before = state(tiny_model)
    layers = tiny_model.model.decoder.layers
    layers[0].fc1 = layers[1].fc1
    with pytest.raises(EditableValueError, match=r"layers.1.fc1.weight' is tied to \['model.decoder.layers.0.*Untie"):
        patch.apply(tiny_model)
    assert torch.equal(layers[1].fc1.weight, before["model.decoder.layers.1.fc1.weight"])


class InterruptCopy(TorchFunctionMode):
    """Ctrl-C at one of the calls of `copy_`."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("at", [1, 3, 26])
def test_an_interruption_leaves_the_model_as_it_was(tiny_model, patch, at):
    before = state(tiny_model)
    assert len(patch.tensors) == 26
    with pytest.raises(KeyboardInterrupt), InterruptCopy(at):
        patch.apply(tiny_model)
    assert same(state(tiny_model), before)
    with pytest.raises(EditableValueError, match="None is applied"):
        patch.revert(tiny_model)
    patch.apply(tiny_model)
    after = state(tiny_model)
    with pytest.raises(KeyboardInterrupt), InterruptCopy(at):
        patch.revert(tiny_model)
    assert same(state(tiny_model), after)
    patch.revert(tiny_model)
    assert same(state(tiny_model), before)


def test_another_base_is_refused_with_both_fingerprints(tiny_model, patch):
    tiny_model.model.decoder.layers[1].fc1.bias.data[0] += 1e-6
    found = fingerprint({name: tiny_model.get_parameter(name) for name in patch.tensors})
    with pytest.raises(EditableValueError, match=f"{patch.base_fingerprint}.*{found}"):
        patch.apply(tiny_model)


def test_a_card_that_a_person_wrote_is_kept(patch, tmp_path):
    (tmp_path / "README.md").write_text("By hand.")
    patch.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "By hand."


def test_saving_to_a_file_is_refused(patch, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(EditableFileError, match="taken' is a file"):
        patch.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
