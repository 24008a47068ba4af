"""Cards: what they say is measured, and what a person wrote stays."""

import json

import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from transformers.utils import logging

from hf_editable import EditableSeq2SeqTrainer, EditableSeq2SeqTrainingArguments, EditConfig, EditPatch, evaluate_edits
from hf_editable.cli.commands import evaluate_edits as evaluate_command
from hf_editable.hub.cards import by_a_person, write_card
from hf_editable.hub.model_card import add_results, model_card, update_card
from hf_editable.hub.patch_card import patch_card
from hf_editable.training.hub_trainer import _changed_arguments


@pytest.fixture
def report(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs):
    test_set = Dataset.from_list(tiny_pairs[:4])
    return evaluate_edits(tiny_model, tiny_tokenizer, tiny_edits, test_set, num_edits=2, num_beams=2, name="tiny")


def read(folder):
    return (folder / "README.md").read_bytes()


def results(content):
    return {result.metric_type: result.metric_value for result in ModelCard(content.decode()).data.eval_results or []}


def test_a_saved_model_has_a_card_that_loads_it(tiny_model, tmp_path):
    tiny_model.edit_config = EditConfig(learning_rate=0.02, max_steps=7)
    tiny_model.save_pretrained(tmp_path / "model")
    text = read(tmp_path / "model").decode()
    card = ModelCard(text)
    assert card.data.pipeline_tag == "translation" and card.data.library_name == "transformers"
    assert card.data.eval_results is None and card.data.base_model is None
    assert 'AutoEditableModelForSeq2SeqLM.from_pretrained("model")' in text and "# model\n" in text
    assert "| learning_rate | 0.02 |\n| max_steps | 7 |\n\n## Versions" in text and "epsilon" not in text
    assert text.endswith("year      = {2020}\n}\n```\n") and "- transformers 5" in text


def test_numbers_come_from_the_report(tiny_model, report, tmp_path):
    tiny_model.save_pretrained(tmp_path, report=report)
    summary = report.summary
    keys = {"bleu": "bleu", "bleu_drawdown": "drawdown", "edit_success_rate": "success_rate"}
    keys |= {"edit_decode_success_rate": "decode_success_rate", "edit_steps": "mean_steps"}
    assert results(read(tmp_path)) == {kind: pytest.approx(summary[key]) for kind, key in keys.items()}
    assert report.markdown().strip() in read(tmp_path).decode() and summary["mean_steps"] > 0


@pytest.mark.parametrize("change", [lambda text: "By hand.", lambda text: text + "\n", lambda text: text[:400] + "!"])
def test_what_a_person_wrote_or_changed_is_kept(tiny_model, report, tmp_path, change):
    tiny_model.save_pretrained(tmp_path)
    assert not by_a_person(read(tmp_path))
    text = change(read(tmp_path).decode())
    (tmp_path / "README.md").write_text(text)
    tiny_model.save_pretrained(tmp_path, report=report)
    assert not update_card(tiny_model, tmp_path, report.card())
    assert read(tmp_path).decode() == text


def test_a_card_of_ours_is_renewed(tiny_model, report, tmp_path):
    tiny_model.save_pretrained(tmp_path, report=report)
    # As Windows, or git there, may leave it.
    (tmp_path / "README.md").write_bytes(read(tmp_path).replace(b"\n", b"\r\n"))
    tiny_model.edit_config = EditConfig(max_steps=7)
    tiny_model.save_pretrained(tmp_path)
    assert b"| max_steps | 7 |" in read(tmp_path) and results(read(tmp_path)) == {}
    assert not by_a_person(read(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"---\nbroken: [\n---\n", b""])
def test_cards_that_cannot_be_read_are_kept(tiny_model, tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    tiny_model.save_pretrained(tmp_path)
    assert read(tmp_path) == content


def test_only_the_main_process_writes_a_card(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()


def test_a_report_replaces_an_earlier_one_and_nothing_else(tiny_model, report, tmp_path):
    card = model_card(tiny_model, "user/name", results=report.card(), language=["de", "en"], title="Mine")
    before = str(card)
    report.summary["bleu"] = 12.5
    add_results(card, report.card(), dataset_name="Tiny pairs")
    assert {result.dataset_name for result in card.data.eval_results} == {"Tiny pairs"}
    assert str(card).count("## Edits, measured") == before.count("## Edits, measured") == 1
    assert "name: Mine\n" in before and 'from_pretrained("user/name")' in before and "# Mine\n" in before
    write_card(card, tmp_path)
    assert results(read(tmp_path))["bleu"] == 12.5


@pytest.fixture
def trainer(tiny_model, tiny_tokenizer, tiny_pairs, tiny_edits, tmp_path):
    rows = Dataset.from_list(
        [
            dict(tiny_tokenizer(pair["source"]), labels=tiny_tokenizer(text_target=pair["target"])["input_ids"])
            for pair in tiny_pairs
        ]
    )
    args = EditableSeq2SeqTrainingArguments(
        str(tmp_path / "run"), max_steps=1, c_loc=0.5, use_cpu=True, report_to="none", save_strategy="no",
        hub_token="hf_secretToken", dataloader_pin_memory=False,
    )  # fmt: skip
    return EditableSeq2SeqTrainer(
        tiny_model, args, train_dataset=rows, eval_dataset=rows.select(range(3)), edit_dataset=tiny_edits,
        processing_class=tiny_tokenizer,
    )  # fmt: skip


def test_the_trainers_card_keeps_its_part_when_a_report_comes(trainer, report, tmp_path):
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    trainer.create_model_card(license="mit", tags="own", dataset_tags="user/data", finetuned_from="user/base")
    text = read(tmp_path / "run").decode()
    data = ModelCard(text).data
    assert (data.license, data.datasets, data.base_model) == ("mit", "user/data", "user/base") and "own" in data.tags
    assert "- mined edits: 6 rows (" in text and "- validation: 3 rows" in text and "| c_loc | 0.5 |" in text
    assert results(text.encode()) == {"loss": pytest.approx(loss)} and "hf_secretToken" not in text
    assert update_card(trainer.model, tmp_path / "run", report.card(), "Tiny pairs")
    updated = read(tmp_path / "run").decode()
    assert results(updated.encode())["loss"] == pytest.approx(loss)
    assert results(updated.encode())["edit_steps"] == pytest.approx(report.summary["mean_steps"])
    assert "| c_loc | 0.5 |" in updated and report.markdown().strip() in updated and not by_a_person(updated.encode())


def test_the_trainer_keeps_a_persons_card(trainer, tmp_path):
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "README.md").write_text("By hand.")
    trainer.save_model()
    trainer.create_model_card()
    assert read(tmp_path / "run") == b"By hand."


def test_saved_arguments_hold_no_token(trainer, tmp_path):
    trainer.save_model()
    content = (tmp_path / "run" / "training_args.bin").read_bytes()
    assert b"hf_secretToken" not in content and trainer.args.hub_token == "hf_secretToken"
    assert torch.load(tmp_path / "run" / "training_args.bin", weights_only=False).c_loc == 0.5


def test_only_chosen_arguments_are_listed(tmp_path):
    assert _changed_arguments(EditableSeq2SeqTrainingArguments(str(tmp_path))) == {}
    chosen = EditableSeq2SeqTrainingArguments(
        str(tmp_path), lr_scheduler_type="inverse_sqrt", hub_token="hf_secret", run_name="mine", edits_per_step=2
    )
    assert _changed_arguments(chosen) == {"edits_per_step": 2, "lr_scheduler_type": "inverse_sqrt"}


def test_the_card_of_a_patch(tiny_model):
    patch = EditPatch({"a": torch.ones(2, 3)}, "0" * 64, source="Zeile\n```` # | x", target=None, loss_after=-0.5)
    text = str(patch_card(patch.card(), "user/patch"))
    assert "source:      Zeile ''' # | x\ntranslation: unknown\n" in text and "| edited weights | 6 |" in text
    assert 'EditPatch.from_pretrained("user/patch")' in text and "the model that the patch was made from" in text
    patch.base_model, patch.base_revision = "user/base", "0123"
    text = str(patch_card(patch.card(), "user/patch"))
    assert 'from_pretrained("user/base", revision="0123")' in text and ModelCard(text).data.base_model == "user/base"


def test_the_evaluation_command(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs, tmp_path, monkeypatch):
    for name in ("plain", "by-hand"):
        tiny_model.save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "by-hand" / "README.md").write_text("By hand.")
    DatasetDict(test=Dataset.from_list(tiny_pairs[:3])).save_to_disk(tmp_path / "data")
    tiny_edits.save_to_disk(tmp_path / "edits")
    said = []
    monkeypatch.setattr(logging.get_logger("hf_editable.cli.commands.evaluate_edits"), "warning", said.append)
    models = [str(tmp_path / name) for name in ("plain", "by-hand")]
    command = ["--edits_dir", str(tmp_path / "edits"), "--data_dir", str(tmp_path / "data"), "--num_edits", "1"]
    command += ["--output_dir", str(tmp_path / "results"), "--num_beams", "2", "--update_cards"]
    assert evaluate_command.main(["--model_name_or_path", *models, *command]) == 0
    summary = json.loads((tmp_path / "results" / "plain" / "report.json").read_text())["summary"]
    assert results(read(tmp_path / "plain"))["edit_steps"] == pytest.approx(summary["mean_steps"])
    assert (
        read(tmp_path / "by-hand") == b"By hand." and len(said) == 1 and "by-hand was written by a person" in said[0]
    )


def test_cards_of_models_that_are_no_folders(capsys):
    command = ["--edits_dir", "x", "--data_dir", "x", "--output_dir", "y", "--update_cards"]
    assert evaluate_command.main(["--model_name_or_path", "user/name", *command]) == 2
    assert "--update_cards writes into folders, which ['user/name'] are not" in capsys.readouterr().err
