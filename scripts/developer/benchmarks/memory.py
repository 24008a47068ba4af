"""Peak memory of a training step: each way in a process of its own, so that none finds what another left."""

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from . import plain
from .parts import TOLERANCE, backward, full_edit
from .timing import FRESH, check_same
from .workload import Workload, joined


WAYS = ("package", "checkpointed", "plain")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def measure_memory(
    workload: Workload,
    max_steps: Sequence[int] = (1, 5, 10),
    ways: Sequence[str] = WAYS,
    edits_per_step: int = 1,
    vocab_sizes: Sequence[int] = (10_000, 256_000),
) -> list[dict[str, Any]]:
    """
    Peak memory of a training step with edits that take all their steps, beyond what the process held before it; and
    the peak of a whole process that makes an edit, for several vocabularies.

    On the CPU, this needs the `/proc` of Linux.

    Args:
        workload ([`Workload`]): the model, the batch and the edits.
        max_steps (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): steps of the edits.
        ways (`Sequence[str]`, *optional*, defaults to all):
            `"package"`, `"checkpointed"` (`checkpoint_edits=True`) and `"plain"`.
        edits_per_step (`int`, *optional*, defaults to `1`): edits in a step.
        vocab_sizes (`Sequence[int]`, *optional*, defaults to `(10000, 256000)`): vocabularies of single edits.

    Returns:
        A row for each number of steps, with the bytes of each way (`None` if its process was killed, as it is on Linux
        where memory ends), and one for each vocabulary.

    Raises:
        EditableError: if the ways compute different losses.
    """
    rows = []
    for steps in max_steps:
        shape = dataclasses.replace(workload, max_steps=steps, learning_rate=1e-9)
        row: dict[str, Any] = {"part": "memory", "what": f"training step, edits of {steps} steps", "steps": steps}
        losses = {}
        for way in ways:
            try:
                losses[way], row[f"{way}_bytes"] = in_new_process(_step, shape, way, edits_per_step)
            except BrokenProcessPool:
                row[f"{way}_bytes"] = None
                continue
            check_same("The training loss", losses[ways[0]], losses[way], TOLERANCE)
        rows.append(row)
    for size in vocab_sizes:
        what = f"whole process, edit of {workload.max_steps} steps, vocab_size {size}"
        peak = in_new_process(_edit, dataclasses.replace(workload, vocab_size=size))
        rows.append({"part": "memory", "what": what, "package_bytes": peak})
    return rows


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """
    What a function of a module gives in a new Python process.

    Raises:
        BrokenProcessPool: if the process ends without an answer.
    """
    with ProcessPoolExecutor(1, FRESH) as pool:
        return pool.submit(_with_threads, torch.get_num_threads(), work, arguments).result()


def _with_threads(threads: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(threads)
    return work(*arguments)


def _step(workload: Workload, way: str, count: int) -> tuple[float, int]:
    """The loss of a training step, and the bytes that it takes at most."""
    model = workload.model()
    if way == "checkpointed":
        model.edit_config = model.edit_config.replace(checkpoint_edits=True)
    edits = workload.edits(model, count)
    batch = workload.batch(model)
    inputs = {**batch, **joined(edits)}
    model.train()
    losses = {
        "plain": lambda: plain.objective(model, batch, edits),
        "package": lambda: model(**inputs).loss,
        "checkpointed": lambda: model(**inputs).loss,
    }
    return _peak(lambda: backward(model, losses[way]()), model.device)


def _edit(workload: Workload) -> int:
    """The bytes that a process takes at most which makes an edit and nothing else."""
    model, inputs = full_edit(workload)
    model.edit(**inputs)
    return 1024 * _kilobytes("VmHWM")


def _peak(work: Callable[[], float], device: torch.device) -> tuple[float, int]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return work(), torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what is free but still held would hide as much of what comes
    _CLEAR.write_text("5")  # sets the peak back to what is held now
    before = _kilobytes("VmRSS")
    value = work()
    return value, 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
