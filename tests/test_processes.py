"""Two processes do what one does. They are started once, by accelerate, for all that these tests look at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from test_cli_training import baseline_command, editable_command

from hf_editable import AutoEditableModelForSeq2SeqLM, EditReport, mine_edits
from hf_editable.cli.commands import evaluate_edits, train_baseline, train_editable
from hf_editable.cli.commands import mine_edits as mine_command
from hf_editable.cli.commands.prepare_data import INFO_FILE
from hf_editable.mining.mined_edits import JOURNAL_NAME
from hf_editable.runs.journal import CHECKSUM, Journal
from hf_editable.runs.processes import process_state, share_out


OPTIONS = {"num_alternatives": 3, "batch_size": 3, "max_new_tokens": 6}
TESTS = Path(__file__).parent


def launch(*command):
    """Run a script on two processes of this machine's CPUs."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *map(str, command)], env=environment, timeout=240, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-10_000:]
    return done


def failing_after(model, count):
    generate, calls = model.generate, []

    def counted(**options):
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(options)
        return generate(**options)

    model.generate = counted
    return calls


@pytest.fixture(scope="module")
def sources(tiny_pairs):
    return datasets.Dataset.from_list(
        [{"source": " ".join(pair["source"].split()[: 2 + i % 5])} for i, pair in enumerate(tiny_pairs[:14])]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_tiny_model, tiny_tokenizer, tiny_pairs, tiny_edits, sources):
    """What two processes left behind, and what each saw (`seen-<rank>.json`)."""
    folder = tmp_path_factory.mktemp("two")
    make_tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    sources.save_to_disk(folder / "sources")
    tiny_edits.select(range(5)).save_to_disk(folder / "edits")
    rows = datasets.Dataset.from_list(tiny_pairs)
    datasets.DatasetDict(train=rows, validation=rows.select(range(5)), test=rows.select(range(7))).save_to_disk(
        folder / "data"
    )
    # An interrupted run of one process, for two to go on with: 2 of 5 batches are finished, after two calls to try.
    interrupted = make_tiny_model()
    failing_after(interrupted, 6)
    with pytest.raises(KeyboardInterrupt):
        mine_edits(interrupted, tiny_tokenizer, sources, output_dir=folder / "half", **OPTIONS)
    # A model that has learnt something, so that BLEU tells the predictions of one run from another's.
    learning = ["--max_steps", "100", "--learning_rate", "1e-2", "--warmup_steps", "0", "--dropout", "0"]
    tiny_tokenizer.save_pretrained(folder / "data" / "tokenizer")
    assert train_baseline.main(baseline_command(folder, "learnt", *learning)) == 0
    # Rounding depends on the processor and on where tensors are in memory. One bit of one weight moves a later loss by
    # up to 3e-6 of it in single and 3e-15 in double precision, other instructions by 1e-5 and 3e-14, while a weight
    # that is not restored moves it by 2e-4 and more: so double precision, compared to 1e-9.
    learnt = AutoEditableModelForSeq2SeqLM.from_pretrained(folder / "learnt")
    learnt.double().save_pretrained(folder / "learnt")
    two = ["--per_device_train_batch_size", "2", "--edits_per_step", "1"]
    resuming = ["--resume_from_checkpoint", str(folder / "trained_2" / "checkpoint-2")]
    settings = {
        "options": OPTIONS,
        "mine": mine_arguments(folder, "mined"),
        "evaluate": evaluate_arguments(folder, "evaluated"),
        "trainings": [
            ["train_editable", training_arguments(folder, "trained_2", *two)],
            ["train_editable", training_arguments(folder, "resumed_2", *two, *resuming)],
            ["train_baseline", token_arguments(folder, "tokens_2")],
        ],
        "prepare": ["--output_dir", str(folder / "prepared"), "--num_train", "60", "--num_test", "20"]
        + ["--num_validation", "20", "--vocab_size", "300"],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    done = launch(TESTS / "two_processes.py", folder)
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def mine_arguments(folder, output):
    arguments = {"model_name_or_path": "model", "data_dir": "data", "output_dir": output}
    options = {"num_edits": 11, "seed": 3, **OPTIONS}
    paths = [part for name, path in arguments.items() for part in (f"--{name}", str(folder / path))]
    return paths + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def evaluate_arguments(folder, output):
    arguments = {"model_name_or_path": "model", "edits_dir": "edits", "data_dir": "data", "output_dir": output}
    options = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none", "learning_rate": 0.1}
    paths = [part for name, path in arguments.items() for part in (f"--{name}", str(folder / path))]
    return paths + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def training_arguments(folder, output, *more):
    options = ["--model_name_or_path", str(folder / "learnt"), "--eval_edits_dir", str(folder / "edits")]
    options += ["--dropout", "0", "--predict_with_generate", "--per_device_eval_batch_size", "2", "--max_steps", "4"]
    options += ["--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2"]
    options += ["--load_best_model_at_end", "--metric_for_best_model", "eval_edit_loss", "--greater_is_better", "true"]
    return editable_command(folder, output, *options, *more)


def token_arguments(folder, output, *more):
    options = ["--max_tokens_per_batch", "30", "--max_steps", "4", "--dropout", "0", "--warmup_steps", "1"]
    return baseline_command(folder, output, *options, *more)


def seen(folder):
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


def history(folder):
    """The logs of a training, of its steps and of its evaluations, without times."""
    times = ("runtime", "per_second", "preparation_time", "flos")
    logs = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    logs.append(json.loads((folder / "eval_results.json").read_text()))
    kept = [log for log in logs if "train_loss" not in log]
    return [{name: value for name, value in log.items() if not any(t in name for t in times)} for log in kept]


def untimed(rows):
    return [{name: value for name, value in row.items() if name not in ("milliseconds", CHECKSUM)} for row in rows]


def test_jobs_are_dealt_out_and_come_back_in_order(folder):
    for process in seen(folder):
        assert process["shared"] == [[0, 0], [1, 1], [2, 0], [3, 1], [4, 0]]
        assert process["on_main"] == "of 0"
    assert [process["main"] for process in seen(folder)] == [True, False]


def test_processes_part_before_they_end(folder):
    assert [(folder / f"connected-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]


def test_mining_gives_the_rows_of_one_process(folder, capsys):
    assert mine_command.main(mine_arguments(folder, "alone")) == 0
    alone, shared = (datasets.load_from_disk(folder / name) for name in ("alone", "mined"))
    assert len(alone) > 5 and alone.to_list() == shared.to_list()
    infos = [(folder / name / "mining_info.json").read_text() for name in ("alone", "mined")]
    assert infos[0] == infos[1]
    # Told once, by the main process, as is all progress.
    assert (folder / "stdout").read_text().count(capsys.readouterr().out.strip()) == 1
    assert (folder / "stderr").read_text().count("11/11") == 1


def test_mining_in_memory_gives_all_rows_to_both(folder, make_tiny_model, tiny_tokenizer, sources):
    alone = mine_edits(make_tiny_model(), tiny_tokenizer, sources, **OPTIONS).to_list()
    assert [process["in_memory"] for process in seen(folder)] == [alone, alone]
    # What one process began, two have finished: three batches of two calls each were left, and each tried with two.
    assert [process["resumed"] for process in seen(folder)] == [alone, alone]
    assert [process["calls"] for process in seen(folder)] == [6, 4]


def test_a_failure_stops_all_and_one_process_goes_on(folder, make_tiny_model, tiny_tokenizer, sources):
    first, second = (process["failure"] for process in seen(folder))
    assert second == ["MemoryError", "full"]
    assert (
        first[0] == "EditableProcessError" and "Process 1 of 2 failed" in first[1] and "MemoryError: full" in first[1]
    )
    # One round of two batches was finished; one process computes the three others only, after two calls to try.
    model = make_tiny_model()
    calls = failing_after(model, None)
    resumed = mine_edits(model, tiny_tokenizer, sources, output_dir=folder / "failed", **OPTIONS)
    assert resumed.to_list() == seen(folder)[0]["in_memory"] and len(calls) == 8


def test_evaluation_gives_the_numbers_of_one_process(folder, capsys):
    assert evaluate_edits.main(evaluate_arguments(folder, "evaluated_alone")) == 0
    alone, shared = (EditReport.load(folder / name / "model") for name in ("evaluated_alone", "evaluated"))
    assert untimed(alone.rows) == untimed(shared.rows)
    assert sum(row["changed"] for row in alone.rows) > 0
    numbers = ("bleu", "drawdown", "drawdown_interval", "success_rate", "decode_success_rate", "mean_steps", "kl")
    assert [alone.summary[name] for name in numbers] == [shared.summary[name] for name in numbers]
    journals = [(folder / name / "model" / "rows.jsonl").read_text() for name in ("evaluated_alone", "evaluated")]
    rows = [[json.loads(line) for line in journal.splitlines()] for journal in journals]
    assert rows[0][0] == rows[1][0] and untimed(rows[0][1:]) == untimed(rows[1][1:])
    assert (folder / "evaluated" / "table.md").read_text() in (folder / "stdout").read_text()


def test_data_are_prepared_once(folder):
    assert [process["codes"] for process in seen(folder)] == [[0] * 6, [0] * 6]
    assert len(datasets.load_from_disk(folder / "prepared")["train"]) <= 60
    assert (folder / "prepared" / INFO_FILE).is_file()
    assert (folder / "stderr").read_text().count("Wrote ") == 1


def test_training_and_evaluation_go_as_on_one_process(folder):
    options = ["--per_device_train_batch_size", "4", "--edits_per_step", "2"]
    assert train_editable.main(training_arguments(folder, "trained_1", *options)) == 0
    one, two = (history(folder / name) for name in ("trained_1", "trained_2"))
    for single, double in zip(one, two, strict=True):
        assert single == pytest.approx(double, rel=1e-5, abs=1e-6)
    assert sum(log.get("edit_steps", 0) for log in one) > 0
    evaluations = [log for log in one if "eval_loss" in log]
    assert len(evaluations) == 3 and evaluations[0]["eval_bleu"] > 0
    assert {"eval_edit_success", "eval_edit_steps", "eval_edit_loss", "eval_locality_loss"} <= set(evaluations[0])


def test_two_processes_resume_and_load_the_best(folder):
    for process in seen(folder):
        whole, resumed = process["steps"][:2]
        assert [step["step"] for step in whole] == [0, 1, 2, 3]
        assert len({step["weights"] for step in whole}) == len({step["editor"] for step in whole}) == 4
        # What is restored is so to the last bit, on every machine; of what follows, all that is no sum of products.
        assert resumed[0] == whole[2]
        later = ("step", "batch", "random", "scheduler")
        assert [[step[name] for name in later] for step in resumed] == [
            [step[name] for name in later] for step in whole[2:]
        ]
    whole, resumed = (history(folder / name) for name in ("trained_2", "resumed_2"))
    restored = [log for log in whole if log.get("step", 4) <= 2]
    assert len(restored) == 3 and resumed[:3] == restored
    for log, expected in zip(resumed, whole, strict=True):
        assert log == pytest.approx(expected, rel=1e-9, abs=1e-12)
    state = json.loads((folder / "trained_2" / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    saved, kept = (load_file(place / "model.safetensors") for place in (folder / "trained_2", best))
    assert all(torch.equal(weight, kept[name]) for name, weight in saved.items())
    configs = [json.loads((place / "config.json").read_text())["editable"] for place in (folder / "trained_2", best)]
    assert configs[0]["learning_rate"] == configs[1]["learning_rate"]


def test_token_batches_are_dealt_out_to_processes(folder):
    accumulated = ["--gradient_accumulation_steps", "2"]
    assert train_baseline.main(token_arguments(folder, "tokens_1", *accumulated)) == 0
    for single, double in zip(history(folder / "tokens_1"), history(folder / "tokens_2"), strict=True):
        assert single == pytest.approx(double, rel=1e-5)


def test_weights_split_over_processes_are_refused(folder):
    for process in seen(folder):
        name, message = process["split"]
        assert name == "EditableValueError" and "fc1.weight, are split over processes" in message


def test_a_plain_process_makes_no_state(monkeypatch, tmp_path):
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert list(share_out(str, [1, 2])) == ["1", "2"]
    Journal(tmp_path / JOURNAL_NAME, {}).append([{"index": 0}])
    assert process_state() is None and PartialState._shared_state == {}
