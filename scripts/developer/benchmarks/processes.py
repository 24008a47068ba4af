"""Edits in several processes at once, which share the machine's cores."""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from .parts import full_edit
from .timing import FRESH
from .workload import Workload


# What every process of a pool waits at before it starts; set in the process itself.
_start: Any = None


def measure_processes(workload: Workload, processes: Sequence[int] = (1, 2), edits: int = 8) -> list[dict[str, Any]]:
    """
    The time of an edit of as many steps as it may take, where processes that edit at once deal out the CPU's threads.

    Args:
        workload ([`Workload`]): the model and the edit; each process has a model of its own.
        processes (`Sequence[int]`, *optional*, defaults to `(1, 2)`): numbers of processes.
        edits (`int`, *optional*, defaults to `8`): edits that each makes.

    Returns:
        A row for each number: the time that all take, divided by all edits.
    """
    rows: list[dict[str, Any]] = []
    for count in processes:
        threads = max(1, torch.get_num_threads() // count)
        with ProcessPoolExecutor(count, FRESH, _keep, (FRESH.Barrier(count),)) as pool:
            spans = list(pool.map(_edits, *zip(*[(workload, threads, edits)] * count, strict=True)))
        each = (max(end for _, end in spans) - min(start for start, _ in spans)) / (count * edits)
        first = rows[0]["package_seconds"] if rows else each
        what = f"edit of {workload.max_steps} steps, processes {count} with {threads} threads"
        row = {"part": "scaling", "what": what, "package_seconds": each, "plain_seconds": first}
        rows.append(row | {"ratio": each / first, "spans": spans})
    return rows


def _keep(start: Any) -> None:
    global _start
    _start = start


def _edits(workload: Workload, threads: int, count: int) -> tuple[float, float]:
    """When the process started to edit, after an edit that does not count, and when it was done."""
    torch.set_num_threads(threads)
    model, inputs = full_edit(workload)
    model.edit(**inputs)
    _start.wait()
    start = time.time()
    for _ in range(count):
        model.edit(**inputs)
    return start, time.time()
