"""Check that processes and accumulation leave training as it is: the same global batch, the same losses.

python scripts/developer/check_invariance.py --output_dir scripts/results/invariance
"""

import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_editable.cli.shared.measuring import command_line
from hf_editable.cli.shared.running import parse_arguments, run_main, tell
from hf_editable.errors import EditableError, EditableValueError
from hf_editable.runs.files import whole_folder, write_json


# A step's batches of sentences, dealt out to processes and accumulated.
GLOBAL_BATCH = 8
GLOBAL_EDITS = 4


@dataclass
class Objective:
    """
    What is trained, and in which settings.

    Args:
        command (`str`): the command of `hf-editable` that trains.
        options (`tuple[str, ...]`): its options.
        settings (`tuple[tuple[int, int], ...]`): processes and accumulated batches; the first is the reference.
    """

    command: str
    options: tuple[str, ...]
    settings: tuple[tuple[int, int], ...]


_EDITS = ("--c_edit", "1", "--c_loc", "1", "--edit_learning_rate", "3e-3", "--edit_max_steps", "5")
_EDITS += ("--label_smoothing_factor", "0.1")
OBJECTIVES = {
    # Its batches have a number of tokens, so a step is as many batches in every setting.
    "baseline": Objective("train", ("--max_tokens_per_batch", "40"), ((1, 4), (2, 2))),
    "edits": Objective("make-editable", _EDITS, ((1, 1), (2, 1), (1, 2), (1, 4), (2, 2))),
    "distillation": Objective("make-editable", (*_EDITS, "--base_loss", "distillation"), ((1, 1), (2, 1), (1, 2))),
}
_SIZES = ("--d_model", "32", "--ffn_dim", "64", "--num_layers", "2", "--num_heads", "2", "--dropout", "0")
_TRAINING = ("--use_cpu", "--dataloader_pin_memory", "false", "--report_to", "none")
_TRAINING += ("--disable_tqdm", "true", "--save_strategy", "no", "--logging_steps", "1", "--learning_rate", "2e-3")


@dataclass
class InvarianceArguments:
    """How far to train, and what to write."""

    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for invariance.json and invariance.md. Default: they are only shown."}
    )
    objectives: list[str] = field(
        default_factory=lambda: list(OBJECTIVES),
        metadata={"help": f"What to train: some of {', '.join(OBJECTIVES)}. Default: all."},
    )
    num_steps: int = field(default=8, metadata={"help": "Optimizer steps of every run."})
    tolerance: float = field(default=1e-4, metadata={"help": "The largest relative difference that is allowed."})
    seed: int = field(default=0, metadata={"help": "Seed of the data, the model and the order of the batches."})

    def __post_init__(self):
        if unknown := [name for name in self.objectives if name not in OBJECTIVES]:
            raise EditableValueError(f"--objectives {' '.join(unknown)}: choose some of {', '.join(OBJECTIVES)}.")
        if self.num_steps < 1:
            raise EditableValueError(f"--num_steps {self.num_steps}: it must be 1 or more.")


def _make_inputs(folder: Path, arguments: InvarianceArguments) -> None:
    """Data of the built-in grammar; where it is edited, a tiny model that has learnt a little, and mined edits."""
    from hf_editable.cli.commands import mine_edits, prepare_data, train_baseline
    from hf_editable.cli.shared.loading import load_model

    def run(main: Callable[[list[str]], int], output: str, *argv: str) -> None:
        if main([*argv, "--output_dir", str(folder / output), "--seed", str(arguments.seed)]) != 0:
            raise EditableError(f"The {output} could not be made; the message above says why.")

    data = ("--data_dir", str(folder / "data"))
    sizes = ("--num_train", "240", "--num_validation", "13", "--num_test", "8", "--vocab_size", "300")
    run(prepare_data.main, "data", *sizes)
    if not any(OBJECTIVES[name].command == "make-editable" for name in arguments.objectives):
        return
    run(train_baseline.main, "model", *data, *_SIZES, *_TRAINING, "--max_steps", "60", "--warmup_steps", "10")
    mining = ("--num_edits", "24", "--num_alternatives", "4", "--max_new_tokens", "16")
    run(mine_edits.main, "edits", *data, *mining, "--model_name_or_path", str(folder / "model"))
    # Every step of an edit multiplies what rounding leaves: in double precision it stays far below the tolerance.
    load_model(str(folder / "model")).double().save_pretrained(folder / "model")


def _train(
    folder: Path, objective: str, processes: int, accumulated: int, arguments: InvarianceArguments
) -> list[dict[str, float]]:
    """The logs of one run of a command: one dictionary a step, and that of the evaluation at the end."""
    kind, output = OBJECTIVES[objective], folder / f"{objective}-{processes}-{accumulated}"
    command = ["-m", "hf_editable", kind.command, "--data_dir", str(folder / "data")]
    command += ["--output_dir", str(output), "--seed", str(arguments.seed), *_TRAINING, *kind.options]
    command += ["--max_steps", str(arguments.num_steps), "--gradient_accumulation_steps", str(accumulated)]
    command += ["--per_device_eval_batch_size", "4"]
    if kind.command == "train":
        command += [*_SIZES, "--warmup_steps", "2"]
    else:
        share = processes * accumulated
        command += ["--model_name_or_path", str(folder / "model"), "--edits_dir", str(folder / "edits")]
        command += ["--eval_edits_dir", str(folder / "edits")]
        command += ["--per_device_train_batch_size", str(GLOBAL_BATCH // share), "--dropout", "0"]
        command += ["--edits_per_step", str(GLOBAL_EDITS // share)]
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--main_process_port", "0"]
    command = [sys.executable, *(launcher if processes > 1 else []), *command]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise EditableError(f"{shlex.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [log for log in history if "loss" in log] + [json.loads((output / "eval_results.json").read_text())]


def largest_difference(reference: list[dict[str, float]], other: list[dict[str, float]]) -> dict[str, Any]:
    """
    Where two runs differ most over all logged terms and steps: the difference of a term at a step, relative to the
    term's largest value in the reference. (Relative to its value at the step, an edit loss that is almost 0 would
    differ much by rounding.)

    Args:
        reference (`list[dict[str, float]]`): the logs of one run.
        other (`list[dict[str, float]]`): those of the other.

    Returns:
        `dict` with the `difference`, its `term`, its `step` (from 1), and the `terms` that were compared.

    Raises:
        EditableValueError: if the logs do not hold the same terms.
    """
    ignored = ("runtime", "per_second", "preparation_time", "epoch", "samples")
    named = [
        [{name: value for name, value in log.items() if not any(part in name for part in ignored)} for log in logs]
        for logs in (reference, other)
    ]
    if [log.keys() for log in named[0]] != [log.keys() for log in named[1]]:
        raise EditableValueError("The runs logged other terms or steps, so they cannot be compared.")
    terms = sorted({name for log in named[0] for name in log})
    largest = {name: max(abs(log[name]) for log in named[0] if name in log) for name in terms}
    worst: dict[str, Any] = {"difference": 0.0, "term": "", "step": 0}
    for step, (one, two) in enumerate(zip(*named, strict=True), 1):
        for name, value in one.items():
            difference = abs(value - two[name]) / (largest[name] or 1.0)
            # A value that is not a number differs most of all.
            difference = math.inf if math.isnan(difference) else difference
            if difference > worst["difference"]:
                worst = {"difference": difference, "term": name, "step": step}
    return {**worst, "terms": terms}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| Objective | Setting | Largest relative difference | of | at step |", "|:---|:---|---:|:---|---:|"]
    for row in rows:
        setting = f"{row['processes']} process{'es' * (row['processes'] > 1)} × {row['accumulated']} accumulated"
        worst = f"{row['difference']:.1e} | {row['term']} | {row['step']}" if "difference" in row else "reference | |"
        lines.append(f"| {row['objective']} | {setting} | {worst} |")
    return "\n".join(lines)


def _compare(arguments: InvarianceArguments) -> list[dict[str, Any]]:
    """One row for each run: what it was, and how far it is from the first of its objective."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _make_inputs(folder, arguments)
        for name in arguments.objectives:
            for processes, accumulated in OBJECTIVES[name].settings:
                rows.append({"objective": name, "processes": processes, "accumulated": accumulated})
        # Most of a run is its start, which uses one core.
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(_train, folder, **row, arguments=arguments) for row in rows]
        references: dict[str, list[dict[str, float]]] = {}
        for row, run in zip(rows, runs, strict=True):
            row["logs"] = run.result()
            if row["objective"] in references:
                row |= largest_difference(references[row["objective"]], row["logs"])
            references.setdefault(row["objective"], row["logs"])
    return rows


def _check(argv: list[str] | None) -> None:
    (arguments,) = parse_arguments([InvarianceArguments], argv, __doc__)
    rows = _compare(arguments)
    table = _table(rows)
    tell(table, runs=rows)
    if arguments.output_dir is not None:
        names = ("hf_editable", "torch", "transformers", "accelerate")
        command = command_line(argv)
        info = {name: getattr(arguments, name) for name in ("num_steps", "seed", "tolerance")}
        info |= {"command": command, "versions": {name: version(name) for name in names}}
        text = "".join(f"- {name}: {value}\n" for name, value in info.items())
        info["runs"] = rows
        with whole_folder(arguments.output_dir) as folder:
            write_json(folder / "invariance.json", info)
            (folder / "invariance.md").write_text(f"# Invariance of training\n\n{table}\n\n{text}", encoding="utf-8")
    if different := [row for row in rows if row.get("difference", 0.0) > arguments.tolerance]:
        raise EditableError(f"{len(different)} of {len(rows)} runs differ by more than {arguments.tolerance:g}.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/check_invariance.py`; returns the exit code."""
    return run_main(_check, argv)


if __name__ == "__main__":
    raise SystemExit(main())
