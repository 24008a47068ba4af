"""Work shared by the processes that `accelerate launch` starts; a plain process does all of it itself."""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..errors import EditableProcessError


Job = TypeVar("Job")
Result = TypeVar("Result")


def process_state() -> PartialState | None:
    """
    accelerate's state of the processes that work together, or `None` in a process by itself.

    In a plain process no state is made: it would decide the device of an `Accelerator` that the caller makes later.
    """
    if PartialState._shared_state == {}:
        if "LOCAL_RANK" not in os.environ:
            return None
        # Processes on CPUs find each other only if the state is told that there is nothing else.
        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
        PartialState(cpu=on_cpu or not torch.accelerator.is_available())
    state = PartialState()
    if state.num_processes == 1:
        return None
    disconnect_at_exit()
    return state


def disconnect_at_exit() -> None:
    """
    Let processes on CPUs part before the interpreter ends, once it does.

    Else threads of gloo may still hold tensors by then, and abort the process, whose work is done: accelerate reports
    a failure, and stops the others (PyTorch's pull request 179291).
    """
    if _is_connected() and torch.distributed.get_backend() == "gloo":
        atexit.unregister(_disconnect)  # once is enough
        atexit.register(_disconnect)


def _is_connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _disconnect() -> None:
    if _is_connected():
        torch.distributed.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process is the one that writes and shows progress."""
    state = process_state()
    return state is None or state.is_main_process


def on_main(function: Callable[[], Result]) -> Result:
    """
    Call `function` on the main process alone. All processes wait for it, and get what it returns.

    Raises:
        EditableProcessError: on the other processes, if it fails; on the main process, its own error.
    """
    state = process_state()
    if state is None:
        return function()
    return _exchange(function if state.is_main_process else lambda: None)[0]


def share_out(work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    """
    Results of `work` on every job, in the order of the jobs, on every process.

    The jobs are dealt out in turn, and the results exchanged after each round: so put jobs that take about as long
    next to each other. All processes must call this with the same jobs, and take all results.

    Args:
        work (`Callable`): does one job. Its results are pickled.
        jobs (`Sequence`): arguments of `work`.

    Raises:
        EditableProcessError: if a job fails on another process; its own process raises its own error.
    """
    state = process_state()
    if state is None:
        yield from map(work, jobs)
        return
    for start in range(0, len(jobs), state.num_processes):
        own = jobs[start : start + state.num_processes][state.process_index :][:1]
        for results in _exchange(lambda own=own: [work(job) for job in own]):
            yield from results


def _exchange(function: Callable[[], Result]) -> list[Result]:
    """What `function` returns on each process; if it fails on one, all fail, for none would ever get an answer."""
    result, error = None, None
    try:
        result = function()
    except Exception as raised:
        error = raised
    # Errors travel as text: not all of them can be pickled.
    answers = gather_object([(result, None if error is None else f"{type(error).__name__}: {error}")])
    if error is not None:
        raise error
    for index, (_, failure) in enumerate(answers):
        if failure is not None:
            raise EditableProcessError(f"Process {index} of {len(answers)} failed, so this one stops too. {failure}")
    return [result for result, _ in answers]
