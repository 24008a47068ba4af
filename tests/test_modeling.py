"""Editing a model, saving it, loading it with and without hf_editable."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BertConfig, MarianMTModel, T5Config

import plain
from conftest import marian_config
from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    EditableFileError,
    EditableMixin,
    EditableTypeError,
    EditableValueError,
    EditConfig,
    NonFiniteEditError,
)


@pytest.fixture
def edit(tiny_batch):
    """One edit with three alternatives."""
    return {name.removeprefix("edit_"): tensor[:1] for name, tensor in tiny_batch.items() if name.startswith("edit_")}


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_edit_equals_the_plain_implementation(tiny_model, edit):
    result = tiny_model.edit(**edit, beta=0.7, learning_rate=0.003)
    names = [name for name, _ in tiny_model.named_parameters() if name.startswith("model.decoder.layers.1.")]
    parameters, loss, steps = plain.rmsprop_edit(
        tiny_model, dict(tiny_model.named_parameters()), names, tuple(edit.values()),
        alpha=0.003, beta=0.7, epsilon=1e-6, max_steps=10, length_penalty=1.0, create_graph=False,
    )  # fmt: skip
    assert result.steps == steps > 1 and result.success
    assert result.loss == pytest.approx(loss.item(), abs=1e-4)
    assert result.patch.tensors.keys() == set(names)
    for name in names:
        torch.testing.assert_close(result.patch.tensors[name], parameters[name].detach(), rtol=1e-3, atol=1e-5)


def test_the_target_outranks_every_alternative_in_the_edited_model(tiny_model, edit):
    result = tiny_model.edit(**edit)
    assert result.initial_loss > 0 >= result.loss
    parameters = {name: parameter.detach() for name, parameter in tiny_model.named_parameters()}
    arguments = (tuple(edit.values()), tiny_model.edit_length_penalty())
    assert plain.edit_loss(tiny_model, parameters, *arguments).item() == pytest.approx(result.initial_loss, abs=1e-5)
    parameters.update(result.patch.tensors)
    assert plain.edit_loss(tiny_model, parameters, *arguments).item() == pytest.approx(result.loss, abs=1e-5)


def test_edit_never_changes_the_model(tiny_model, edit):
    tiny_model.train()
    before = state(tiny_model)
    with torch.inference_mode():
        tiny_model.edit(**edit)
    assert_same(tiny_model, before)
    assert all(module.training for module in tiny_model.modules())
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


def test_too_few_steps_do_not_succeed(tiny_model, edit):
    result = tiny_model.edit(**edit, learning_rate=1e-5, max_steps=2)
    assert not result.success and result.steps == 2 and 0 < result.loss < result.initial_loss


def test_num_alternatives_limits_what_the_target_must_outrank(tiny_model, edit):
    losses = [tiny_model.edit(**edit, num_alternatives=count).initial_loss for count in (1, 2, 3)]
    rounding = 1e-6
    assert losses[0] <= losses[1] + rounding and losses[1] <= losses[2] + rounding and losses[0] < losses[2] - rounding


def test_edited_model_inside_the_block_and_the_original_after_it(tiny_model, edit):
    before = state(tiny_model)
    patch = tiny_model.edit(**edit).patch
    with pytest.raises(RuntimeError, match="inside"), tiny_model.edited(patch) as edited:
        for name, tensor in patch.tensors.items():
            assert torch.equal(edited.get_parameter(name), tensor)
        raise RuntimeError("inside")
    assert_same(tiny_model, before)


def test_patches_left_in_the_block_are_taken_back_too(tiny_model, edit):
    before = state(tiny_model)
    with tiny_model.edited(tiny_model.edit(**edit).patch):
        tiny_model.edit(**edit, num_alternatives=1, max_steps=1, length_penalty=0.0).patch.apply(tiny_model)
        tiny_model.model.decoder.layers[1].fc1.weight.data.zero_()
    assert_same(tiny_model, before)


def test_length_penalty_is_the_models_own_unless_configured(tiny_model):
    assert tiny_model.edit_length_penalty() == 1.0
    tiny_model.generation_config.length_penalty = 0.6
    assert tiny_model.edit_length_penalty() == 0.6
    tiny_model.edit_config = EditConfig(length_penalty=0.0)
    assert tiny_model.edit_length_penalty() == 0.0


def test_nan_leaves_the_model_as_it_was(tiny_model, edit):
    tiny_model.model.decoder.layers[1].fc2.bias.data[3] = float("nan")
    before = state(tiny_model)
    with pytest.raises(NonFiniteEditError, match="l_e of the edit is nan after 0 steps"):
        tiny_model.edit(**edit)
    after = state(tiny_model)
    assert all(torch.equal(after[name].nan_to_num(7.0), before[name].nan_to_num(7.0)) for name in before)


def test_a_diverging_edit_leaves_the_model_as_it_was(tiny_model, edit):
    before = state(tiny_model)
    with pytest.raises(NonFiniteEditError, match="after 1 steps"):
        tiny_model.edit(**edit, optimizer="gd", learning_rate=2e9)
    assert_same(tiny_model, before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.full((1, 4), -100)}, EditableValueError, "target of the edit is empty"),
        ({"labels": None}, EditableValueError, "needs labels"),
        (
            {"alternative_labels": torch.full((1, 2, 4), -100)},
            EditableValueError,
            "Every alternative is empty or equal",
        ),
        ({"input_ids": torch.zeros(2, 4, dtype=torch.long)}, EditableValueError, r"shape \(2, 4\): one edit has"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, EditableValueError, r"shape \(1, 0\)"),
        (
            {"input_ids": torch.zeros(1, 33, dtype=torch.long)},
            EditableValueError,
            "source is 33 tokens long.*32 at most",
        ),
        ({"labels": torch.zeros(2, 4, dtype=torch.long)}, EditableValueError, r"labels of shape \(2, 4\)"),
        ({"layers_to_transform": 5}, EditableValueError, "decoder has 2 layers"),
        ({"learning_rate": -1.0}, EditableValueError, "learning_rate=-1.0"),
        ({"steps": 3}, EditableTypeError, "EditConfig has no steps"),
    ],
)
def test_bad_edits(tiny_model, edit, change, error, message):
    with pytest.raises(error, match=message):
        tiny_model.edit(**{**edit, **change})


def test_target_equal_to_the_only_alternative(tiny_model, edit):
    edit["alternative_labels"] = torch.nn.functional.pad(edit["labels"][None], (0, 3), value=-100)
    with pytest.raises(EditableValueError, match="Every alternative is empty or equal to the target"):
        tiny_model.edit(**edit)


def test_save_and_load(tiny_model, edit, tmp_path):
    tiny_model.editor.raw_learning_rate.data += 0.123
    tiny_model.save_pretrained(tmp_path)
    loaded = AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(loaded) is type(tiny_model) and loaded.edit_config == tiny_model.edit_config
    assert_same(loaded, state(tiny_model))
    assert loaded.edit(**edit).loss == tiny_model.edit(**edit).loss
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == ["MarianMTModel"]
    assert saved["editable"]["learning_rate"] == tiny_model.edit_config.learning_rate != 0.01
    other = AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path, EditConfig(max_steps=3))
    assert other.edit_config == EditConfig(max_steps=3)


VANILLA = """
import sys, warnings, torch
from transformers import AutoModelForSeq2SeqLM
warnings.simplefilter("error")
model, info = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], output_loading_info=True)
assert type(model).__name__ == "MarianMTModel" and not any(info.values()), info
batch = torch.load(sys.argv[2])
logits = model.eval()(**batch["inputs"]).logits
assert torch.equal(logits, batch["logits"])
model.save_pretrained(sys.argv[3])
assert not any(name.startswith("hf_editable") for name in sys.modules)
"""


def test_vanilla_transformers_loads_the_checkpoint(tiny_model, tiny_batch, tmp_path):
    tiny_model.save_pretrained(tmp_path / "editable")
    inputs = {name: tiny_batch[name] for name in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        torch.save({"inputs": inputs, "logits": tiny_model(**inputs).logits}, tmp_path / "batch.pt")
    folders = [str(tmp_path / name) for name in ("editable", "batch.pt", "again")]
    done = subprocess.run([sys.executable, "-c", VANILLA, *folders], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower() and "UNEXPECTED" not in done.stderr and "MISSING" not in done.stderr
    again = AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    assert again.edit_config == tiny_model.edit_config


def test_an_instance_becomes_editable_in_place(tiny_tokenizer, edit):
    model = AutoModelForSeq2SeqLM.from_config(marian_config(len(tiny_tokenizer)))
    weight = model.lm_head.weight
    editable = AutoEditableModelForSeq2SeqLM.from_model(model, EditConfig(learning_rate=0.02))
    assert editable is model and isinstance(model, MarianMTModel) and model.lm_head.weight is weight
    assert type(model).__name__ == "EditableMarianMTModel"
    assert AutoEditableModelForSeq2SeqLM.from_model(model).edit_config.learning_rate == 0.02
    assert model.edit(**edit).steps > 0


def test_a_users_own_subclass(tiny_model, edit, tmp_path):
    class OwnModel(EditableMixin, MarianMTModel):
        pass

    tiny_model.save_pretrained(tmp_path)
    model = OwnModel.from_pretrained(tmp_path)
    assert type(model) is OwnModel and model.edit(**edit).loss == tiny_model.edit(**edit).loss
    assert OwnModel(tiny_model.config).edit_config.learning_rate == 0.01
    model.save_pretrained(tmp_path / "own")
    assert json.loads((tmp_path / "own" / "config.json").read_text())["architectures"] == ["MarianMTModel"]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(tiny_model, edit, twin):
    other = twin(tiny_model)
    assert type(other) is type(tiny_model) and other is not tiny_model
    assert other.edit(**edit).loss == tiny_model.edit(**edit).loss
    with torch.no_grad():
        other.lm_head.weight.zero_()
    assert tiny_model.lm_head.weight.any()


def test_forward_without_our_arguments_is_the_base_class(tiny_model, tiny_batch):
    inputs = {name: tiny_batch[name] for name in ("input_ids", "attention_mask", "labels")}
    ours = tiny_model(**inputs)
    vanilla = MarianMTModel(tiny_model.config).eval()
    vanilla.load_state_dict(tiny_model.state_dict(), strict=False)
    theirs = vanilla(**inputs)
    assert type(ours) is type(theirs) and torch.equal(ours.logits, theirs.logits) and ours.loss == theirs.loss


def test_stock_generate_works(tiny_model, tiny_batch, edit):
    inputs = {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}
    before = tiny_model.generate(**inputs, num_beams=3)
    patch = tiny_model.edit(**edit, learning_rate=0.1).patch
    with tiny_model.edited(patch):
        assert not torch.equal(tiny_model.generate(**inputs, num_beams=3), before)
    assert torch.equal(tiny_model.generate(**inputs, num_beams=3), before)


def test_half_precision_models_can_be_edited(tiny_model, edit):
    model = tiny_model.to(torch.bfloat16)
    result = model.edit(**edit)
    assert result.success and {tensor.dtype for tensor in result.patch.tensors.values()} == {torch.bfloat16}


def test_editor_state_of_a_checkpoint(tiny_model, tmp_path):
    parameter = tiny_model.editor.raw_beta
    parameter.data += 0.5
    tiny_model.save_pretrained(tmp_path)
    saved = parameter.clone()
    parameter.data += 0.5
    tiny_model.load_editor_state(tmp_path)
    assert tiny_model.editor.raw_beta is parameter and torch.equal(parameter, saved)
    with pytest.raises(EditableFileError, match="no config.json"):
        tiny_model.load_editor_state(tmp_path / "nowhere")


def test_saving_to_a_file_is_refused(tiny_model, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(EditableFileError, match="taken' is a file"):
        tiny_model.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_checkpoints_that_are_not_encoder_decoder(tmp_path):
    config = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
    config.save_pretrained(tmp_path)
    with pytest.raises(EditableTypeError, match="'bert' model, which is not an encoder-decoder"):
        AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    with pytest.raises(EditableTypeError, match="BertConfig' is a 'bert' model"):
        AutoEditableModelForSeq2SeqLM.from_config(config)


def test_another_architecture_through_the_whole_path(tmp_path, edit):
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=1, pad_token_id=1
    )
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path)
    result = model.edit(**edit, learning_rate=0.05)
    assert result.success and all(name.startswith("decoder.block.1.") for name in result.patch.tensors)
    with model.edited(result.patch):
        assert model.edit(**edit).steps == 0
