"""Options of the stock trainer that Editable Training must go with, or refuse."""

import copy

import pytest
import torch
from test_trainer import training_logs
from transformers import AutoModelForSeq2SeqLM, EarlyStoppingCallback

from conftest import TRAINING, without_dropout
from hf_editable import EditableSeq2SeqTrainingArguments, TranslationTrainer, TranslationTrainingArguments
from hf_editable.errors import EditableValueError
from hf_editable.numerics.scoring import token_kl


def train(trainer):
    trainer.train()
    return training_logs(trainer)


def test_bfloat16_is_near_and_keeps_full_precision_weights(make_trainer, tiny_model):
    model = without_dropout(tiny_model)
    settings = {"edits_per_step": 2, "max_steps": 2}
    full, mixed = (make_trainer(model, bf16=bf16, **settings) for bf16 in (False, True))
    logs = [train(full), train(mixed)]
    for one, other in zip(*logs, strict=True):
        assert one["base_loss"] == pytest.approx(other["base_loss"], rel=0.05)
        assert one["base_loss"] != pytest.approx(other["base_loss"], rel=1e-6)
        assert one["loss"] == pytest.approx(other["loss"], rel=0.3)
    assert sum(log["edit_steps"] for log in logs[1]) > 0
    assert {weight.dtype for weight in mixed.model.parameters()} == {torch.float32}
    assert mixed.evaluate(mixed.train_dataset)["eval_loss"] > 0


def test_memory_is_pinned_for_accelerators_only(tmp_path):
    for kind in (TranslationTrainingArguments, EditableSeq2SeqTrainingArguments):
        assert kind(str(tmp_path), report_to="none").dataloader_pin_memory == torch.accelerator.is_available()


def test_gradients_are_clipped(make_trainer):
    # With plain gradient descent at rate 1, a step moves the weights by the norm of their gradient.
    settings = {"optim": "sgd", "learning_rate": 1.0, "coefficients_learning_rate": 1.0, "max_steps": 1}
    for limit in (0.01, 0.0):
        trainer = make_trainer(max_grad_norm=limit, **settings)
        before = [weight.detach().clone() for weight in trainer.model.parameters()]
        (log,) = train(trainer)
        moved = torch.stack(
            [(new.detach() - old).norm() for new, old in zip(trainer.model.parameters(), before, strict=True)]
        ).norm()
        assert float(moved) == pytest.approx(limit or log["grad_norm"], rel=1e-3)


def test_activation_checkpointing_leaves_gradients(tiny_model, tiny_batch):
    model = without_dropout(tiny_model).train()
    calls, gradients = [], []
    model.get_encoder().layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
            model.config.use_cache = False  # as trainers set it then
        model.zero_grad()
        output = model(**tiny_batch)
        output.loss.backward()
        assert output.edit_steps > 0
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
        calls.append(0)
    first = calls.index(0)
    assert len(calls) - 2 - first > first  # the second pass computed activations again
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_activation_checkpointing_changes_nothing(make_trainer, tiny_model):
    model = without_dropout(tiny_model)
    plain, checkpointed = (make_trainer(model, activation_checkpointing=on) for on in (False, True))
    for one, other in zip(train(plain), train(checkpointed), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert checkpointed.model.is_activation_checkpointing


def test_the_compiled_model_trains_alike(make_trainer, tiny_model):
    model = without_dropout(tiny_model)
    settings = {"edits_per_step": 2, "max_steps": 2}
    plain = train(make_trainer(model, **settings))
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = train(make_trainer(model, torch_compile=True, torch_compile_backend="aot_eager", **settings))
    assert sum(log["edit_steps"] for log in compiled) > 0
    assert counters["stats"]["calls_captured"] > 100  # the layers are in compiled graphs
    for one, other in zip(plain, compiled, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_held_out_edits_are_measured_as_single_edits_are(make_trainer, rows, tiny_tokenizer, tiny_edits):
    held_out = tiny_edits.select([1, 3, 4])
    trainer = make_trainer(
        objects={"eval_edit_dataset": held_out, "eval_dataset": rows}, max_steps=1, per_device_eval_batch_size=5
    )
    trainer.train()
    metrics = trainer.evaluate()
    model, collator = trainer.model.eval(), trainer.data_collator
    results = [model.edit(**collator.edit_inputs(edit)) for edit in held_out]
    assert metrics["eval_edit_success"] == pytest.approx(sum(result.success for result in results) / 3)
    assert metrics["eval_edit_steps"] == pytest.approx(sum(result.steps for result in results) / 3)
    assert metrics["eval_edit_loss"] == pytest.approx(sum(max(result.loss, 0.0) for result in results) / 3, abs=1e-5)
    kl, tokens = 0.0, 0
    for index, result in enumerate(results):
        batch = collator([rows[row] for row in range(5 * index, 5 * index + 5)])
        with torch.no_grad():
            before = model(**batch).logits
            with model.edited(result.patch):
                kl += float(token_kl(before, model(**batch).logits, batch["labels"]).sum())
        tokens += int((batch["labels"] != -100).sum())
    assert metrics["eval_locality_loss"] == pytest.approx(kl / tokens, rel=1e-4) and kl > 0
    logged = trainer.state.log_history[-1]
    assert logged["eval_edit_success"] == metrics["eval_edit_success"] and logged["eval_loss"] == metrics["eval_loss"]
    assert "eval_edit_success" not in trainer.predict(rows).metrics


def test_training_stops_early_by_an_edit_metric(make_trainer, rows, tiny_edits):
    # At learning rate 0 no metric becomes better.
    objects = {"eval_edit_dataset": tiny_edits, "eval_dataset": rows, "callbacks": [EarlyStoppingCallback(2)]}
    settings = {"learning_rate": 0.0, "coefficients_learning_rate": 0.0, "max_steps": 9, "save_strategy": "steps"}
    trainer = make_trainer(
        objects=objects,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_edit_success",
        **settings,
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.best_global_step == 1 and trainer.state.best_metric == trainer.evaluate()["eval_edit_success"]


def test_a_teacher_in_training_mode_is_frozen(make_trainer, tiny_model):
    teacher = copy.deepcopy(tiny_model).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer = make_trainer(objects={"teacher_model": teacher}, base_loss="distillation")
    seen = []
    for module in teacher.modules():
        module.register_forward_hook(lambda module, *_: seen.append((module.training, torch.is_grad_enabled())))
    trainer.train()
    assert trainer.model.training and set(seen) == {(False, False)}
    assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


@pytest.mark.parametrize("generates", [False, True])
def test_evaluation_loss_is_the_mean_over_tokens(tmp_path, tiny_model, tiny_tokenizer, rows, generates):
    # Rows of different lengths, in batches of which the last is smaller.
    uneven = rows.select(range(7)).map(lambda row, index: {"labels": row["labels"][-1 - index :]}, with_indices=True)
    args = TranslationTrainingArguments(
        output_dir=str(tmp_path),
        **{**TRAINING, "label_smoothing_factor": 0.3, "per_device_eval_batch_size": 3},
        predict_with_generate=generates,
        generation_max_length=5,
    )
    metrics = {"compute_metrics": lambda prediction: {"rows": len(prediction.predictions)}} if generates else {}
    model = AutoModelForSeq2SeqLM.from_config(tiny_model.config)
    model.load_state_dict(tiny_model.state_dict(), strict=False)
    trainer = TranslationTrainer(model, args, processing_class=tiny_tokenizer, **metrics)
    loss, tokens = 0.0, 0
    for row in uneven:
        inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
        with torch.no_grad():
            logits = model.eval()(**inputs).logits
        loss += float(torch.nn.functional.cross_entropy(logits[0], inputs["labels"][0], reduction="sum"))
        tokens += len(row["labels"])
    evaluated = trainer.evaluate(uneven)
    assert evaluated["eval_loss"] == pytest.approx(loss / tokens, rel=1e-5)
    assert evaluated.get("eval_rows", 7) == 7


@pytest.mark.parametrize("name", ["deepspeed", "fsdp"])
@pytest.mark.parametrize("launched", [True, False])
def test_split_layers_are_refused(tmp_path, monkeypatch, name, launched):
    monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", str(launched))
    settings = {} if launched else {name: "full_shard" if name == "fsdp" else "zero.json"}
    with pytest.raises(EditableValueError, match=f"{name} splits layers.*DistributedDataParallel"):
        EditableSeq2SeqTrainingArguments(output_dir=str(tmp_path), **settings)
