"""The objective and its gradients, against finite differences and against the plain implementation, in float64."""

import pytest
import torch

import plain
from hf_editable import EditableValueError, EditConfig
from hf_editable.tail.decoder_tail import Tail


LENGTH_PENALTY = 0.7


# Prefixes for two edits, two and one of them, that outrank all alternatives in the tiny model.
PREFIXES = torch.tensor([[[4, 4], [8, -100]], [[16, -100], [-100, -100]]])


@pytest.fixture(
    params=[(2, 0.001, -1, False), (4, 0.02, -1, False), (2, 0.0005, [0, 1], False), (2, 0.001, -1, True)],
    ids=["edits fail", "edits succeed", "two layers move", "with prefixes"],
)
def problem(request, tiny_model, tiny_batch):
    """A float64 model and a batch; with two small steps the edits fail, so that the edit loss counts."""
    max_steps, learning_rate, layers, prefixes = request.param
    if prefixes:
        tiny_batch["edit_prefix_labels"] = PREFIXES
    model = tiny_model.double()
    model.edit_config = EditConfig(
        learning_rate=learning_rate,
        beta=0.6,
        max_steps=max_steps,
        length_penalty=LENGTH_PENALTY,
        layers_to_transform=layers,
        c_edit=0.8,
        c_loc=3.0,
    )
    edit_names = ("edit_input_ids", "edit_attention_mask", "edit_labels", "edit_alternative_labels")
    edit_names += ("edit_prefix_labels",) if prefixes else ()
    edits = [tuple(tiny_batch[name][index : index + 1] for name in edit_names) for index in range(2)]
    if prefixes:
        edits[1] = (*edits[1][:4], PREFIXES[1:, :1])
    return model, tiny_batch, edits


def plain_objective(model, batch, edits, parameters=None, reference=None):
    parameters = dict(model.named_parameters()) if parameters is None else parameters
    names = list(Tail(model, model.edit_config).parameters)
    alpha = parameters["editor.raw_learning_rate"].exp()
    beta = parameters["editor.raw_beta"].sigmoid()
    fused = model.config._attn_implementation
    model.set_attn_implementation("eager")  # fused attention has no second derivative, which the plain way needs
    try:
        return plain.objective(
            model, parameters, names, batch, edits, model.edit_config, alpha, beta, LENGTH_PENALTY, reference
        )
    finally:
        model.set_attn_implementation(fused)


def gradients(model, loss):
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, named.values(), allow_unused=True), strict=True))


def test_equals_the_plain_implementation(problem):
    model, batch, edits = problem
    output = model(**batch)
    assert (output.edit_success == 0) == (model.edit_config.max_steps == 2) and output.edit_steps > 1
    expected = plain_objective(model, batch, edits)
    torch.testing.assert_close(output.loss, expected, rtol=1e-6, atol=1e-8)
    ours, theirs = gradients(model, output.loss), gradients(model, expected)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    "name",
    [
        "model.encoder.layers.0.fc1.weight",
        "model.decoder.layers.0.encoder_attn.v_proj.weight",
        "model.decoder.layers.1.self_attn.q_proj.weight",
        "model.decoder.layers.1.fc2.weight",
        "editor.raw_learning_rate",
        "editor.raw_beta",
    ],
)
def test_gradients_equal_finite_differences(problem, name):
    model, batch, edits = problem
    gradient = gradients(model, model(**batch).loss)[name]
    parameters = dict(model.named_parameters())
    reference = plain.logits_of(
        model, parameters, batch["input_ids"], batch["attention_mask"], batch["labels"]
    ).detach()
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-6

    def shifted(sign):
        moved = {**parameters, name: parameters[name].detach() + sign * step * direction}
        moved = {key: value.detach().requires_grad_() for key, value in moved.items()}
        return plain_objective(model, batch, edits, moved, reference).item()

    finite_difference = (shifted(1) - shifted(-1)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(finite_difference, rel=1e-4, abs=1e-7)
    assert abs(finite_difference) > 1e-6


def test_edits_split_over_micro_batches_give_the_same_objective(tiny_model, tiny_batch):
    whole = tiny_model(**tiny_batch)
    tokens = (tiny_batch["labels"] != -100).sum()
    halves = []
    for index in range(2):
        rows = slice(2 * index, 2 * index + 2)
        part = {
            name: tensor[index : index + 1] if name.startswith("edit_") else tensor[rows]
            for name, tensor in tiny_batch.items()
        }
        halves.append(tiny_model(**part, num_items_in_batch=tokens, num_edits_in_batch=2))
    for name in ("loss", "base_loss", "edit_loss", "locality_loss", "edit_success", "edit_steps"):
        torch.testing.assert_close(whole[name], halves[0][name] + halves[1][name], rtol=1e-5, atol=1e-6)


def test_more_edits_than_rows(tiny_model, tiny_batch):
    row = {name: tensor if name.startswith("edit_") else tensor[:1] for name, tensor in tiny_batch.items()}
    first = {name: tensor[:1] for name, tensor in row.items()}
    # The only row is the first edit's; the second edit has none to measure its locality on.
    torch.testing.assert_close(tiny_model(**row).locality_loss, tiny_model(**first).locality_loss)


def test_edits_without_sources(tiny_model, tiny_batch):
    del tiny_batch["edit_input_ids"]
    with pytest.raises(EditableValueError, match="Edits need edit_input_ids"):
        tiny_model(**tiny_batch)


def test_loss_is_the_weighted_sum_of_its_terms(tiny_model, tiny_batch):
    tiny_model.edit_config = EditConfig(learning_rate=1e-4, max_steps=1, c_edit=0.25, c_loc=7.0)
    output = tiny_model(**tiny_batch)
    assert output.edit_loss > 0 and output.locality_loss > 0
    expected = output.base_loss + 0.25 * output.edit_loss + 7.0 * output.locality_loss
    torch.testing.assert_close(output.loss, expected)
    base = {name: tensor for name, tensor in tiny_batch.items() if not name.startswith("edit_")}
    torch.testing.assert_close(output.base_loss, tiny_model(**base).loss)


def test_dropout_is_off_in_edits_and_on_in_the_base_loss(tiny_model, tiny_batch):
    tiny_model.edit_config = EditConfig(learning_rate=1e-4, max_steps=1)
    expected = tiny_model(**tiny_batch).edit_loss
    tiny_model.train()
    outputs = [tiny_model(**tiny_batch) for _ in range(2)]
    assert all(output.edit_loss == expected for output in outputs)
    assert outputs[0].base_loss != outputs[1].base_loss
    assert all(module.training for module in tiny_model.modules())


def test_distillation_from_the_model_itself_is_zero(tiny_model, tiny_batch):
    base = {name: tensor for name, tensor in tiny_batch.items() if not name.startswith("edit_")}
    logits = tiny_model(**base).logits.detach()
    assert tiny_model(**base, reference_logits=logits).loss.abs() < 1e-6
    assert tiny_model(**base, reference_logits=logits.flip(0)).loss > 0.1


def test_label_smoothing_is_that_of_torch(tiny_model, tiny_batch):
    base = {name: tensor for name, tensor in tiny_batch.items() if not name.startswith("edit_")}
    output = tiny_model(**base, label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), base["labels"].flatten(), ignore_index=-100, label_smoothing=0.1
    )
    torch.testing.assert_close(output.loss, expected)


def test_every_coefficient_has_a_gradient_when_no_edit_needs_a_step(tiny_model, tiny_batch):
    tiny_batch["edit_alternative_labels"] = tiny_batch["edit_alternative_labels"].clone()
    with torch.no_grad():
        for index in range(2):
            for row in range(3):
                # Nothing is less likely than the same unlikely token again and again.
                tiny_batch["edit_alternative_labels"][index, row] = 3
    tiny_model.edit_config = EditConfig(length_penalty=0.0)
    tiny_batch["edit_labels"] = tiny_batch["edit_labels"][:, :1]
    output = tiny_model(**tiny_batch)
    assert output.edit_steps == 0
    output.loss.backward()
    assert all(parameter.grad == 0 for parameter in tiny_model.editor.parameters())


def test_no_gradient_is_needed_to_measure(tiny_model, tiny_batch):
    with torch.no_grad():
        measured = tiny_model(**tiny_batch)
    torch.testing.assert_close(measured.loss, tiny_model(**tiny_batch).loss.detach(), rtol=1e-5, atol=1e-6)


def test_labels_are_needed(tiny_model, tiny_batch):
    del tiny_batch["labels"]
    with pytest.raises(EditableValueError, match="needs labels of the base batch"):
        tiny_model(**tiny_batch)


def test_a_dropped_layer_is_refused(tiny_model, tiny_batch):
    tiny_model.model.decoder.layerdrop = 1.0
    with pytest.raises(EditableValueError, match="decoder_layerdrop=0"):
        tiny_model.train()(**tiny_batch)
