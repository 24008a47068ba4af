import copy
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, M2M100Config, Seq2SeqTrainingArguments

from conftest import TRAINING, without_dropout
from hf_editable import AutoEditableModelForSeq2SeqLM, EditableSeq2SeqTrainer, EditableSeq2SeqTrainingArguments
from hf_editable.errors import EditableTypeError, EditableValueError
from hf_editable.training.arguments import TranslationTrainingArguments
from hf_editable.training.batches import TokenBatchSampler
from hf_editable.training.editable_trainer import LOGGED_TERMS
from hf_editable.training.translation_trainer import TranslationTrainer


# Metrics of a log that measure time, not training.
TIMES = ("runtime", "per_second", "total_flos")


def training_logs(trainer):
    """The logs of training steps, without times."""
    return [
        {name: value for name, value in log.items() if not any(time in name for time in TIMES)}
        for log in trainer.state.log_history
        if "loss" in log
    ]


def saved_edit_config(trainer, checkpoint=""):
    return json.loads(Path(trainer.args.output_dir, checkpoint, "config.json").read_text())["editable"]


@pytest.mark.parametrize("batch_size", [2, 1])
@pytest.mark.parametrize("base_loss", ["cross_entropy", "distillation"])
def test_accumulated_batches_train_as_one_batch(make_trainer, tiny_model, batch_size, base_loss):
    model = without_dropout(tiny_model)
    whole = make_trainer(model, edits_per_step=4, base_loss=base_loss, label_smoothing_factor=0.1)
    parts = make_trainer(
        model,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 // batch_size,
        edits_per_step=batch_size,
        base_loss=base_loss,
        label_smoothing_factor=0.1,
    )
    whole.train()
    parts.train()
    for one, other in zip(training_logs(whole), training_logs(parts), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{}, {"base_loss": "distillation", "gradient_accumulation_steps": 2}, {"max_tokens_per_batch": 60}],
    ids=["plain", "distillation", "token batches"],
)
def test_resumed_run_equals_uninterrupted_run(make_trainer, tiny_model, tmp_path, settings):
    # From a checkpoint, as users start: constructed models freeze what loaded ones might not. In double precision, in
    # which training leaves the last digit of rounding, whatever the processor, where it was.
    tiny_model.double().save_pretrained(tmp_path / "start")
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path / "start")
    # 9 steps go beyond one epoch of 24 rows.
    whole = make_trainer(model, max_steps=9, save_strategy="steps", save_steps=4, **settings)
    whole.train()
    resumed = make_trainer(model, max_steps=9, **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    for log, expected in zip(training_logs(resumed), training_logs(whole), strict=True):
        assert log == pytest.approx(expected, rel=1e-9, abs=1e-12)
    expected = whole.model.state_dict()
    for name, weight in resumed.model.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-9, atol=1e-9)
    assert resumed.model.editor.coefficients() == pytest.approx(whole.model.editor.coefficients(), rel=1e-6)
    assert whole.model.editor.coefficients()["learning_rate"] != make_trainer().model.edit_config.learning_rate


def test_resume_and_best_model_restore_the_coefficients(make_trainer, rows):
    # The best checkpoint by the highest loss is the first one.
    trainer = make_trainer(
        objects={"eval_dataset": rows},
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    first, last = (saved_edit_config(trainer, f"checkpoint-{step}")["learning_rate"] for step in (1, 3))
    assert trainer.model.editor.coefficients()["learning_rate"] == first != last


@pytest.mark.parametrize("accumulated, per_step", [(1, 4), (2, 2), (4, 1)])
def test_edits_depend_on_the_step_alone(make_trainer, tiny_edits, accumulated, per_step):
    trainer = make_trainer(gradient_accumulation_steps=accumulated, edits_per_step=per_step)
    reference = make_trainer(edits_per_step=1)
    stream = [reference.edit_indices(position, 0)[0] for position in range(24)]
    # Asked for from the last step to the first, as a resumed run may.
    steps = [[trainer.edit_indices(step, part) for part in range(accumulated)] for step in reversed(range(6))]
    assert [index for step in reversed(steps) for part in step for index in part] == stream
    passes = [stream[start : start + len(tiny_edits)] for start in range(0, 24, len(tiny_edits))]
    assert all(sorted(one_pass) == list(range(len(tiny_edits))) for one_pass in passes)
    assert len({tuple(one_pass) for one_pass in passes}) > 1


def test_edits_are_in_another_order_than_rows_of_the_same_number(make_trainer, rows, tiny_edits):
    trainer = make_trainer(objects={"edit_dataset": Dataset.from_list([*tiny_edits] * 4)})
    order = [index for batch in trainer.get_train_dataloader().batch_sampler for index in batch]
    assert order != [trainer.edit_indices(step, 0)[0] for step in range(len(rows))]


def test_logs_name_every_term(make_trainer):
    trainer = make_trainer(logging_steps=2, edits_per_step=3)
    trainer.train()
    for log in training_logs(trainer):
        assert {*LOGGED_TERMS, "editor_learning_rate"} <= set(log)
        config = trainer.model.edit_config
        expected = log["base_loss"] + config.c_edit * log["edit_loss"] + config.c_loc * log["locality_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-5)
        assert 0 <= log["edit_success"] <= 1
        assert 0 <= log["edit_steps"] <= config.max_steps


def test_without_edits_it_trains_on_the_base_loss(make_trainer):
    trainer = make_trainer(objects={"edit_dataset": None})
    trainer.train()
    for log in training_logs(trainer):
        assert log["base_loss"] == pytest.approx(log["loss"])
        assert "edit_loss" not in log


@pytest.mark.parametrize("rate, learned, moves", [(1e-2, True, True), (0.0, True, False), (1e-2, False, False)])
def test_coefficients_move_with_their_learning_rate(make_trainer, tiny_model, rate, learned, moves):
    tiny_model.edit_config = tiny_model.edit_config.replace(learn_coefficients=learned)
    trainer = make_trainer(coefficients_learning_rate=rate, weight_decay=0.1)
    before = trainer.model.editor.coefficients()
    trainer.train()
    assert (trainer.model.editor.coefficients() != before) == moves


def test_coefficients_have_no_weight_decay(make_trainer):
    optimizer = make_trainer(weight_decay=0.1, coefficients_learning_rate=0.5).create_optimizer()
    groups = [group for group in optimizer.param_groups if group["lr"] == 0.5]
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.0)]


def test_models_that_shift_labels_and_drop_layers_themselves(make_trainer, tiny_tokenizer):
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(tiny_tokenizer), d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_start_token_id=2,
        decoder_layerdrop=0.9, max_position_embeddings=32,
    )  # fmt: skip
    trainer = make_trainer(AutoEditableModelForSeq2SeqLM.from_config(config))
    assert trainer.model.get_decoder().layerdrop == 0.0
    trainer.train()
    assert sum(log.get("edit_steps", 0) for log in training_logs(trainer)) > 0
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] > 0


def test_weights_of_the_objective_are_saved_with_the_model(make_trainer):
    trainer = make_trainer(c_edit=0.5, c_loc=0.25, base_loss="distillation")
    trainer.save_model()
    saved = saved_edit_config(trainer)
    assert (saved["c_edit"], saved["c_loc"], saved["base_loss"]) == (0.5, 0.25, "distillation")


def test_distillation_starts_at_the_teacher_and_leaves_it(make_trainer, tiny_model):
    model = without_dropout(tiny_model)
    trainer = make_trainer(model, base_loss="distillation")
    trainer.train()
    logs = training_logs(trainer)
    assert logs[0]["base_loss"] == pytest.approx(0, abs=1e-6)
    assert logs[-1]["base_loss"] > 1e-4
    assert not trainer.teacher_model.training
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(trainer.teacher_model.state_dict()[name], weight, rtol=0, atol=0)


def test_label_smoothing_is_torchs_and_for_training_only(make_trainer, tiny_model, tiny_tokenizer, rows):
    model, batch = without_dropout(tiny_model), rows.select(range(4))
    trainer = make_trainer(
        model,
        {"train_dataset": batch, "eval_dataset": batch, "edit_dataset": None},
        label_smoothing_factor=0.1,
        max_steps=1,
    )
    inputs = DataCollatorForSeq2Seq(tiny_tokenizer)(list(batch))
    with torch.no_grad():
        logits = model(**inputs).logits.flatten(0, 1)
    plain, smoothed = (
        cross_entropy(logits, inputs["labels"].flatten(), label_smoothing=epsilon).item() for epsilon in (0, 0.1)
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-5)
    trainer.train()
    assert training_logs(trainer)[0]["loss"] == pytest.approx(smoothed, rel=1e-5)
    assert plain != pytest.approx(smoothed, rel=1e-4)


def test_baseline_trainer_is_exact_under_accumulation(tmp_path, tiny_model, tiny_tokenizer, rows):
    vanilla = AutoModelForSeq2SeqLM.from_config(without_dropout(tiny_model).config, attn_implementation="eager")
    vanilla.config.dropout = 0.0
    logs = []
    for batch_size in (4, 1):
        args = TranslationTrainingArguments(
            output_dir=str(tmp_path),
            **{
                **TRAINING,
                "per_device_train_batch_size": batch_size,
                "gradient_accumulation_steps": 4 // batch_size,
                "label_smoothing_factor": 0.1,
            },
        )
        model = without_dropout(copy.deepcopy(vanilla))
        trainer = TranslationTrainer(model, args, train_dataset=rows, processing_class=tiny_tokenizer)
        trainer.train()
        logs.append(training_logs(trainer))
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_predict_with_generate(make_trainer, tiny_tokenizer, rows):
    trainer = make_trainer(objects={"eval_dataset": rows}, predict_with_generate=True, generation_max_length=9)
    output = trainer.predict(rows, num_beams=2)
    first = tiny_tokenizer.pad({"input_ids": rows[:1]["input_ids"]}, return_tensors="pt")
    expected = trainer.model.generate(**first, num_beams=2, max_length=9)
    assert len(output.predictions) == len(rows)
    assert output.predictions[0][: expected.shape[1]].tolist() == expected[0].tolist()


def test_saved_checkpoint_is_a_plain_one(make_trainer, rows):
    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
    assert not [name for name in load_file(f"{trainer.args.output_dir}/model.safetensors") if "editor" in name]
    plain = AutoModelForSeq2SeqLM.from_pretrained(trainer.args.output_dir)
    inputs = {"input_ids": torch.tensor(rows[:1]["input_ids"]), "labels": torch.tensor(rows[:1]["labels"])}
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, trainer.model.eval()(**inputs).logits, rtol=0, atol=0)
    assert not hasattr(plain, "edit")


def test_training_goes_on_from_a_loaded_checkpoint_and_loses_nothing(
    make_trainer, tiny_model, tiny_tokenizer, rows, tmp_path
):
    tiny_model.save_pretrained(tmp_path / "start")
    editable = make_trainer(model=AutoEditableModelForSeq2SeqLM.from_pretrained(tmp_path / "start"))
    args = TranslationTrainingArguments(output_dir=str(tmp_path / "plain"), **TRAINING)
    vanilla = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "start")
    for trainer in (
        editable,
        TranslationTrainer(vanilla, args, train_dataset=rows, processing_class=tiny_tokenizer),
    ):
        trainer.train()
        trainer.save_model()
        weights = trainer.model.state_dict()
        saved = AutoModelForSeq2SeqLM.from_pretrained(trainer.args.output_dir).state_dict()
        assert {name for name in weights if not name.startswith("editor.")} == set(saved)
        assert all(torch.equal(weights[name], tensor) for name, tensor in saved.items())


def test_token_batches_hold_each_row_once_within_the_limit():
    lengths = [3, 9, 4, 4, 2, 30, 5, 9]
    epoch = 0
    sampler = TokenBatchSampler(lengths, max_tokens=12, seed=1, epoch=lambda: epoch)
    first = list(sampler)
    assert sorted(row for batch in first for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 12 for batch in first)
    assert len(first) == len(sampler) < len(lengths)
    assert list(sampler) == first
    epoch = 1
    assert list(sampler) != first
    assert sorted(sampler) == sorted(first)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"c_edit": -1.0}, r"c_edit=-1\.0.*0 or more"),
        ({"c_loc": float("nan")}, "c_loc=nan.*finite"),
        ({"coefficients_learning_rate": -1e-2}, r"coefficients_learning_rate=-0\.01.*0 or more"),
        ({"base_loss": "mse"}, "base_loss='mse'.*cross_entropy, distillation"),
        ({"edits_per_step": 0}, "edits_per_step=0.*1 or more"),
        ({"max_tokens_per_batch": 0}, "max_tokens_per_batch=0.*1 or more"),
        ({"activation_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant.*differentiated twice"),
    ],
)
def test_arguments_out_of_range(tmp_path, settings, message):
    with pytest.raises(EditableValueError, match=message):
        EditableSeq2SeqTrainingArguments(output_dir=str(tmp_path), **settings)


@pytest.mark.parametrize(
    "objects, error, message",
    [
        (
            {"edit_dataset": Dataset.from_dict({"source": ["a"]})},
            EditableValueError,
            r"lacks \['alternatives', 'target'\]",
        ),
        (
            {"edit_dataset": Dataset.from_dict({"source": [], "target": [], "alternatives": []})},
            EditableValueError,
            "edit_dataset is empty",
        ),
        (
            {"teacher_model": torch.nn.Linear(1, 1)},
            EditableValueError,
            "teacher_model is for base_loss='distillation' only",
        ),
        ({"data_collator": list}, EditableTypeError, "cannot collate edits"),
    ],
)
def test_objects_that_do_not_fit(make_trainer, objects, error, message):
    with pytest.raises(error, match=message):
        make_trainer(objects=objects)


def test_model_and_arguments_of_another_kind(tmp_path, tiny_model, make_trainer):
    with pytest.raises(EditableTypeError, match="Linear cannot be trained for edits"):
        make_trainer(torch.nn.Linear(1, 1))
    with pytest.raises(EditableTypeError, match="args is a Seq2SeqTrainingArguments"):
        EditableSeq2SeqTrainer(tiny_model, Seq2SeqTrainingArguments(output_dir=str(tmp_path)))
