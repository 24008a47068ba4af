"""Checks of arguments that every floor makes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import EditableTypeError, EditableValueError


Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Numbers:
    """
    The numbers that an argument may be.

    Args:
        least (`float`, *optional*, defaults to `1`): the least.
        most (`float`, *optional*): the most; by default what 32 bits hold.
        whole (`bool`, *optional*, defaults to `True`): whether only whole numbers are meant.
        above (`bool`, *optional*, defaults to `False`): whether they must be above `least`.
        below (`bool`, *optional*, defaults to `False`): whether they must be below `most`.
        why (`str`, *optional*): why there is such a limit: `"a port has 16 bits"`.
    """

    least: float = 1
    most: float = 2**31 - 1
    whole: bool = True
    above: bool = False
    below: bool = False
    why: str = ""

    def check(self, name: str, value: Any) -> Any:
        """
        The value, if it is one of these numbers.

        Args:
            name (`str`): what the message puts before the value: `"num_beams="`.
            value (`Any`): the value.

        Raises:
            EditableValueError: if it is none of them.
        """
        kinds = int if self.whole else (int, float)
        # Written so that NaN is refused.
        fits = isinstance(value, kinds) and not isinstance(value, bool) and self.least <= value <= self.most
        if not fits or (self.above and value == self.least) or (self.below and value == self.most):
            raise EditableValueError(f"{name}{value!r:.200}: it must be {self._described(value)}.")
        return value

    def _described(self, value: Any) -> str:
        kind = "a whole number, " if self.whole else "" if isinstance(value, int | float) else "a number, "
        bounds = [f"above {self.least:g}" if self.above else f"{self.least:g} or more"]
        if self.most < Numbers.most or (isinstance(value, int | float) and value > self.most):
            bounds.append(f"below {self.most:g}" if self.below else f"{self.most:.10g} at most")
        return kind + ", and ".join(bounds) + (f", as {self.why}" if self.why else "")


# More beams take memory for nothing: what the last of a thousand translations is, no search depends on.
BEAMS = Numbers(1, 1000, why="a search keeps so many translations of each sentence in memory")
SEEDS = Numbers(0, 2**32 - 1, why="a seed has 32 bits")


def check_count(name: str, value: int, least: int = 1) -> int:
    """
    A whole number of `least` or more.

    Raises:
        EditableValueError: if it is not one.
    """
    return Numbers(least).check(f"{name}=", value)


def check_text(name: str, text: str) -> str:
    """
    A text that can be written: all of its characters are whole.

    Raises:
        EditableTypeError: if it is no text.
        EditableValueError: if it has lone surrogates, halves of characters, as text that is not UTF-8 may come to.
    """
    if not isinstance(text, str):
        raise EditableTypeError(f"{name}={text!r:.80}: it must be a text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EditableValueError(
            f"The {name} {text[:60]!a} has half of a character (a lone surrogate, at {error.start}). Give whole "
            "characters; a file is to be read as UTF-8."
        ) from error
    return text


def given_settings(kind: type[Settings], settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    """
    The settings that a function was given: as an object, by name, or both, where names go first.

    Args:
        kind (`type`): the dataclass of the settings.
        settings (`kind`, *optional*): the object; `None` is one of defaults.
        options (`dict[str, Any]`): fields by their names.

    Raises:
        EditableTypeError: if `settings` are none, or a name is no field; the message lists those that there are.
        EditableValueError: if a value is out of range.
    """
    settings = kind() if settings is None else settings
    if not isinstance(settings, kind):
        raise EditableTypeError(f"settings={settings!r:.80}: give {kind.__name__}(), or its fields by name.")
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(options.keys() - set(names)):
        raise EditableTypeError(f"{kind.__name__} has no {', '.join(unknown)}. It has: {', '.join(names)}.")
    return dataclasses.replace(settings, **options)
