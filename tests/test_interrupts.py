"""Signals at every instruction at which Python takes them: a model is as before a call or as after it."""

import _thread
import contextlib
import dis
import functools
import signal
import sys
import threading
import time

import pytest
import torch
from torch import nn

from hf_editable import EditPatch
from hf_editable.modeling import mixin
from hf_editable.patches import application, interrupts, patch
from hf_editable.patches.application import applied, changed, lock, take_back
from hf_editable.patches.changes import Whole
from hf_editable.patches.interrupts import INTERRUPTS
from hf_editable.runs.fingerprints import fingerprint


FILES = {module.__file__ for module in (application, interrupts, patch, mixin, contextlib)}
NAMES = ("first", "second")
# After these Python looks for signals; one that arrives before any other instruction waits for the next of them.
CHECKED = ("CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD", "RESUME", "SEND")


class Arrival:
    """`-arrival` has a signal arrive, without an instruction at which Python would look for one."""

    def __init__(self, number):
        kind = type("Arriving", (), {"__neg__": staticmethod(functools.partial(_thread.interrupt_main, number))})
        self.arriving = kind()


class Stopped(Exception):
    """What a handler of SIGTERM raises."""


def stop(number, frame):
    raise Stopped


def run(work, arrival, at):
    """`work()` with a signal at its `at`-th instruction that takes one; how many it came to, and what it raised."""
    count, arriving = 0, arrival.arriving

    def trace(frame, event, given):
        nonlocal count
        if frame.f_code.co_filename not in FILES and frame.f_code is not work.__code__:
            return None
        frame.f_trace_opcodes = True
        checked = event == "opcode" and dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(CHECKED)
        count += checked
        if checked and count == at:
            sys.settrace(None)  # no other call of this function, in which Python would look for signals
            -arriving  # noqa: B018
        return trace

    before, error = sys.gettrace(), None
    sys.settrace(trace)
    try:
        work()
        sys.settrace(before)
    except (KeyboardInterrupt, Stopped) as raised:
        error = raised  # with its traceback, which holds on to all that it went through
    sys.settrace(before)
    return count, error


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        for number, name in enumerate(NAMES):
            self.register_parameter(name, nn.Parameter(torch.full((3,), float(number))))


class Case:
    """A model, a patch of it, and what is done with them; `outcomes` says what may come of that."""

    def __init__(self):
        self.model = Model()
        self.before = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        self.after = {name: tensor + 1 for name, tensor in self.before.items()}
        self.patch = EditPatch(self.after, fingerprint(self.before))
        self.inside = []

    def apply(self):
        self.patch.apply(self.model)

    def revert(self):
        self.patch.revert(self.model)

    def block(self):
        with changed(self.model, [Whole(self.after)], self.patch):
            self.inside.append(self.is_after())

    def nested(self):
        with changed(self.model, [Whole(self.after)], self.patch), changed(self.model, [Whole(self.before)]):
            self.inside.append(self.is_before())

    def is_before(self):
        return self._has(self.before) and not applied(self.model)

    def is_after(self):
        return self._has(self.after) and [each.owner for each in applied(self.model)] == [self.patch]

    def _has(self, values):
        return all(torch.equal(getattr(self.model, name), value) for name, value in values.items())


def is_free(a_lock):
    """Whether another thread can have the lock."""
    found = []

    def take():
        found.append(a_lock.acquire(blocking=False))
        if found[0]:
            a_lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@contextlib.contextmanager
def handled(number, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


INTERRUPT, TERMINATION = (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, stop)


@pytest.mark.parametrize(
    "name, number, handler",
    [("apply", *INTERRUPT), ("revert", *INTERRUPT), ("block", *INTERRUPT), ("nested", *INTERRUPT)]
    + [("apply", *TERMINATION), ("block", *TERMINATION)],
)
def test_a_signal_at_any_instruction_leaves_the_model_as_before_or_as_after(name, number, handler):
    with handled(number, handler):
        seen, count = _stop_everywhere(name, number, handler)
    assert count > 30
    # Blocks take back what they did, wherever they were stopped.
    assert seen == ({(True, False)} if name in ("block", "nested") else {(True, False), (False, True)})


def _stop_everywhere(name, number, handler):
    """The states that the model was found in, before and after, and how many signals stopped it."""
    arriving = Arrival(number)
    at, seen, raised = 0, set(), 0
    while True:
        at += 1
        case = Case()
        if name == "revert":
            case.apply()
        count, error = run(getattr(case, name), arriving, at)
        if count < at:
            break
        raised += error is not None
        state = (case.is_before(), case.is_after())
        assert True in state, f"torn at instruction {at} of {count}: {applied(case.model)}"
        seen.add(state)
        assert is_free(lock(case.model)), f"the lock was kept at instruction {at}"
        assert signal.getsignal(number) is handler and not INTERRUPTS.waiting, f"a handler stayed at {at}"
        take_back(case.model)
        assert case.is_before()
    assert raised >= at - 2  # one that arrives with the last instruction is for the caller
    return seen, raised


def test_signals_that_arrive_while_a_lock_is_waited_for_end_the_wait():
    case, arrived, done = Case(), threading.Event(), threading.Event()

    def keep():
        with lock(case.model):
            arrived.set()
            time.sleep(0.1)  # the main thread waits for the lock by then
            _thread.interrupt_main()
            done.wait(10)

    thread = threading.Thread(target=keep)
    with handled(*INTERRUPT):
        thread.start()
        arrived.wait()
        with pytest.raises(KeyboardInterrupt):
            case.block()
        assert thread.is_alive() and case.is_before()
        done.set()
        thread.join()


def test_a_handler_that_the_block_sets_stays_set():
    case = Case()
    with handled(*INTERRUPT):
        with changed(case.model, [Whole(case.after)]):
            outer = signal.signal(signal.SIGINT, stop)
        assert signal.getsignal(signal.SIGINT) is stop
        signal.signal(signal.SIGINT, outer)  # what was there inside the block goes on to the one before it
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
