"""How the help of a command looks: what it needs in one line, each option by one name, defaults that say something."""

import argparse
import enum
import textwrap
from typing import Any


# What a paragraph with a command to paste starts with.
PROGRAMS = ("hf-editable ", "accelerate launch ", "python ")


class HelpFormatter(argparse.HelpFormatter):
    """Keeps paragraphs apart and commands as they are, and names each option and each default once."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = map(textwrap.dedent, text.strip().split("\n\n"))
        return "\n\n".join(
            textwrap.indent(each, "    ")
            if each.startswith(PROGRAMS)
            else super(HelpFormatter, self)._fill_text(each, width, indent)
            for each in paragraphs
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # --batch_size has a second name, --batch-size; a switch may have a value, such as `--force false`.
        names = [name for name in action.option_strings if "-" not in name.lstrip("-")]
        if not names:
            return super()._format_action_invocation(action)
        if action.nargs == 0 or (action.nargs == "?" and action.const is True):
            return ", ".join(names)
        return f"{', '.join(names)} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        told = "default:" in text.lower() or "%(default)" in text
        default = action.default
        if told or action.nargs == 0 or default is None or default is False or default is argparse.SUPPRESS:
            return text
        return f"{text} (default: {_shown(default)})"


def _shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value))
    text = str(value.value if isinstance(value, enum.Enum) else value)
    return text.replace("%", "%%")


def describe_options(parser: argparse.ArgumentParser) -> None:
    """
    Put the required options first, say in the usage which they are, and what `--no_...` stands for.

    Args:
        parser ([`argparse.ArgumentParser`]): has all its options.
    """
    options = parser._optionals._group_actions  # argparse has no other way to order them
    options.sort(key=lambda option: not option.required)
    parts = [parser.prog]
    for option in options:
        name = option.option_strings[0]
        if option.required:
            value = option.metavar or option.dest.upper()
            parts.append(f"{name} {value}" + (f" [{value} ...]" if option.nargs == "+" else ""))
        elif name == f"--no_{option.dest}" and option.const is False:
            option.help = f"The opposite of --{option.dest}."
    positional = parser._positionals._group_actions
    parts += [f"[{action.dest}]" if action.nargs == "?" else action.dest for action in positional]
    parts.append("[options]")
    parser.usage = "\n       ".join(textwrap.wrap(" ".join(parts), 110, break_on_hyphens=False))
