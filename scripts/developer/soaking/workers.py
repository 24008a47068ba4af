"""Commands in processes of their own that start at once, as they are forked from one that has imported everything."""

import importlib
import io
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tqdm.auto

from .rules import Violation


tqdm.std.tqdm.monitor_interval = 0  # a thread that watches progress bars would not survive the fork
COMMANDS = (
    "apply_edits",
    "check_edits",
    "edit_translation",
    "export_edits",
    "list_edits",
    "repair_edits",
    "revert_edit",
)
PATIENCE = 240.0  # seconds
SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}


@dataclass
class Outcome:
    """
    How a process ended.

    Args:
        what (`str`): the command, or what else it did.
        code (`int`): its exit code; of a process that a signal ended, the signal's number, negative.
        out (`str`): what it wrote to stdout.
        err (`str`): what it wrote to stderr.
        signal (`str`, *optional*): the signal that it was sent before it ended.
        seconds (`float`): how long it took.
    """

    what: str
    code: int
    out: str
    err: str
    signal: str | None
    seconds: float

    @property
    def cut_off(self) -> bool:
        """Whether the signal ended it, so that what it was asked for may be done or not."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM, 130)

    @property
    def values(self) -> dict[str, Any]:
        """The JSON object that a command with `--json` printed; empty if there is none."""
        return json.loads(self.out) if self.out.startswith("{") else {}

    def judge(self) -> None:
        """
        What holds for every process.

        Raises:
            Violation: if it showed a traceback, ended as none should, or did not tell an error in one line.
        """
        lines = [line for line in self.err.replace("\r", "\n").split("\n") if line.strip()]
        errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
        problem = None
        if "Traceback (most recent call last)" in self.err + self.out:
            problem = "a traceback"
        elif self.cut_off:
            expected = {"kill": -signal.SIGKILL, "terminate": -signal.SIGTERM, "interrupt": 130}.get(self.signal)
            problem = None if self.code == expected else "it ended as if by a signal that nobody sent"
        elif self.code not in (0, 1, 2, 3):
            problem = "an exit code that is none"
        elif self.code in (1, 2) and errors != [len(lines) - 1] and " check " not in self.what:
            problem = "an error that is not told in one line, the last"
        elif self.code == 0 and errors:
            problem = "an error, and exit code 0"
        elif any("Warning: " in line for line in lines):
            problem = "a warning"
        elif self.values and self.values.get("exit_code") != self.code:
            problem = "another exit code in its JSON object"
        if problem:
            raise Violation(f"{problem}: exit code {self.code} of {self}")

    def __str__(self) -> str:
        return f"`{self.what}`, signal {self.signal}, stdout {self.out[-1500:]!r}, stderr {self.err[-3000:]!r}"


class Process:
    """
    A process that runs a function and ends with the exit code that it returns.

    Args:
        what (`str`): what it does, for messages.
        work (`Callable`): does it.
        folder (`Path`): where its outputs go.
        most_bytes (`int`, *optional*): the largest file that it can write.
        patience (`float`, *optional*): the most seconds that it may take.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[], int],
        folder: Path,
        most_bytes: int | None = None,
        patience: float = PATIENCE,
    ):
        self.what, self._signal, self._start, self._patience = what, None, time.monotonic(), patience
        self._waited = False
        number = f"{time.monotonic_ns()}"
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        ready, tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ready)
            _run(work, self._out, self._err, tell, most_bytes)
        os.close(tell)
        os.read(ready, 1)  # from here on, a signal finds the work begun
        os.close(ready)

    def send(self, name: str, after: float) -> "Process":
        """Send it a signal after so many seconds, if it has not ended by then."""
        end = time.monotonic() + after
        while time.monotonic() < end and not self._ended():
            time.sleep(0.001)
        if not self._ended():
            self._signal = name
            os.kill(self._pid, SIGNALS[name])
        return self

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stop(self) -> None:
        """Kill it, if nobody has waited for its end."""
        if not self._waited:
            self._waited = True
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def wait(self) -> Outcome:
        """
        Wait for its end.

        Raises:
            Violation: if it does not end, or ends as none should; see `Outcome.judge`.
        """
        while not (ended := self._ended()) and time.monotonic() - self._start < self._patience:
            time.sleep(0.002)
        if not ended:
            os.kill(self._pid, signal.SIGKILL)
        self._waited = True
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (self._out, self._err)]
        outcome = Outcome(self.what, code, *texts, self._signal, time.monotonic() - self._start)
        for path in (self._out, self._err):
            path.unlink()
        if not ended:
            raise Violation(f"no end after {self._patience:g} seconds: {outcome}")
        outcome.judge()
        return outcome


def _run(work: Callable[[], int], out: Path, err: Path, tell: int, most_bytes: int | None) -> None:
    """The forked process, which never returns."""
    code = 1
    try:
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w"), "utf-8") for number in (1, 2))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        random.seed()  # names of temporary folders
        for bar in (tqdm.std.tqdm, tqdm.auto.tqdm):  # all would share a lock, which one that is killed keeps
            bar.set_lock(threading.RLock())
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        os.write(tell, b".")
        code = work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def command(argv: list[str]) -> Callable[[], int]:
    """The work of `hf-editable` with these arguments."""

    def work() -> int:
        from hf_editable.cli.main import main

        return main(argv)

    return work


def warm_up(model: Path, folder: Path) -> None:
    """Import here, by a first edit of each kind, what commands import when they need it: else each process would."""
    for name in ("app.sessions", "operations.bulk.apply_corrections", *(f"cli.commands.{name}" for name in COMMANDS)):
        importlib.import_module(f"hf_editable.{name}")
    list = folder / "warm.jsonl"
    list.write_text(json.dumps({"source": "der hund sieht", "target": "the dog buys"}), encoding="utf-8")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        command(["apply", str(list), "--model_name_or_path", str(model), "--output_dir", str(folder / "warm")])()
        command(["apply", str(folder / "warm" / "store"), "--output_dir", str(folder / "applied")])()
