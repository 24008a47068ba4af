"""Checks of arguments that every floor makes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import EditableTypeError, EditableValueError


Settings = TypeVar("Settings")


def check_count(name: str, value: int, least: int = 1) -> int:
    """
    A whole number of `least` or more.

    Raises:
        EditableValueError: if it is not one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EditableValueError(f"{name}={value!r}: it must be a whole number, {least} or more.")
    return value


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
