import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_editable.cli.commands import train_baseline, train_editable
from hf_editable.cli.shared.training_runs import encode_splits
from hf_editable.errors import EditableValueError


ROOT = Path(__file__).parent.parent
COMMON = [
    *("--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--logging_steps", "1", "--save_strategy", "no"),
    *("--max_steps", "3", "--learning_rate", "1e-3", "--dataloader_pin_memory", "false"),
]
SIZES = ["--d_model", "16", "--ffn_dim", "32", "--num_layers", "2", "--num_heads", "2"]


@pytest.fixture
def folders(tmp_path, tiny_model, tiny_tokenizer, tiny_pairs, tiny_edits):
    """Prepared data, mined edits and a model on disk."""
    rows = Dataset.from_list(tiny_pairs)
    DatasetDict(train=rows, validation=rows.select(range(5))).save_to_disk(tmp_path / "data")
    tiny_tokenizer.save_pretrained(tmp_path / "data" / "tokenizer")
    tiny_edits.save_to_disk(tmp_path / "edits")
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path


def editable_command(folders, output, *more):
    return [
        *("--model_name_or_path", str(folders / "model"), "--data_dir", str(folders / "data")),
        *("--edits_dir", str(folders / "edits"), "--output_dir", str(folders / output), *COMMON, *more),
    ]


def baseline_command(folders, output, *more):
    return ["--data_dir", str(folders / "data"), "--output_dir", str(folders / output), *SIZES, *COMMON, *more]


def logs(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [log for log in history if "loss" in log]


def test_baseline_trains_resumes_and_translates(folders):
    saving = ("--save_strategy", "steps", "--save_steps", "2", "--predict_with_generate")
    assert train_baseline.main(baseline_command(folders, "whole", *saving)) == 0
    checkpoint = str(folders / "whole" / "checkpoint-2")
    resuming = ("--resume_from_checkpoint", checkpoint)
    assert train_baseline.main(baseline_command(folders, "resumed", *resuming)) == 0
    # The steps after the checkpoint may round otherwise; what they start from may not be another.
    for log, expected in zip(logs(folders / "resumed"), logs(folders / "whole"), strict=True):
        assert log == pytest.approx(expected, rel=1e-4)
    assert "eval_bleu" in json.loads((folders / "whole" / "eval_results.json").read_text())
    model = AutoModelForSeq2SeqLM.from_pretrained(folders / "whole")
    tokenizer = AutoTokenizer.from_pretrained(folders / "whole")
    generation = model.generation_config
    assert (generation.num_beams, generation.max_length) == (5, 256)
    assert generation.decoder_start_token_id == generation.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id
    translation = model.generate(**tokenizer("ein mann", return_tensors="pt"), max_length=7)
    assert translation.shape[1] <= 7 and translation[0, 0] == tokenizer.eos_token_id


def test_pairs_that_are_too_long_are_dropped_and_counted(folders, caplog):
    tokenizer = AutoTokenizer.from_pretrained(folders / "data" / "tokenizer")
    # With their end tokens: 3, 4 and 5 tokens on the longer side.
    pairs = [("der hund", "the dog"), ("hund .", "a dog ."), ("der ball malt .", "ball")]
    rows = Dataset.from_list([{"source": source, "target": target} for source, target in pairs])
    encoded = encode_splits(DatasetDict(train=rows), tokenizer, 4)["train"]
    assert "train: dropped 1 of 3 pairs of more than 4 tokens" in caplog.text
    assert [len(ids) for ids in encoded["input_ids"]] == [3, 3]
    assert [len(ids) for ids in encoded["labels"]] == [3, 4]
    assert all(ids[-1] == tokenizer.eos_token_id for ids in encoded["labels"])
    with pytest.raises(EditableValueError, match="None of the 3 pairs of the split 'train' has 2 tokens or fewer"):
        encode_splits(DatasetDict(train=rows), tokenizer, 2)


def test_editable_training_end_to_end(folders, caplog):
    long_edit = {"source": "der hund", "target": "the dog", "alternatives": ["the " * 40]}
    edits = load_from_disk(folders / "edits")
    Dataset.from_list([*edits, long_edit]).save_to_disk(folders / "more_edits")
    options = [
        *("--edit_learning_rate", "0.02", "--edit_optimizer", "adam", "--layers_to_transform", "-2", "-1"),
        *("--checkpoint_edits", "true"),
        *("--c_loc", "2", "--dropout", "0", "--predict_with_generate", "--edits_dir", str(folders / "more_edits")),
    ]
    assert train_editable.main(editable_command(folders, "trained", *options)) == 0
    assert "Dropped 1 of 7 edits" in caplog.text
    config = json.loads((folders / "trained" / "config.json").read_text())
    assert config["dropout"] == 0
    assert config["architectures"] == ["MarianMTModel"]
    saved = config["editable"]
    assert (saved["optimizer"], saved["layers_to_transform"], saved["c_loc"]) == ("adam", [-2, -1], 2)
    assert saved["checkpoint_edits"] is True
    assert 0.018 < saved["learning_rate"] < 0.022 and saved["learning_rate"] != 0.02
    assert any(log["edit_steps"] > 0 for log in logs(folders / "trained"))
    assert "eval_bleu" in json.loads((folders / "trained" / "eval_results.json").read_text())
    AutoModelForSeq2SeqLM.from_pretrained(folders / "trained")
    # What is not given comes from the checkpoint.
    again = editable_command(folders, "again", "--model_name_or_path", str(folders / "trained"), "--from_scratch")
    assert train_editable.main(again) == 0
    saved_again = json.loads((folders / "again" / "config.json").read_text())["editable"]
    assert saved_again["optimizer"] == "adam"
    assert logs(folders / "again")[0]["base_loss"] != logs(folders / "trained")[0]["base_loss"]


def test_training_without_edits(folders):
    with_edits = editable_command(folders, "with")
    at = with_edits.index("--edits_dir")
    without = [*with_edits[:at], *with_edits[at + 2 :], "--output_dir", str(folders / "without")]
    assert train_editable.main([*with_edits, "--c_edit", "0", "--c_loc", "0"]) == 0
    assert train_editable.main(without) == 0
    weighed, alone = logs(folders / "with"), logs(folders / "without")
    assert "edit_success" in weighed[0] and "edit_success" not in alone[0]
    assert [log["loss"] for log in alone] == [log["base_loss"] for log in alone]
    assert [log["loss"] for log in alone] == pytest.approx([log["loss"] for log in weighed], rel=1e-3)


@pytest.mark.parametrize(
    "command, option, message",
    [
        ("baseline", "--data_dir", "Cannot load the dataset"),
        ("baseline", "--output_dir", "is a file"),
        ("editable", "--data_dir", "Cannot load the dataset"),
        ("editable", "--edits_dir", "Cannot load the mined edits"),
        ("editable", "--model_name_or_path", "Cannot load"),
        ("editable", "--output_dir", "is a file"),
    ],
)
def test_missing_inputs_and_bad_outputs_are_told(folders, capsys, command, option, message):
    (folders / "file").touch()
    bad = str(folders / ("file" if option == "--output_dir" else "missing"))
    if command == "baseline":
        code = train_baseline.main(baseline_command(folders, "out", option, bad))
    else:
        code = train_editable.main(editable_command(folders, "out", option, bad))
    assert code == 2
    stderr = capsys.readouterr().err
    assert message in stderr and bad in stderr


@pytest.mark.parametrize(
    "command, options, message",
    [
        ("baseline", ["--dropout", "2"], "--dropout 2.0: it must be 0 or more, and below 1"),
        ("editable", ["--dropout", "-0.1"], "--dropout -0.1: it must be 0 or more, and below 1"),
        ("baseline", ["--num_heads", "3"], "--num_heads 3: it must divide --d_model 16"),
        ("baseline", ["--num_layers", "0"], "--num_layers 0: it must be a whole number, 1 or more"),
        ("baseline", ["--resume_from_checkpoint", "gone"], "--resume_from_checkpoint 'gone' is no checkpoint"),
        ("editable", ["--resume_from_checkpoint", "gone"], "--resume_from_checkpoint 'gone' is no checkpoint"),
        ("editable", ["--fsdp", "full_shard"], "fsdp splits layers"),
    ],
)
def test_values_that_cannot_be_are_told(folders, capsys, command, options, message):
    main, argv = {"baseline": (train_baseline, baseline_command), "editable": (train_editable, editable_command)}[
        command
    ]
    assert main.main(argv(folders, "out", *options)) == 2
    assert message in capsys.readouterr().err


def test_held_out_edits_need_a_validation_split(folders, capsys):
    DatasetDict(train=load_from_disk(folders / "data")["train"]).save_to_disk(folders / "small")
    options = ["--data_dir", str(folders / "small"), "--eval_edits_dir", str(folders / "edits")]
    assert train_editable.main(editable_command(folders, "out", *options)) == 2
    assert "--eval_edits_dir needs a split 'validation'" in capsys.readouterr().err


def test_data_without_a_tokenizer_is_told(folders, capsys):
    (folders / "data" / "tokenizer").rename(folders / "elsewhere")
    assert train_baseline.main(baseline_command(folders, "out")) == 2
    assert "Cannot load the tokenizer of" in capsys.readouterr().err


def test_edit_splits_without_train_are_told(folders, capsys):
    DatasetDict(test=load_from_disk(folders / "edits")).save_to_disk(folders / "edits2")
    assert train_editable.main(editable_command(folders, "out", "--edits_dir", str(folders / "edits2"))) == 2
    assert "needs one named 'train'" in capsys.readouterr().err
