"""What the tail runs, selects and refuses. (Its exactness for every family is in test_families.)"""

import peft
import pytest
import torch
from families import FAMILIES, build
from torch.func import functional_call
from transformers import BertConfig, BertModel

from hf_editable import AutoEditableModelForSeq2SeqLM, EditableTypeError, EditableValueError, EditConfig
from hf_editable.models.families import decoder_inputs
from hf_editable.models.layers import find_decoder_layers
from hf_editable.numerics.scoring import token_log_probs
from hf_editable.tail import exactness
from hf_editable.tail.decoder_tail import Tail
from hf_editable.tail.linear_capture import linear_factors
from hf_editable.tail.prefix_tree import takes_prefix_trees


def batch(rows=3):
    generator = torch.Generator().manual_seed(0)
    input_ids, labels = torch.randint(3, 40, (2, rows, 7), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[0, 4:], input_ids[0, 4:], labels[1, 5:] = 0, 1, -100
    return input_ids, mask, labels


def full_logits(model, input_ids, mask, labels, parameters=None):
    arguments = {"input_ids": input_ids, "attention_mask": mask, "decoder_input_ids": decoder_inputs(model, labels)}
    return functional_call(model, parameters or {}, kwargs={**arguments, "use_cache": False}).logits


@torch.no_grad()
def test_one_source_is_encoded_once_for_all_translations(monkeypatch):
    model = build("marian").eval()
    input_ids, mask, labels = batch()
    tail = Tail(model, EditConfig())
    calls = []
    monkeypatch.setattr(type(model.get_encoder()), "forward", _counted(type(model.get_encoder()).forward, calls))
    states = tail.record(input_ids[:1], mask[:1], labels)
    assert calls == [1]
    repeated = tail.record(input_ids[:1].expand(3, -1), mask[:1].expand(3, -1), labels)
    torch.testing.assert_close(tail.logits(states), tail.logits(repeated))


def _counted(forward, calls):
    def counted(self, input_ids, **kwargs):
        calls.append(input_ids.shape[0])
        return forward(self, input_ids, **kwargs)

    return counted


def test_the_model_is_left_alone():
    model = build("marian").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = dict(model.named_modules())
    tail = Tail(model, EditConfig())
    states = tail.record(*batch())
    tail.logits(states, {name: torch.zeros_like(tensor) for name, tensor in tail.parameters.items()})
    assert dict(model.named_modules()) == modules and all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_wrapped_models_are_run_as_their_classes_say():
    model = build("marian").eval()
    tail = Tail(model, EditConfig())
    expected = tail.logits(tail.record(*batch()))
    for module in (model, model.model.decoder.layers[2]):
        original = module.forward  # as Accelerate wraps models for mixed precision, and torch.compile calls
        module.forward = lambda *args, original=original, **kwargs: original(*args, **kwargs)
        module._compiled_call_impl = module.forward
    tail = Tail(model, EditConfig())
    states = tail.record(*batch())
    assert torch.equal(tail.logits(states), expected)
    moved = {name: tensor * 0 for name, tensor in tail.parameters.items()}
    assert not torch.equal(tail.logits(states, moved), expected)


def test_dropout_is_off_also_while_the_model_trains():
    model = build("marian").train()
    tail = Tail(model, EditConfig())
    logits = tail.logits(tail.record(*batch()))
    assert torch.equal(logits, full_logits(model.eval(), *batch()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_modules": ["fc1", "fc2"]}, {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}),
        ({"target_modules": r".*\.layers\.2\.encoder_attn\.[qk]_proj", "exclude_modules": ["k_proj"]},
         {"encoder_attn.q_proj.weight", "encoder_attn.q_proj.bias"}),
        ({"target_modules": ["final_layer_norm"]}, {"final_layer_norm.weight", "final_layer_norm.bias"}),
    ],
)  # fmt: skip
def test_selection_of_modules(options, expected):
    tail = Tail(build("marian"), EditConfig(**options))
    assert set(tail.parameters) == {f"model.decoder.layers.2.{name}" for name in expected}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers_to_transform": 3}, "layers_to_transform=3: the decoder has 3 layers.*from -3 to 2"),
        ({"layers_to_transform": []}, r"layers_to_transform=\[\]"),
        ({"target_modules": ["fc3"]}, r"\['fc3'\] matches no module.*'fc1', 'fc2'"),
        ({"exclude_modules": ["encoder"]}, r"\['encoder'\] matches no module"),
        ({"target_modules": ["fc1"], "exclude_modules": ["fc1"]}, "leaves no parameter to edit"),
    ],
)
def test_selections_that_match_nothing(options, message):
    with pytest.raises(EditableValueError, match=message):
        Tail(build("marian"), EditConfig(**options))


def test_tied_parameters_are_refused():
    model = build("marian")
    model.model.decoder.layers[2].fc1.weight = model.model.decoder.layers[0].fc1.weight
    with pytest.raises(EditableValueError, match="one tied parameter.*Exclude"):
        Tail(model, EditConfig())
    assert Tail(model, EditConfig(exclude_modules=["fc1"])).parameters


def test_models_without_a_decoder_are_refused():
    with pytest.raises(EditableTypeError, match="BertModel is not an encoder-decoder"):
        find_decoder_layers(BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)))


def test_what_is_not_simply_a_models_weights_is_refused():
    model = build("marian")
    model.hf_quantizer = object()
    with pytest.raises(EditableTypeError, match="MarianMTModel is quantised.*dequantize"):
        AutoEditableModelForSeq2SeqLM.from_model(model)
    model = build("marian")
    model.hf_device_map = {"model": 0, "lm_head": "disk"}
    with pytest.raises(EditableTypeError, match="spread over 0, disk by device_map. Load it on one device"):
        AutoEditableModelForSeq2SeqLM.from_model(model)
    model.hf_device_map = {"": "cpu"}
    assert AutoEditableModelForSeq2SeqLM.from_model(model).edit_config


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks the model for it
def test_adapters_are_refused_until_they_are_merged(monkeypatch):
    # transformers 5.24 takes no adapter from a PEFT below 0.22, which is not out yet.
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda min_version: None)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj"])
    wrapped = peft.get_peft_model(build("marian"), config)
    with pytest.raises(EditableTypeError, match=r"PeftModelForSeq2SeqLM has adapters.*merge_and_unload\(\)"):
        AutoEditableModelForSeq2SeqLM.from_model(wrapped)
    assert AutoEditableModelForSeq2SeqLM.from_model(wrapped.merge_and_unload()).edit_config
    model = build("marian")
    model.add_adapter(config)
    with pytest.raises(EditableTypeError, match="MarianMTModel has adapters"):
        AutoEditableModelForSeq2SeqLM.from_model(model)


def test_a_decoder_whose_layers_are_not_all_of_it_is_refused(tiny_model, tiny_batch, monkeypatch):
    monkeypatch.setattr(exactness, "_EXACT", {})
    decoder = type(tiny_model.get_decoder())
    plain_forward = decoder.forward

    def forward(self, *args, **kwargs):
        outputs = plain_forward(self, *args, **kwargs)
        outputs.last_hidden_state = outputs.last_hidden_state + 0.5 * len(self.layers)
        return outputs

    edit = {name.removeprefix("edit_"): tensor[:1] for name, tensor in tiny_batch.items() if name.startswith("edit_")}
    monkeypatch.setattr(decoder, "forward", forward)
    with pytest.raises(EditableTypeError, match="EditableMarianMTModel is more than a list of layers"):
        tiny_model.edit(**edit)
    monkeypatch.setattr(decoder, "forward", plain_forward)
    assert tiny_model.edit(**edit).steps > 0


# What FSMT and ProphetNet mask with does not go with float64.
SINGLE = ("fsmt", "prophetnet")


def check_linear_factors(tail, states, loss_of):
    """That the gradients of the edited linear layers' weights follow from their factors."""
    with tail.capture_linear() as calls:
        with torch.no_grad():
            tail.logits(states)  # does not count
        loss = loss_of(tail.logits(states))
    modules = {f"{name}.weight" for name, module in tail.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert calls.keys() == modules & tail.parameters.keys() and calls
    weights = [tail.parameters[name] for name in calls]
    expected = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
    factors, moved = linear_factors(loss, calls), 0
    for name, gradient in zip(calls, expected, strict=True):
        if name not in factors:  # an expert to which no token was sent
            assert not gradient.any()
            continue
        inputs, outputs = factors[name]
        assert inputs.shape[1] == gradient.shape[1] and outputs.shape == (len(inputs), len(gradient))
        tolerance = 1e-10 if gradient.dtype == torch.float64 else 1e-4
        torch.testing.assert_close(outputs.T @ inputs, gradient, rtol=tolerance, atol=tolerance)
        moved += bool(gradient.any())
    assert moved > 2


@pytest.mark.parametrize("layers", [-1, [0, 2]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_follow_from_what_linear_layers_are_given(family, layers):
    model = build(family)
    model = model if family in SINGLE else model.double()
    tail, (input_ids, mask, labels) = Tail(model, EditConfig(layers_to_transform=layers)), batch()
    states = tail.record(input_ids, mask, labels)
    plain = tail.logits(states)

    def loss_of(logits):
        assert torch.equal(logits, plain)
        return token_log_probs(logits, labels).sum()

    check_linear_factors(tail, states, loss_of)


@pytest.mark.parametrize("family", [family for family in FAMILIES if takes_prefix_trees(build(family))])
def test_gradients_on_prefixes_follow_too(family):
    tail = Tail(build(family).double(), EditConfig(layers_to_transform=[0, 1]))
    input_ids, mask, _ = batch()
    labels = torch.tensor([[5, 6, 7, 2], [5, 6, 8, 2], [5, 9, 2, -100], [5, 6, 7, 2]])
    states = tail.record_prefixes(input_ids[:1], mask[:1], labels, labels)

    def loss_of(logits):
        assert logits.shape[1] == len(states.tree.ends) < (labels != -100).sum()
        return states.tree.token_log_probs(logits[0], labels).sum()

    check_linear_factors(tail, states, loss_of)


def test_linear_layers_are_captured_inside_the_block_only():
    model = build("marian").eval()
    tail = Tail(model, EditConfig(target_modules=["fc1", "final_layer_norm"]))
    states = tail.record(*batch())
    with tail.capture_linear() as calls:
        model(input_ids=batch()[0], decoder_input_ids=batch()[0])
        assert not calls["model.decoder.layers.2.fc1.weight"].inputs  # the model's own layer is left alone
        with tail.capture_linear() as inner:
            tail.hidden(states)
        tail.logits(states)
    tail.logits(states)
    assert list(calls) == ["model.decoder.layers.2.fc1.weight"]
    assert [len(each.inputs) for each in (*calls.values(), *inner.values())] == [2, 1]
    assert [rows.shape for rows in next(iter(calls.values())).outputs] == [(21, 32)] * 2
    tail = Tail(model, EditConfig(target_modules=["final_layer_norm"]))
    with tail.capture_linear() as calls:
        loss = tail.logits(tail.record(*batch())).sum()
    assert linear_factors(loss, calls) == {}


def test_factors_can_be_differentiated():
    model = build("t5").double()
    tail = Tail(model, EditConfig(target_modules=["wo"]))
    states = tail.record(*batch())
    (weight,) = tail.parameters.values()
    with tail.capture_linear() as calls:
        loss = tail.logits(states, double_backward=True).logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    ((inputs, outputs),) = linear_factors(loss, calls, create_graph=True).values()
    ours, expected = (
        torch.autograd.grad((each**2).sum(), weight, retain_graph=True)[0] for each in (outputs.T @ inputs, gradient)
    )
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)
