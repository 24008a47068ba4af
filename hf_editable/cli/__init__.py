"""The commands of hf_editable: one file each, with a `main(argv)` that scripts/ and `accelerate launch` start."""

import sys
from collections.abc import Callable

from ..errors import EditableError


def run_main(command: Callable[[list[str] | None], None], argv: list[str] | None = None) -> int:
    """Run a command; errors that the user can mend become one line on stderr and exit code 2, not a traceback."""
    try:
        command(argv)
    except EditableError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
