"""Checks of arguments that every floor makes."""

from .errors import EditableValueError


def check_count(name: str, value: int, least: int = 1) -> int:
    """
    A whole number of `least` or more.

    Raises:
        EditableValueError: if it is not one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EditableValueError(f"{name}={value!r}: it must be a whole number, {least} or more.")
    return value
