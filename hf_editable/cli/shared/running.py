"""How every command runs: what it parses, how it tells what came out, and the exit code it ends with."""

import argparse
import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from ...errors import EditableError, EditableValueError, EditRefusedError
from ...runs.files import check_file, check_folder
from ...runs.places import check_apart
from .numbers_taken import check_numbers
from .printing import FAILED, run_printing, visible


DONE, USAGE, REFUSED, INTERRUPTED = 0, 2, 3, 130

# Options that name what a command reads.
INPUTS = (
    *("model_name_or_path", "edits", "store", "archive", "dataset_name", "must_keep", "regression_data"),
    *("data_dir", "edits_dir", "eval_edits_dir", "validation_edits_dir", "test_edits_dir", "evaluation_dir"),
    *("results_dir", "regression_file", "reference_file", "train_files", "validation_files", "test_files"),
)
# Options of every command, but where the Trainer has one of that name.
_SHARED = {
    "json": "Print one JSON object on stdout, and everything else on stderr.",
    "debug": "Show where in the program an error comes from.",
}


class UsageError(EditableValueError):
    """What the command does not understand: an option that does not exist, or a text where a number is due."""


class Refusing(argparse.ArgumentParser):
    """A parser that refuses in one line, as everything else is refused."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` lists what there is.")


@dataclass
class _Run:
    """One run of a command."""

    program: str
    json: bool = False
    debug: bool = False
    error_code: int = USAGE
    values: dict[str, Any] = field(default_factory=dict)
    redirected: ExitStack = field(default_factory=ExitStack)

    def be_quiet(self) -> None:
        """Print a JSON object, and let stdout be for that alone."""
        self.json = True
        self.redirected.enter_context(redirect_stdout(sys.stderr))


_run: ContextVar[_Run | None] = ContextVar("run", default=None)
_settings: ContextVar[dict[str, Any] | None] = ContextVar("settings", default=None)


@contextmanager
def subcommand(program: str, json: bool, debug: bool) -> Iterator[None]:
    """
    Inside, commands run as parts of another program.

    Args:
        program (`str`): what usage messages and reports call the command: `hf-editable edit`.
        json (`bool`): whether `--json` was given before the command.
        debug (`bool`): whether `--debug` was given before it.
    """
    token = _settings.set({"program": program, "json": json, "debug": debug, "error_code": FAILED})
    try:
        yield
    finally:
        _settings.reset(token)


def program_name() -> str:
    """What the command that runs is called: `hf-editable edit`, or the name of a developers' script."""
    return (_settings.get() or {}).get("program") or Path(sys.argv[0]).name


def run_main(command: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """
    Run a command. Errors that the user can mend become one line on stderr, not a traceback.

    Args:
        command (`Callable`): takes the arguments, and returns an exit code; `None` is 0.
        argv (`list[str]`, *optional*): the arguments; `None` takes those of the process.

    Returns:
        `int`: 0 if the command did what it was asked to, 1 on an error (2 outside of `hf-editable`), 2 on arguments
        that it does not understand, 3 if an edit was not made or not accepted, 130 if the user interrupted it.
    """
    run = _Run(**(_settings.get() or {"program": program_name()}))
    token = _run.set(run)
    try:
        return run_printing(lambda: _run_told(command, argv, run))
    finally:
        _run.reset(token)


def _run_told(command: Callable[[list[str] | None], int | None], argv: list[str] | None, run: _Run) -> int:
    """Run a command, and print the JSON object if it is asked for."""
    stdout, code = sys.stdout, FAILED
    try:
        with run.redirected:
            if run.json:
                run.be_quiet()
            code = _run_guarded(command, argv, run)
    except Exception as error:  # of the program itself
        run.values |= {"error": str(error), "error_type": type(error).__name__}
        raise
    finally:
        if run.json and not isinstance(sys.exc_info()[1], SystemExit):
            _write_json(run, code, stdout)
    return code


def _run_guarded(command: Callable[[list[str] | None], int | None], argv: list[str] | None, run: _Run) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    try:
        _check_text(arguments)
        return command(argv) or DONE
    except (EditableError, OSError) as error:
        if run.debug:
            traceback.print_exc()
        run.json |= "--json" in arguments  # where the arguments could not be parsed
        message = " ".join(str(error).split())
        sys.stderr.write(f"error: {visible(message)}\n")
        run.values |= {"error": message, "error_type": type(error).__name__}
        codes = {UsageError: USAGE, EditRefusedError: REFUSED}
        return codes.get(type(error), run.error_code)
    except KeyboardInterrupt:
        if run.debug:
            traceback.print_exc()
        sys.stderr.write("Interrupted.\n")
        run.values["error_type"] = "KeyboardInterrupt"
        return INTERRUPTED


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what is no text: a name or sentence with such parts could be neither read nor written."""
    for text in arguments:
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise EditableValueError(
                f"The argument {text!r:.200} is not of the encoding {sys.getfilesystemencoding()}. Write it "
                "differently, or set a locale of UTF-8 (LANG=C.UTF-8)."
            )


def _write_json(run: _Run, code: int, stdout: Any) -> None:
    from ...runs.processes import is_main_process

    if is_main_process():
        values = {"command": run.program.split()[-1].removesuffix(".py"), "exit_code": code, **_finite(run.values)}
        stdout.write(json.dumps(values, default=str) + "\n")  # ASCII, which every encoding has


def _finite(value: Any) -> Any:
    """The same, with null for the numbers that JSON has no names for."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tell(text: str, **values: Any) -> None:
    """
    Tell the user what came out.

    Args:
        text (`str`): for people: printed.
        values (*optional*): for machines: parts of the object that `--json` prints when the command ends.
    """
    if text:
        print(visible(text))
    if (run := _run.get()) is not None:
        run.values |= values


def parse_arguments(
    kinds: Sequence[type], argv: list[str] | None, description: str | None, **defaults: Any
) -> tuple[Any, ...]:
    """
    Parse the command line into dataclasses.

    Args:
        kinds (`Sequence[type]`):
            The dataclasses. Their fields are the options; those with `init=False` are positional arguments, whose
            metadata goes to `add_argument`.
        argv (`list[str]`, *optional*): the arguments; `None` takes those of the process.
        description (`str`, *optional*): what `--help` says first; commands in it stay as they are.
        defaults (*optional*): defaults other than those of the dataclasses.

    Returns:
        `tuple`: an instance of each.

    Raises:
        UsageError: if an option is unknown, or a value is none of its type.
        EditableError: if a number is out of range, or results cannot be written where they are to go.
    """
    from transformers import HfArgumentParser

    from .help_format import HelpFormatter, describe_options

    class Parser(Refusing, HfArgumentParser):
        def parse_known_args(self, *given: Any, **options: Any) -> tuple[argparse.Namespace, list[str]]:
            values, rest = super().parse_known_args(*given, **options)
            for kind in kinds:  # before the dataclasses reckon with them
                check_numbers(kind, values)
            return values, rest

    run = _run.get() or _Run(program_name())
    parser = Parser(kinds, description=description, prog=run.program, formatter_class=HelpFormatter)
    parser.set_defaults(**defaults)
    positional = {kind: [item for item in fields(kind) if not item.init and "help" in item.metadata] for kind in kinds}
    for item in chain.from_iterable(positional.values()):
        parser.add_argument(item.name, **item.metadata)
    taken = {item.name for kind in kinds for item in fields(kind)}
    for name, text in _SHARED.items():
        if name not in taken:
            parser.add_argument(f"--{name}", action="store_true", help=text, default=argparse.SUPPRESS)
    describe_options(parser)
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    except EditableError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise UsageError(str(error)) from error
    if rest:
        raise UsageError(f"Unknown arguments: {' '.join(rest)}. `{run.program} --help` lists what there is.")
    more = vars(parsed.pop()) if len(parsed) > len(kinds) else {}
    for instance, items in zip(parsed, positional.values(), strict=True):
        for item in items:
            setattr(instance, item.name, more[item.name])
    run.debug |= more.get("debug", False)
    if more.get("json") and not run.json:
        run.be_quiet()
    _check_places(parsed)
    return tuple(parsed)


def _check_places(arguments: Sequence[Any]) -> None:
    """Try to write where the results go, and keep them apart from what they are made from, before the long work."""
    values = {name: value for each in arguments for name, value in vars(each).items()}
    given = {name: values[name] for name in INPUTS if values.get(name)}
    places = [
        (name if name == "edits" else f"--{name}", place)
        for name, value in given.items()
        for place in (value if isinstance(value, list) else [value])
    ]
    if (folder := values.get("output_dir")) is not None:
        check_folder(folder)
        check_apart(folder, places, emptied=values.get("overwrite", False))
    if (file := values.get("output_file")) is not None:
        check_file(file)
        check_apart(file, places, is_file=True)
