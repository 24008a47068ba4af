"""Handlers of signals, such as that of Ctrl-C, wait while a function runs that must not end half-way."""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import CodeType, FrameType
from typing import Any, TypeVar


Function = TypeVar("Function", bound=Callable[..., Any])

# Those that programs have handlers for which raise.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
]


class Interrupts:
    """
    Python runs the handlers of signals in the main thread, between any two instructions, and most of them raise. Here
    they wait as long as one of the `uninterrupted` functions is running, which the stack says: a variable would need
    an instruction to set it, before which there is another one.
    """

    def __init__(self):
        self._functions: set[CodeType] = set()
        self._installed: list[_Handler] = []
        self._holders = 0
        self.waiting: list[tuple[_Handler, int, FrameType | None]] = []

    def uninterrupted(self, function: Function) -> Function:
        """Let handlers wait while a function runs, between its own calls of `hold` and `release`."""
        self._functions.add(function.__code__)
        return function

    def hold(self) -> None:
        """From now on handlers wait for the uninterrupted functions, until as many calls of `release`."""
        if threading.current_thread() is not threading.main_thread():
            return  # where no handler ever runs
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if callable(before) and not isinstance(before, _Handler):
                handler = _Handler(self, before)
                self._installed.append(handler)
                signal.signal(number, handler)
        self._holders += 1

    def release(self) -> None:
        """Take a `hold` back; with the last one, handlers are as they were, and those that waited run."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._holders -= 1
        if self._holders:
            return
        try:
            for number in _SIGNALS:
                # One that the program has replaced meanwhile stays replaced.
                if (handler := signal.getsignal(number)) in self._installed:
                    signal.signal(number, handler.before)
            self._installed = []
        finally:
            self.deliver()

    def deliver(self) -> None:
        """Run the handlers that wait."""
        if threading.current_thread() is not threading.main_thread():
            return
        waiting, self.waiting = self.waiting, []
        with ExitStack() as stack:  # each of them, also if one raises
            for handler, *given in reversed(waiting):
                stack.callback(handler.before, *given)

    def is_held(self, frame: FrameType | None) -> bool:
        """Whether an uninterrupted function is running."""
        while frame is not None:
            if frame.f_code in self._functions:
                return True
            frame = frame.f_back
        return False


class _Handler:
    """Stands before a signal's handler; one that is left installed does nothing but call that."""

    def __init__(self, interrupts: Interrupts, before: Callable[[int, FrameType | None], Any]):
        self.before = before
        self._interrupts = interrupts

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._interrupts.is_held(frame):
            self._interrupts.waiting.append((self, number, frame))
        else:
            self.before(number, frame)


INTERRUPTS = Interrupts()
