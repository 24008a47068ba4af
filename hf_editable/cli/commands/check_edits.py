"""Check a store: that no file of it is missing or damaged, and that each edit was made on top of those before it.

hf-editable check edits

Other commands that read a store look at the same, but for the content of tensors that they do not need.
"""

from dataclasses import dataclass, field

from ..shared.running import DONE, FAILED, parse_arguments, run_main, tell


@dataclass
class CheckArguments:
    """Which store."""

    store: str = field(init=False, default="", metadata={"help": "Folder of the store."})


def _check(argv: list[str] | None) -> int:
    (arguments,) = parse_arguments([CheckArguments], argv, __doc__)
    from ...operations.store.edit_store import EditStore

    found = EditStore(arguments.store).problems()
    for each in found:
        tell(f"{each.edit or 'base'}: {each.problem}")
    tell("", store=arguments.store, problems=[vars(each) for each in found])
    if found:
        tell(f"{arguments.store} is damaged. `hf-editable repair {arguments.store}` makes anew what can be.")
        return FAILED
    tell(f"{arguments.store} is whole.")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable check`; returns the exit code: 1 if something is wrong with the store."""
    return run_main(_check, argv)
