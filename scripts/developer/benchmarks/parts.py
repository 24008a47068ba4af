"""The timed parts: one edit, a training step, and how the time of an edit grows."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_editable.modeling.mixin import EditableMixin

from . import plain
from .timing import check_same, in_turn, medians, operations
from .workload import Workload, joined


# Ten steps multiply what rounding leaves, so the losses after them agree to fewer digits than single passes do.
TOLERANCE = 1e-2
SCALES = {
    "decoder_layers": (1, 6, 12, 24),
    "vocab_size": (10_000, 32_000, 64_000, 256_000),
    "num_alternatives": (4, 8, 16, 32, 64),
}


def measure_edit(workload: Workload, edits: int = 5, repeats: int = 5) -> list[dict[str, Any]]:
    """
    One edit, against the plain one, for each of several edits.

    Args:
        workload ([`Workload`]): the model and the edits.
        edits (`int`, *optional*, defaults to `5`): different edits.
        repeats (`int`, *optional*, defaults to `5`): times that each is made each way.

    Raises:
        EditableError: if the two ways take different numbers of steps, or end at different losses.
    """
    model = workload.model()
    rows = []
    for inputs in workload.edits(model, edits):
        ours, expected = model.edit(**inputs), plain.edit(model, inputs)
        check_same("Steps of an edit", ours.steps, expected.steps, 0.0)
        check_same("l_e after an edit", ours.loss, expected.loss.item(), TOLERANCE)
        ways = {"package": lambda: model.edit(**inputs), "plain": lambda: plain.edit(model, inputs)}  # noqa: B023
        seconds, counted = in_turn(ways, repeats, model.device), operations(ways)
        row = {"part": "edit", "what": f"edit of {ours.steps} steps", "steps": ours.steps}
        rows.append(row | _row(seconds, counted))
    return rows


def measure_step(workload: Workload, edits_per_step: Sequence[int] = (1, 8), repeats: int = 5) -> list[dict[str, Any]]:
    """
    A training step (forward and backward pass) with the objective, against the same batch without it.

    Args:
        workload ([`Workload`]): the model, the batch and the edits.
        edits_per_step (`Sequence[int]`, *optional*, defaults to `(1, 8)`): edits in a step.
        repeats (`int`, *optional*, defaults to `5`): times that each is made.
    """
    model = workload.model().train()
    batch = workload.batch(model)
    edits = workload.edits(model, max(edits_per_step))
    ways: dict[str, Callable[[], Any]] = {"plain": lambda: backward(model, plain.base_loss(model, batch))}
    steps: dict[int, float] = {}
    for count in edits_per_step:
        inputs = {**batch, **joined(edits[:count])}
        steps[count] = model(**inputs).edit_steps.item()
        ways[str(count)] = lambda inputs=inputs: backward(model, model(**inputs).loss)
    seconds, counted = in_turn(ways, repeats, model.device), operations(ways)
    return [
        {
            "part": "step",
            "what": f"training step, edits_per_step {count}",
            "steps": steps[count],
            **_row(*({"package": each[str(count)], "plain": each["plain"]} for each in (seconds, counted))),
        }
        for count in edits_per_step
    ]


def measure_scaling(
    workload: Workload, scales: dict[str, Sequence[int]] | None = None, repeats: int = 3
) -> list[dict[str, Any]]:
    """
    The time of an edit of as many steps as it may take, while one number of the workload grows.

    Args:
        workload ([`Workload`]): the model and the edit, but for that number.
        scales (`dict[str, Sequence[int]]`, *optional*): fields of [`Workload`] and their values.
        repeats (`int`, *optional*, defaults to `3`): times that each edit is made.
    """
    rows = []
    for name, values in (SCALES if scales is None else scales).items():
        seconds: dict[str, list[float]] = {}
        for value in values:
            model, inputs = full_edit(dataclasses.replace(workload, **{name: value}))
            seconds[str(value)] = in_turn({"package": lambda: model.edit(**inputs)}, repeats, model.device)["package"]  # noqa: B023
        times = medians(seconds)
        for value, time in times.items():
            first = times[str(values[0])]
            rows.append(
                {
                    "part": "scaling",
                    "what": f"edit of {workload.max_steps} steps, {name} {value}",
                    "package_seconds": time,
                    "plain_seconds": first,
                    "ratio": time / first,
                    "all_seconds": {"package": seconds[value]},
                }
            )
    return rows


def full_edit(workload: Workload) -> tuple[EditableMixin, dict[str, Tensor]]:
    """A model and an edit with a step size so small that it takes all the steps it may."""
    workload = dataclasses.replace(workload, learning_rate=1e-9)
    model = workload.model()
    return model, workload.edits(model, 1)[0]


def backward(model: torch.nn.Module, loss: Tensor) -> float:
    """Run the backward pass, forget the gradients, and give the loss."""
    loss.backward()
    model.zero_grad(set_to_none=True)
    return loss.item()


def _row(seconds: dict[str, list[float]], counted: dict[str, int]) -> dict[str, Any]:
    times = medians(seconds)
    return {
        "package_operations": counted["package"],
        "plain_operations": counted["plain"],
        "package_seconds": times["package"],
        "plain_seconds": times["plain"],
        "ratio": times["plain"] / times["package"],
        "all_seconds": seconds,
    }
