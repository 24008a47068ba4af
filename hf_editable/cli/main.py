"""`hf-editable`: one command, of which each of the others is a part. `python -m hf_editable` is the same."""

import argparse
import difflib
import importlib
import sys
from dataclasses import dataclass

from .. import __version__
from .shared.printing import run_printing
from .shared.running import INTERRUPTED, USAGE, Refusing, UsageError, run_main, subcommand


@dataclass(frozen=True)
class Command:
    """
    A part of `hf-editable`.

    Args:
        module (`str`): the module in `cli.commands` whose `main` it is; it is imported when the command runs.
        summary (`str`): what it does, in one line.
    """

    module: str
    summary: str


# What people come for, and what each command of it does, in the order in which they are shown.
GROUPS = {
    "correct a model": {
        "edit": Command("edit_translation", "correct one translation of a model, and save the edit"),
        "apply": Command("apply_edits", "apply a file of corrections, a patch or a store; save the corrected model"),
        "mistakes": Command("find_mistakes", "list what a model translates worst, as a file of corrections"),
        "app": Command("open_page", "open a page in the browser to try edits on"),
    },
    "keep edits in a store": {
        "list": Command("list_edits", "list the edits of a store, or show one and what it changed"),
        "revert": Command("revert_edit", "take an edit out of a store, and make the later ones anew"),
        "export": Command("export_edits", "write one edit of a store, or all of them, as one patch"),
        "check": Command("check_edits", "check that a store is whole, and that its edits continue each other"),
        "repair": Command("repair_edits", "make the edits of a damaged or merged store anew"),
    },
    "measure edits": {
        "mine": Command("mine_edits", "mine edits from a model, to measure and to train with"),
        "evaluate": Command("evaluate_edits", "measure what single edits cost everything else"),
        "sequence": Command("edit_sequence", "make edits on top of each other; measure their cost, and which hold"),
        "generality": Command("measure_generality", "measure whether edits carry over to variants of their sources"),
        "analyze": Command("analyze_edits", "show which sentences edits change, and how alike edits are"),
        "compare-editors": Command(
            "compare_editors", "compare editors side by side: the model's own, fine-tuning, ..."
        ),
        "compare-optimizers": Command("compare_optimizers", "compare the optimizers that edits take their steps with"),
        "compare-parameters": Command(
            "compare_parameters", "compare which layers and parts of the decoder edits move"
        ),
        "report": Command("build_report", "put all results of a folder on one page"),
    },
    "train a model": {
        "prepare": Command("prepare_data", "prepare translation data: splits and a tokenizer"),
        "train": Command("train_baseline", "train a translation model from scratch"),
        "make-editable": Command("train_editable", "train a model so that edits of it stay local (Editable Training)"),
        "mine-prefixes": Command("mine_prefixes", "add prefixes to mined edits, to train for beam search too"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

_EPILOG = """exit codes:
  0 done    1 an error, told in one line    2 arguments that it does not understand
  3 an edit was not made, or not accepted    130 interrupted    141 done, but nobody read what it said"""


def _listed(group: dict[str, Command]) -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:{width}}  {command.summary}" for name, command in group.items())


def _parser() -> argparse.ArgumentParser:
    listed = "\n\n".join(f"{title}:\n{_listed(group)}" for title, group in GROUPS.items())
    parser = Refusing(
        prog="hf-editable",
        usage="hf-editable [--json] [--debug] COMMAND [options]",
        description="Correct single translations of a model, and measure what else changed.\n\n"
        f"{listed}\n\n"
        "hf-editable COMMAND --help lists the options of each.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hf_editable {__version__}")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")
    parser.add_argument("--debug", action="store_true", help="show where in the program an error comes from")
    return parser


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no command {name!r}.{meant} The commands are: {', '.join(COMMANDS)}."


def main(argv: list[str] | None = None) -> int:
    """
    Run a command by its name.

    Args:
        argv (`list[str]`, *optional*): the arguments; `None` takes those of the process.

    Returns:
        `int`: the exit code, see [`~cli.shared.running.run_main`].
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    return run_printing(lambda: _interruptible(arguments))


def _interruptible(arguments: list[str]) -> int:
    try:
        return _main(arguments)
    except KeyboardInterrupt:  # before the command itself runs: while it is imported, above all
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED


def _main(arguments: list[str]) -> int:
    own = next((place for place, text in enumerate(arguments) if not text.startswith("-")), len(arguments))
    parser = _parser()
    try:
        options = parser.parse_args(arguments[:own])
        if own == len(arguments):
            if not options.json:
                parser.print_help(sys.stderr)
                return USAGE
            raise UsageError("Give a command.")
        name, rest = arguments[own], arguments[own + 1 :]
        if name not in COMMANDS:
            raise UsageError(_unknown(name))
    except UsageError as error:
        return _refuse(error, arguments)
    module = importlib.import_module(f".commands.{COMMANDS[name].module}", __package__)
    with subcommand(f"hf-editable {name}", options.json, options.debug):
        return module.main(rest)


def _refuse(error: UsageError, arguments: list[str]) -> int:
    """Tell why no command was chosen, in the way of the commands."""

    def refuse(_: list[str] | None) -> int:
        raise error

    with subcommand("hf-editable", json=False, debug=False):
        return run_main(refuse, arguments)
