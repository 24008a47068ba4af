"""What a command prints arrives, or is given up quietly: on any encoding, through closed pipes, on full disks."""

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TextIO


FAILED, CLOSED_PIPE = 1, 128 + 13  # as a shell says it of a program that the signal SIGPIPE ended

# Control characters but tab and line feed, and those that turn the direction of writing around.
_HIDDEN = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def visible(text: str) -> str:
    """
    A text for people, with characters that a terminal would obey instead of showing written as Python writes them.

    Sources, translations and names of files come from others: `ESC ] 0 ;` in one would rename the window, a carriage
    return would write over the line before.
    """
    return text.translate(_HIDDEN)


def inline(text: str) -> str:
    """A sentence that is part of what is printed, so that it cannot pass for a line of its own."""
    return visible(text).replace("\n", "\\n")


class LastingStream:
    """
    A stream that takes all that is printed, whether it can still be written or not, so that no finished work is lost.

    Args:
        stream (`TextIO`, *optional*): where to; `None`, as Python has it for a closed descriptor, is nowhere.

    Attributes:
        failure (`OSError`, *optional*): why nothing is written any more.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115, for as long as it is used
        self.failure: OSError | None = None
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")  # an arrow, on a terminal that only knows ASCII

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written, if that is possible."""
        self._try("flush")

    def _try(self, what: str, *given: str) -> None:
        if self.failure is not None:
            return
        try:
            getattr(self._stream, what)(*given)
        except OSError as error:
            self.failure = error
            self._write_nowhere()

    def _write_nowhere(self) -> None:
        """What is still waiting to be written goes nowhere, so that Python does not try it again at the end."""
        try:
            descriptor = self._stream.fileno()
        except (AttributeError, OSError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_stream"), name)


def run_printing(call: Callable[[], int]) -> int:
    """
    Run a command with lasting streams.

    Args:
        call (`Callable`): gives its exit code.

    Returns:
        `int`: that, or, where all went well but for its output, 141 if nobody reads that any more, and 1 if it cannot
        be written.
    """
    if isinstance(sys.stdout, LastingStream):
        return call()
    for _ in range(3):  # so that no file that is opened later gets the number of a closed stream
        if (descriptor := os.open(os.devnull, os.O_RDWR)) > 2:
            os.close(descriptor)
            break
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    ended = None
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = call()
    except SystemExit as error:  # after help
        ended, code = error, error.code
    finally:
        out.flush()
    if not code and out.failure is not None:
        if isinstance(out.failure, BrokenPipeError):
            return CLOSED_PIPE
        err.write(f"error: The command is done, but what it says cannot be written: {out.failure.strerror}.\n")
        err.flush()
        return FAILED
    if ended is not None:
        raise ended
    return code
