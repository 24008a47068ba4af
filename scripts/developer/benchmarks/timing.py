"""Times of several ways to do one thing, taken in turn."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_editable.errors import EditableError


# How processes start that are to hold nothing of this one.
FRESH = multiprocessing.get_context("spawn")


def in_turn(ways: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """
    Seconds that each way takes, in `repeats` rounds after one that does not count; every round starts with another.

    Args:
        ways (`dict[str, Callable]`): what to time, by name.
        repeats (`int`): rounds.
        device (`torch.device`): waited for after each call.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(-1, repeats):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            ways[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median time of each way."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def operations(ways: Mapping[str, Callable[[], Any]]) -> dict[str, int]:
    """Floating-point operations in the matrix products and the attention of each way, by PyTorch's counter."""
    counted = {}
    for name, work in ways.items():
        with FlopCounterMode(display=False) as counter:
            work()
        counted[name] = counter.get_total_flops()
    return counted


def check_same(what: str, ours: float, plain: float, tolerance: float) -> None:
    """
    Raises:
        EditableError: if two values that should be one differ by more than the tolerance, relative to the larger or 1.
    """
    if not abs(ours - plain) <= tolerance * max(1.0, abs(ours), abs(plain)):
        raise EditableError(
            f"{what}: {ours!r} here, {plain!r} by the plain way. They do not do the same, so their times say nothing."
        )
