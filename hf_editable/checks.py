"""Checks of arguments that every floor makes."""

import dataclasses
import functools
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import EditableTypeError, EditableValueError


Function = TypeVar("Function", bound=Callable[..., Any])
Settings = TypeVar("Settings")

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Kinds of arguments in words, and where those come from that no one writes by hand.
_IN_WORDS = {
    str: "a string",
    int: "a whole number (int)",
    float: "a number (float)",
    bool: "True or False",
    os.PathLike: "a path",
}
_SOURCES = {
    "Dataset": "Dataset.from_list makes one of rows",
    "EditConfig": "EditConfig() is one of defaults",
    "EditPatch": "EditPatch.from_pretrained reads one",
    "Module": "AutoEditableModelForSeq2SeqLM.from_pretrained loads one",
    "PreTrainedModel": "AutoEditableModelForSeq2SeqLM.from_pretrained loads one",
    "PreTrainedTokenizerBase": "AutoTokenizer.from_pretrained loads one",
    "Tensor": "torch.tensor makes one",
}


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


def checked(function: Function) -> Function:
    """
    Have a function's arguments checked against its annotations, each time that it is called.

    Raises:
        EditableTypeError: if one is of another type; the message has its name and value, and says what to give.
    """
    signature = inspect.signature(function)

    @functools.cache
    def hints() -> dict[str, Any]:
        found = get_type_hints(function)
        named = {each.name for each in signature.parameters.values() if each.kind not in _VARIADIC}
        return {name: hint for name, hint in found.items() if name in named}

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in hints() and not _fits(value, hints()[name]):
                raise EditableTypeError(
                    f"{name}={value!r:.80} is of type {type(value).__name__}. Give {_described(hints()[name], value)}."
                )
        return function(*args, **kwargs)

    return checking


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an annotation names."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    kind = origin or hint
    if not isinstance(kind, type) or kind.__name__ == "EditableMixin":  # `check_model` says more of those
        return True
    if kind is Sequence:
        # Columns of datasets are sequences that do not say so; what they hold is of one type.
        listed = (
            hasattr(value, "__len__")
            and hasattr(value, "__getitem__")
            and not isinstance(value, str | bytes | Mapping)
        )
        return listed and _items_fit(value, inner)
    if kind is tuple and inner:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if kind is Iterable:
        listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        return listed and _items_fit(value, inner)
    return isinstance(value, kind)


def _items_fit(value: Any, inner: tuple[Any, ...]) -> bool:
    """Whether the items of a list are of its type; anything else would have to be read for that."""
    return not inner or not isinstance(value, list | tuple) or all(_fits(each, inner[0]) for each in value)


def _described(hint: Any, value: Any = None) -> str:
    """An annotation in words, with what to do about a value that is of another type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        named = [_described(each, value) for each in sorted(inner, key=lambda each: each is type(None))]
        return ", or ".join(named)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if hint is None or hint is type(None):
        return "None"
    if origin in (Sequence, Iterable, list):
        told = f", such as [{value!r:.60}]" if isinstance(value, str) else ""
        told = ", such as list(...) of it" if isinstance(value, Iterable) and not hasattr(value, "__len__") else told
        return f"a list of which each item is {_described(inner[0])}{told}"
    if origin is tuple:
        return f"a pair of {' and '.join(_described(each) for each in inner)}"
    if hint in _IN_WORDS:
        return _IN_WORDS[hint]
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" + (f" ({_SOURCES[name]})" if name in _SOURCES else "")
