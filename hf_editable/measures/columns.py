"""How tables write what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


# What a cell says where nothing was measured.
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """
    A column of a table with one row a report.

    Args:
        heading (`str`): its heading.
        key (`str`): what it shows of a report's summary.
        form (`str`, *optional*, defaults to `".2f"`): format specification of the number.
        interval (`bool`, *optional*, defaults to `False`): whether the summary's `{key}_interval` stands beside it.
    """

    heading: str
    key: str
    form: str = ".2f"
    interval: bool = False

    def cell(self, summary: Mapping[str, Any]) -> str:
        """What the column says of a report with this summary."""
        if (value := summary.get(self.key)) is None:
            return NOTHING
        return (
            with_interval(value, summary[f"{self.key}_interval"], self.form)
            if self.interval
            else f"{value:{self.form}}"
        )


def with_interval(value: float, interval: Sequence[float] | None, form: str = ".2f") -> str:
    """A number and its interval, if it has one, written by a format specification: `0.76 [0.61, 0.93]`."""
    if interval is None:
        return f"{value:{form}}"
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
