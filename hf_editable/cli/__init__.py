"""The commands of hf_editable: one file each, with a `main(argv)` that scripts/ and `accelerate launch` start."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import EditableError, EditableValueError


def run_main(command: Callable[[list[str] | None], None], argv: list[str] | None = None) -> int:
    """Run a command; errors that the user can mend become one line on stderr and exit code 2, not a traceback."""
    try:
        command(argv)
    except EditableError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def parse_arguments(
    kinds: Sequence[type], argv: list[str] | None, description: str | None, **defaults: Any
) -> tuple[Any, ...]:
    """
    Parse the command line into dataclasses.

    Args:
        kinds (`Sequence[type]`): the dataclasses, whose fields are the options.
        argv (`list[str]`, *optional*): the arguments; `None` takes those of the process.
        description (`str`, *optional*): what `--help` says first.
        defaults (*optional*): defaults other than those of the dataclasses.

    Returns:
        `tuple`: an instance of each.

    Raises:
        EditableValueError: if an option is unknown, or a value is out of range.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(kinds, description=description)
    parser.set_defaults(**defaults)
    try:
        return parser.parse_args_into_dataclasses(argv)
    except ValueError as error:
        raise EditableValueError(str(error)) from error
