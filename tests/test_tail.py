"""What the tail runs, selects and refuses. (Its exactness for every family is in test_families.)"""

import pytest
import torch
from families import build
from torch.func import functional_call
from transformers import BertConfig, BertModel

from hf_editable import AutoEditableModelForSeq2SeqLM, EditableTypeError, EditableValueError, EditConfig
from hf_editable.models.families import decoder_inputs
from hf_editable.models.layers import find_decoder_layers
from hf_editable.tail import tail as tail_module
from hf_editable.tail.decoder_tail import Tail


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


def test_adapters_are_refused_until_they_are_merged():
    peft = pytest.importorskip("peft")
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
    monkeypatch.setattr(tail_module, "_EXACT", {})
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
