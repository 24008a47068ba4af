"""The tail against the full forward pass, for several architectures, bit for bit."""

import pytest
import torch
from torch.func import functional_call
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    M2M100Config,
    MBartConfig,
    PegasusConfig,
    T5Config,
)

from conftest import marian_config
from hf_editable import EditableTypeError, EditableValueError, EditConfig
from hf_editable.tail import Tail, decoder_inputs, find_decoder_layers


BART_LIKE = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
}


def build(family):
    torch.manual_seed(0)
    if family == "encoder-decoder":
        config = EncoderDecoderConfig.from_encoder_decoder_configs(
            BertConfig(**BERT), BertConfig(**BERT, is_decoder=True, add_cross_attention=True)
        )
        config.decoder_start_token_id, config.pad_token_id = 2, 1
        return EncoderDecoderModel(config)
    configs = {
        "marian": marian_config(40, decoder_layers=3),
        "bart": BartConfig(**BART_LIKE),
        "mbart": MBartConfig(**BART_LIKE),
        "m2m_100": M2M100Config(**BART_LIKE),
        "pegasus": PegasusConfig(**BART_LIKE),
        "t5": T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=2,
            pad_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        ),
    }  # fmt: skip
    return AutoModelForSeq2SeqLM.from_config(configs[family])


FAMILIES = ["marian", "bart", "mbart", "m2m_100", "pegasus", "t5", "encoder-decoder"]


def batch(rows=3):
    generator = torch.Generator().manual_seed(0)
    input_ids, labels = torch.randint(3, 40, (2, rows, 7), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[0, 4:], input_ids[0, 4:], labels[1, 5:] = 0, 1, -100
    return input_ids, mask, labels


def full_logits(model, input_ids, mask, labels, parameters=None):
    arguments = {"input_ids": input_ids, "attention_mask": mask, "decoder_input_ids": decoder_inputs(model, labels)}
    return functional_call(model, parameters or {}, kwargs={**arguments, "use_cache": False}).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [-1, [-2, -1], [0], [0, 2]], ids=str)
@torch.no_grad()
def test_logits_equal_the_full_forward_bit_for_bit(family, layers):
    model = build(family).eval()
    tail = Tail(model, EditConfig(layers_to_transform=layers))
    states = tail.record(*batch())
    assert torch.equal(tail.logits(states), full_logits(model, *batch()))
    moved = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in tail.parameters.items()}
    edited = tail.logits(states, moved)
    assert torch.equal(edited, full_logits(model, *batch(), parameters=moved))
    assert not torch.equal(edited, tail.logits(states))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_of_the_states(family):
    model = build(family).eval()
    tail = Tail(model, EditConfig())
    states = tail.record(*batch())
    logits = tail.logits(states)
    for rows in ([0, 2], slice(1, 3)):
        torch.testing.assert_close(tail.logits(states.rows(rows)), logits[rows])


@torch.no_grad()
def test_rows_are_not_confused_with_positions():
    model = build("t5").eval()
    input_ids, mask, _ = batch(5)
    labels = torch.randint(3, 40, (5, 5))  # as many rows as positions
    tail = Tail(model, EditConfig())
    states = tail.record(input_ids, mask, labels)
    torch.testing.assert_close(tail.logits(states.rows([1, 3])), tail.logits(states)[[1, 3]])


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


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_decoder_cannot_see_the_token_it_predicts(family):
    model = build(family).eval()
    input_ids, mask, labels = batch()
    labels = labels.clamp(min=3)
    tail = Tail(model, EditConfig())
    logits = tail.logits(tail.record(input_ids, mask, labels))
    # mBART starts its decoder with the last label, the language code.
    for position in range(labels.shape[1] - (family == "mbart")):
        changed = labels.clone()
        changed[:, position] = (labels[:, position] - 2) % 37 + 3
        other = tail.logits(tail.record(input_ids, mask, changed))
        torch.testing.assert_close(other[:, : position + 1], logits[:, : position + 1])
        if position + 1 < labels.shape[1]:
            assert not torch.allclose(other[:, position + 1], logits[:, position + 1])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_changes_no_prediction(family):
    model = build(family).eval()
    input_ids, mask, labels = batch()
    tail = Tail(model, EditConfig())
    logits = tail.logits(tail.record(input_ids, mask, labels))
    alone = tail.logits(tail.record(input_ids[:1, :4], mask[:1, :4], labels[:1]))
    torch.testing.assert_close(alone, logits[:1], rtol=1e-4, atol=1e-5)
    wider = torch.nn.functional.pad(labels, (0, 4), value=-100)
    padded = tail.logits(tail.record(input_ids, mask, wider))
    torch.testing.assert_close(padded[:, :7], logits, rtol=1e-4, atol=1e-5)


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
    from transformers import BertModel

    with pytest.raises(EditableTypeError, match="BertModel is not an encoder-decoder"):
        find_decoder_layers(BertModel(BertConfig(**BERT)))
