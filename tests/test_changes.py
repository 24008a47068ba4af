"""What edits do to models: changes that are saved small, come to the same bits everywhere, and fold."""

import copy

import pytest
import torch
from bulk_lists import learn
from safetensors.torch import load_file

from hf_editable import DataCollatorForEditableSeq2Seq, EditableValueError, EditPatch, TranslationEditor
from hf_editable.operations import EditStore
from hf_editable.patches.application import applied, changed, looked_up, put, take_back
from hf_editable.patches.changes import Lookup, LowRank, Whole, changed_values, fold, same_changes, scaled
from hf_editable.runs.fingerprints import fingerprint


FC1 = "model.decoder.layers.1.fc1.weight"
FC2 = "model.decoder.layers.1.fc2.weight"


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def low_rank(name, rows=32, columns=16, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LowRank(name, *(torch.randn(size, rank, generator=generator) / 10 for size in (rows, columns)))


@pytest.fixture(scope="module")
def learned(make_tiny_model, tiny_tokenizer, tiny_pairs):
    return learn(make_tiny_model(), tiny_tokenizer, tiny_pairs)


@pytest.fixture
def model(learned):
    return copy.deepcopy(learned)


@pytest.fixture
def edit(model, tiny_tokenizer, tiny_edits):
    return DataCollatorForEditableSeq2Seq(tiny_tokenizer, model).edit_inputs(tiny_edits[1])


@pytest.mark.parametrize(("optimizer", "rate"), [("gd", 0.3), ("scaled_gd", 1.0), ("momentum", 0.1)])
def test_sums_of_gradients_are_saved_as_low_rank_and_come_to_the_same_bits(model, edit, optimizer, rate, tmp_path):
    result = model.edit(**edit, optimizer=optimizer, learning_rate=rate, momentum=0.5, max_steps=2)
    ranks = {change.name: change.left.shape[1] for change in result.patch.changes if isinstance(change, LowRank)}
    assert ranks and result.steps > 0
    for change in result.patch.changes:
        if isinstance(change, LowRank):
            assert change.left.numel() + change.right.numel() < model.get_parameter(change.name).numel()
    # The very values that the outcome was judged by, from memory and from disk.
    expected = result.patch.values(model)
    result.patch.save_pretrained(tmp_path)
    loaded, before = EditPatch.from_pretrained(tmp_path), state(model)
    assert same_changes(loaded.changes, result.patch.changes) and loaded.size == result.patch.size
    loaded.apply(model)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in expected.items())
    assert result.patch.names == list(expected) and set(expected) >= set(ranks)
    result.patch.revert(model)
    assert same(state(model), before)
    # Beside rounding, it is the plain optimizer: one step of it by hand.
    again = model.edit(**edit, optimizer=optimizer, learning_rate=rate, momentum=0.5, max_steps=1)
    problem = model.joint_problem([edit])
    points = {name: tensor.detach().clone().requires_grad_() for name, tensor in problem.parameters.items()}
    gradients = torch.autograd.grad(problem(points), list(points.values()), materialize_grads=True)
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt() if optimizer == "scaled_gd" else 1.0
    for (name, point), gradient in zip(points.items(), gradients, strict=True):
        moved = again.patch.values(model)[name] - point.detach()
        torch.testing.assert_close(moved, -rate * gradient / norm, rtol=1e-3, atol=1e-6)


def test_optimizers_that_scale_every_weight_stay_whole(model, edit):
    result = model.edit(**edit, optimizer="rmsprop", learning_rate=0.01)
    assert [change.kind for change in result.patch.changes] == ["whole"]


def test_a_product_is_summed_one_rank_after_the_other():
    change, weight = low_rank("w", rank=40), torch.randn(32, 16)
    total = torch.zeros(32, 16)
    for column in range(40):
        total = total + change.left[:, column : column + 1] * change.right[:, column]
    assert torch.equal(change.values({"w": weight})["w"], weight + total)
    torch.testing.assert_close(total, change.left @ change.right.T)


def test_half_precision_weights_take_a_low_rank_change(model, tmp_path):
    model.to(torch.bfloat16)
    change, before = low_rank(FC1), state(model)
    patch = EditPatch((change,), fingerprint({FC1: model.get_parameter(FC1)}))
    patch.save_pretrained(tmp_path)
    with model.edited(EditPatch.from_pretrained(tmp_path)):
        expected = (before[FC1].float() + change.left @ change.right.T).to(torch.bfloat16)
        torch.testing.assert_close(model.get_parameter(FC1).detach(), expected, rtol=0.01, atol=1e-3)
    assert same(state(model), before)


def test_files_name_the_factors_after_the_matrix(model, tmp_path):
    patch = EditPatch((low_rank(FC1), Whole({FC2: torch.zeros(16, 32)})), "0" * 64)
    patch.save_pretrained(tmp_path)
    assert load_file(tmp_path / "edit_model.safetensors").keys() == {f"{FC1}:left", f"{FC1}:right", FC2}
    assert patch.tensors.keys() == {FC2} and patch.names == [FC1, FC2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (low_rank("model.nothing"), "which EditableMarianMTModel does not have"),
        (low_rank(FC1, rows=31), r"as a matrix of shape \(31, 16\); the model's has \(32, 16\)"),
        (LowRank(FC1, torch.full((32, 1), float("inf")), torch.zeros(16, 1)), "NaN or infinite"),
    ],
)
def test_changes_that_do_not_fit_change_nothing(model, change, message):
    before = state(model)
    for call in (lambda: put(model, [change]), lambda: EditPatch((change,), "0" * 64).apply(model)):
        with pytest.raises(EditableValueError, match=message):
            call()
    assert same(state(model), before) and not applied(model)


def test_tied_parameters_change_where_all_their_names_are_given(model):
    tied = [name for name, each in model.named_parameters(remove_duplicate=False) if each is model.model.shared.weight]
    assert len(tied) > 1
    new, before = torch.ones_like(model.model.shared.weight), state(model)
    with pytest.raises(EditableValueError, match="is tied to"):
        put(model, [Whole({tied[0]: new})])
    with changed(model, [Whole(dict.fromkeys(tied, new))]):
        assert torch.equal(model.lm_head.weight, new)
    assert same(state(model), before)


def test_folded_changes_are_those_one_after_the_other(model):
    steps = [low_rank(FC1), Whole({FC2: torch.ones(16, 32)}), low_rank(FC2, 16, 32, seed=1), Lookup({(1,): (2,)})]
    before = {name: model.get_parameter(name).detach() for name in (FC1, FC2)}
    folded = fold(steps, before)
    assert [change.kind for change in folded] == ["whole", "low_rank", "lookup"]
    expected, found = changed_values(steps, before), changed_values(folded, before)
    assert same(expected, found) and set(folded[0].names) == {FC2}
    # Order matters where changes meet.
    assert not torch.equal(changed_values([steps[2], steps[1]], before)[FC2], expected[FC2])
    assert fold([], before) == ()


def test_a_share_of_a_change(model):
    before = {FC1: model.get_parameter(FC1).detach(), FC2: model.get_parameter(FC2).detach()}
    changes = [low_rank(FC1), Whole({FC2: before[FC2] + 1})]
    half = changed_values(scaled(changes, before, 0.5), before)
    torch.testing.assert_close(half[FC2] - before[FC2], torch.full((16, 32), 0.5))
    torch.testing.assert_close(half[FC1] - before[FC1], (changes[0].left @ changes[0].right.T) / 2)
    assert scaled([Lookup({(1,): (2,)})], before, 0.5) is None


def test_records_merge_and_are_taken_back_as_one(model):
    before = state(model)
    put(model, [low_rank(FC1)])
    put(model, [Whole({FC2: torch.zeros(16, 32)})], "owner", merge=True)
    put(model, [low_rank(FC1, seed=2)], "last", merge=True)
    (record,) = applied(model)
    assert record.owner == "last" and len(record.changes) == 3 and torch.equal(record.originals[FC1], before[FC1])
    take_back(model)
    assert same(state(model), before) and not applied(model)


def test_a_table_is_asked_by_all_that_translates_texts(model, tiny_tokenizer, tiny_pairs, tmp_path):
    editor = TranslationEditor(model, tiny_tokenizer, num_beams=2, editor="cache")
    source, target = tiny_pairs[0]["source"], tiny_pairs[5]["target"]
    before, said = state(model), editor.translate([tiny_pairs[1]["source"], source])
    result = editor.edit(source, target)
    assert result.decoded and result.translation == target and not result.patch.names
    assert not result.patch.fits_plain_checkpoint
    store = EditStore.create(tmp_path / "store", model)
    store.add(result)
    other = editor.edit(tiny_pairs[2]["source"], target)
    store.add(other)
    patch = store.load(model)
    assert editor.translate([tiny_pairs[1]["source"], source, tiny_pairs[2]["source"]]) == [said[0], target, target]
    assert len(looked_up(model)) == 2 and same(state(model), before)
    reverted = store.revert(store.edits[0].id, editor)  # the model had all edits, and has those that are left
    assert [edit.editor for edit in reverted.redone] == ["cache"]
    assert editor.translate([source, tiny_pairs[2]["source"]]) == [said[1], target]
    reverted.patch.revert(model)
    patch.revert(model)
    assert editor.translate([source]) == [said[1]] and not looked_up(model)
    loaded = EditStore.open(tmp_path / "store").merge()
    assert len(loaded.changes) == 1 and len(loaded.changes[0].table) == 1
