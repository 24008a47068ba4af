"""What tests/test_processes.py starts on two processes: each writes what it saw to seen-<rank>.json."""

import atexit
import hashlib
import json
import random
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from hf_editable import AutoEditableModelForSeq2SeqLM, EditableSeq2SeqTrainer, mine_edits
from hf_editable.cli.commands import evaluate_edits, prepare_data, train_baseline, train_editable
from hf_editable.cli.commands import mine_edits as mine_command
from hf_editable.cli.shared.loading import load_tokenizer
from hf_editable.runs.processes import is_main_process, on_main, process_state, share_out
from hf_editable.training.preconditions import check_whole


def count_calls(model, fail_after=None):
    """Counts the calls of `generate`; the one after `fail_after` fails."""
    generate, calls = model.generate, []

    def counted(**options):
        if len(calls) == fail_after:
            raise MemoryError("full")
        calls.append(options)
        return generate(**options)

    model.generate = counted
    return calls


def fingerprint(value):
    """A hash of all bits of nested dictionaries, lists and tensors."""
    digest = hashlib.sha256()

    def add(part):
        if isinstance(part, dict):
            part = [item for name in sorted(part, key=str) for item in (name, part[name])]
        if isinstance(part, list | tuple):
            digest.update(f"{len(part)} of:".encode())
            for item in part:
                add(item)
        elif isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}:".encode())
            digest.update(part.detach().contiguous().numpy().tobytes())
        else:
            digest.update(f"{part!r};".encode())

    add(value)
    return digest.hexdigest()


def watch_steps(noted):
    """Adds to the last list of `noted`, for every step of Editable Training, what there is before it."""
    plain = EditableSeq2SeqTrainer.training_step

    def watched(self, model, inputs, *args, **kwargs):
        numpy_state = np.random.get_state()
        parts = {
            "batch": dict(inputs),
            "editor": dict(self.model.editor.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "random": [torch.get_rng_state(), [*numpy_state[:1], numpy_state[1].tolist(), *numpy_state[2:]]],
            "scheduler": self.lr_scheduler.state_dict(),
            "weights": dict(self.model.state_dict()),
        }
        parts["random"].append(random.getstate())
        noted[-1].append({"step": self.state.global_step, **{name: fingerprint(part) for name, part in parts.items()}})
        return plain(self, model, inputs, *args, **kwargs)

    EditableSeq2SeqTrainer.training_step = watched


def outcome(function):
    try:
        return function()
    except Exception as error:
        return [type(error).__name__, str(error)]


def main(folder):
    settings = json.loads((folder / "settings.json").read_text())
    sources = datasets.load_from_disk(folder / "sources")
    tokenizer = load_tokenizer(str(folder / "model"))

    def model():
        return AutoEditableModelForSeq2SeqLM.from_pretrained(folder / "model")

    codes = [prepare_data.main(settings["prepare"]), mine_command.main(settings["mine"])]
    codes.append(evaluate_edits.main(settings["evaluate"]))
    rank = process_state().process_index
    steps = []
    watch_steps(steps)
    for script, argv in settings["trainings"]:
        steps.append([])
        codes.append({"train_editable": train_editable, "train_baseline": train_baseline}[script].main(argv))
    seen = {"codes": codes, "steps": steps, "main": is_main_process(), "on_main": on_main(lambda: f"of {rank}")}
    seen["shared"] = list(share_out(lambda job: (job, rank), range(5)))
    seen["in_memory"] = mine_edits(model(), tokenizer, sources, **settings["options"]).to_list()
    resuming = model()
    calls = count_calls(resuming)
    seen["resumed"] = mine_edits(
        resuming, tokenizer, sources, output_dir=folder / "half", **settings["options"]
    ).to_list()
    seen["calls"] = len(calls)
    split = model()
    weight = split.get_decoder().layers[-1].fc1
    weight.weight = torch.nn.Parameter(distribute_tensor(weight.weight, init_device_mesh("cpu", (2,)), [Shard(0)]))
    seen["split"] = outcome(lambda: check_whole(split, 0))
    failing = model()
    count_calls(failing, fail_after=4 if rank == 1 else None)
    seen["failure"] = outcome(
        lambda: mine_edits(failing, tokenizer, sources, output_dir=folder / "failed", **settings["options"])
    )
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))


def note_connection(folder):
    """The last thing that a process does."""
    (folder / f"connected-{process_state().process_index}").write_text(str(torch.distributed.is_initialized()))


if __name__ == "__main__":
    atexit.register(note_connection, Path(sys.argv[1]))
    main(Path(sys.argv[1]))
