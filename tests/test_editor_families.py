"""Other editors than by gradients alone, and their measures beside those of the package's own."""

import copy
import sys

import pytest
import torch
from editor_cases import NAMES, PENALIZED, all_pairs, settings_of, state_of

from conftest import without_dropout
from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableImportError,
    EditableValueError,
    NonFiniteEditError,
)
from hf_editable.data.references import References
from hf_editable.editors import make_editor
from hf_editable.editors.finetuning import FineTuningOptions, LoraOptions
from hf_editable.editors.penalties import ElasticWeightConsolidation, PenaltyOptions
from hf_editable.editors.problems.constraint import constraint_value
from hf_editable.patches.application import changed
from hf_editable.tail.decoder_tail import Tail


@pytest.fixture
def references(tiny_tokenizer, tiny_pairs):
    return References(tiny_tokenizer, tiny_pairs)


@pytest.fixture
def edit_with(tiny_model, references, inputs):
    """Makes the edit by an editor."""

    def edit(name, model=tiny_model, **settings):
        own = {key: settings.pop(key) for key in ("max_steps", "learning_rate") if key in settings}
        return model.edit(**inputs, references=references, **own, **settings_of(name, **settings))

    return edit


@pytest.fixture
def inputs(tiny_model, tiny_tokenizer, tiny_edits):
    """The tensors of one edit."""
    return DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model).edit_inputs(tiny_edits[1])


def assert_unchanged(model, state, random_state):
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.model.decoder.layers.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("name", [*NAMES[1:], "lora"])
def test_editors_leave_the_model_as_it_is(name, edit_with, tiny_model, inputs):
    tiny_model.train()
    state, random_state = state_of(tiny_model), torch.random.get_rng_state()
    result = edit_with(name, max_steps=20)
    assert result.patch.editor == name
    assert tiny_model.training and all(module.training for module in tiny_model.modules())
    assert_unchanged(tiny_model, state, random_state)
    # What the patch says is what a model with its tensors has, and the constraint is the package's own.
    edited = copy.deepcopy(tiny_model).eval()
    edited.load_state_dict(result.patch.tensors, strict=False)
    penalty = tiny_model.edit_length_penalty()
    assert result.initial_loss == pytest.approx(tiny_model.edit(**inputs).initial_loss, rel=1e-5)
    assert result.loss == pytest.approx(constraint_value(edited, [inputs], penalty), rel=1e-4, abs=1e-6)
    assert result.success == (result.loss <= 0) and 0 <= result.steps <= 20
    assert result.success == (name != "cache")
    moved = {key for key, tensor in result.patch.tensors.items() if not torch.equal(tensor, state[key])}
    assert bool(moved) == (name != "cache")
    again = edit_with(name, max_steps=20)
    assert again.loss == result.loss and all(
        torch.equal(tensor, again.patch.tensors[key]) for key, tensor in result.patch.tensors.items()
    )
    # The patch applies, where weights are tied too, and is taken back.
    with tiny_model.edited(result.patch):
        assert all(torch.equal(tiny_model.state_dict()[key], each) for key, each in result.patch.tensors.items())
    assert_unchanged(tiny_model, state, random_state)


@pytest.mark.parametrize("name", ["kl", "rehearsal", "ewc", "finetune_all", "finetune_edited", "cache"])
def test_editors_leave_the_model_as_it_is_on_errors(name, edit_with, tiny_model):
    with torch.no_grad():
        tiny_model.model.decoder.layers[-1].fc1.weight[0, 0] = float("nan")
    state, random_state = state_of(tiny_model), torch.random.get_rng_state()
    with pytest.raises(NonFiniteEditError, match="nan"):
        edit_with(name)
    after = tiny_model.state_dict()
    assert all(torch.equal(tensor.nan_to_num(), state[key].nan_to_num()) for key, tensor in after.items())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("name", ["kl", "rehearsal", "ewc", "finetune_all", "finetune_edited"])
def test_editors_end_after_max_steps(name, edit_with):
    slow = {"adamw_learning_rate": 1e-7} if name.startswith("finetune") else {"learning_rate": 1e-7}
    result = edit_with(name, max_steps=3, **slow)
    assert (result.steps, result.success, result.patch.steps) == (3, False, 3)


@pytest.mark.parametrize("name", PENALIZED)
def test_no_penalty_is_the_plain_editor(name, edit_with, tiny_model, inputs):
    plain = tiny_model.edit(**inputs, max_steps=4)
    same = edit_with(name, weight=0.0, num_pairs=3, max_steps=4)
    assert (same.loss, same.steps, same.initial_loss) == (plain.loss, plain.steps, plain.initial_loss)
    assert all(torch.equal(tensor, same.patch.tensors[key]) for key, tensor in plain.patch.tensors.items())


def penalty_of(name, model, problem, **options):
    """The penalty of an editor, as a function of the edited parameters."""
    return make_editor(model.edit_config.replace(editor=name, **options)).penalty(problem)


def test_penalties_are_what_they_say(tiny_model, tiny_tokenizer, tiny_pairs, inputs):
    pairs = tiny_pairs[:5]
    tail = Tail(tiny_model, tiny_model.edit_config)
    torch.manual_seed(1)
    moved = {name: tensor.detach() + 0.05 * torch.randn_like(tensor) for name, tensor in tail.parameters.items()}
    edited = copy.deepcopy(tiny_model)
    edited.load_state_dict(moved, strict=False)
    kl = cross_entropy = tokens = 0
    fisher = {name: torch.zeros_like(tensor) for name, tensor in tail.parameters.items()}
    for source, labels in all_pairs(tiny_tokenizer, pairs):
        before, after = (model(source, labels=labels).logits.log_softmax(-1) for model in (tiny_model, edited))
        kl += (before.exp() * (before - after)).sum().item()
        cross_entropy -= after.gather(-1, labels[..., None]).sum().item()
        tokens += labels.numel()
        tiny_model.zero_grad()
        before.gather(-1, labels[..., None]).sum().backward()
        for name, tensor in tail.parameters.items():
            fisher[name] += tensor.grad.square() / len(pairs)
    distance = sum(
        (fisher[name] * (moved[name] - tensor).square()).sum().item() / 2 for name, tensor in tail.parameters.items()
    )
    expected = {"kl": kl / tokens, "rehearsal": cross_entropy / tokens, "ewc": distance}
    problem = tiny_model.joint_problem([inputs], References(tiny_tokenizer, pairs))
    for name in PENALIZED:
        penalty = penalty_of(name, tiny_model, problem, num_pairs=5)
        assert float(penalty(moved).detach()) == pytest.approx(expected[name], rel=1e-4)
        if name != "rehearsal":
            assert float(penalty(dict(tail.parameters)).detach()) == pytest.approx(0.0, abs=1e-6)


def test_penalties_hold_edits_back(tiny_model, references, edit_with, inputs):
    free = tiny_model.edit(**inputs, learning_rate=3e-3)

    def disturbance(name, result):
        problem = tiny_model.joint_problem([inputs], references)
        return float(penalty_of(name, tiny_model, problem, num_pairs=24)(result.patch.tensors).detach())

    for name, weight in (("kl", 30.0), ("rehearsal", 3.0), ("ewc", 30.0)):
        held = edit_with(name, weight=weight, num_pairs=24, learning_rate=3e-3)
        assert held.steps >= free.steps and disturbance(name, held) < 0.9 * disturbance(name, free)


def test_fisher_information_is_estimated_once(edit_with, monkeypatch):
    estimated, estimate = [], ElasticWeightConsolidation.fisher_information
    monkeypatch.setattr(
        ElasticWeightConsolidation,
        "fisher_information",
        lambda self, problem: estimated.append(1) or estimate(self, problem),
    )
    edit_with("ewc", max_steps=1)
    edit_with("ewc", max_steps=2, weight=3.0)
    assert len(estimated) == 1
    edit_with("ewc", max_steps=1, num_pairs=5)
    assert len(estimated) == 2


def test_fine_tuning_is_adamw_on_the_target(tiny_model, edit_with, inputs):
    model = without_dropout(copy.deepcopy(tiny_model))
    result = edit_with("finetune_all", adamw_learning_rate=3e-3, weight_decay=0.1, max_steps=2)
    tuned = [parameter for name, parameter in model.named_parameters() if not name.startswith("editor.")]
    tuned = [parameter for parameter in tuned if parameter.requires_grad]
    optimizer = torch.optim.AdamW(tuned, lr=3e-3, weight_decay=0.1)
    for _ in range(result.steps):
        optimizer.zero_grad()
        model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"]).loss.backward()
        optimizer.step()
    assert result.steps == 2
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in result.patch.tensors.items():
        torch.testing.assert_close(tensor, named[name].detach(), rtol=1e-4, atol=1e-6)
    outside = {name for name in result.patch.tensors if "decoder.layers.1." not in name}
    assert any("encoder" in name for name in outside) and any("shared" in name for name in outside)
    only = edit_with("finetune_edited", adamw_learning_rate=3e-3, max_steps=1)
    assert set(only.patch.tensors) == set(Tail(tiny_model, tiny_model.edit_config).parameters)


@pytest.mark.parametrize("name", ["finetune_edited", "kl", "cache"])
def test_joint_edits(name, tiny_model, tiny_tokenizer, tiny_edits, references):
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    edits = [collator.edit_inputs(tiny_edits[index]) for index in (0, 1)]
    state = state_of(tiny_model)
    result = tiny_model.edit_jointly(edits, references, max_steps=40, **settings_of(name))
    assert all(torch.equal(tensor, state[key]) for key, tensor in tiny_model.state_dict().items())
    if name == "cache":
        assert [len(change.table) for change in result.patch.changes] == [2]
        return
    with changed(tiny_model, result.patch.changes):
        each = [constraint_value(tiny_model, [edit], tiny_model.edit_length_penalty()) for edit in edits]
    assert result.success and max(each) == pytest.approx(result.loss, abs=1e-5) and max(each) <= 1e-6


def test_half_precision_does_not_swallow_small_steps(make_tiny_model, edit_with):
    model = make_tiny_model().to(torch.bfloat16)
    result = edit_with("finetune_edited", model, adamw_learning_rate=2e-4, max_steps=8)
    parameters = dict(model.named_parameters())
    moved = [(tensor != parameters[name]).float().mean() for name, tensor in result.patch.tensors.items()]
    assert all(tensor.dtype == torch.bfloat16 for tensor in result.patch.tensors.values())
    # One step of 2e-4 is far below what a bfloat16 weight of 0.3 can move; eight are not.
    assert sum(moved) / len(moved) > 0.3


def test_lora_moves_by_low_rank(tiny_model, edit_with):
    result = edit_with("lora", rank=2, adapted_modules=["fc1", "q_proj"], adamw_learning_rate=0.03, max_steps=4)
    parameters = dict(tiny_model.named_parameters())
    assert {name.split(".")[-2] for name in result.patch.tensors} == {"fc1", "q_proj"}
    for name, tensor in result.patch.tensors.items():
        singular = torch.linalg.svdvals(tensor - parameters[name].detach())
        assert singular[2:].max() < 1e-4 * max(1e-3, float(singular[0]))
    assert result.loss < result.initial_loss
    config = tiny_model.edit_config.replace(editor="lora", rank=2, adapted_modules=["fc1", "q_proj"])
    assert make_editor(config).moved(tiny_model).keys() == set(result.patch.names)
    with pytest.raises(EditableValueError, match=r"adapted_modules=\['nothing'\] cannot be adapted"):
        edit_with("lora", adapted_modules=["nothing"])


def test_lora_says_that_peft_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EditableImportError, match=r"'lora' needs PEFT.*pip install hf_editable\[lora\]"):
        LoraOptions()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: PenaltyOptions(weight=-1.0), r"weight=-1.0: it must be 0"),
        (lambda t: PenaltyOptions(num_pairs=0), "num_pairs=0"),
        (lambda t: PenaltyOptions(pairs_seed=-1), "pairs_seed=-1"),
        (lambda t: References(t, []), "no pairs to protect"),
        (
            lambda t: FineTuningOptions(adamw_learning_rate=0.0),
            r"adamw_learning_rate=0.0: it must be a number above 0",
        ),
        (lambda t: FineTuningOptions(weight_decay=-1.0), r"weight_decay=-1.0"),
    ],
)
def test_bad_settings_raise(make, message, tiny_tokenizer):
    with pytest.raises(EditableValueError, match=message):
        make(tiny_tokenizer)
