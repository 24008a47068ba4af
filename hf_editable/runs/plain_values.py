"""Plain JSON values as objects, with nothing taken on trust."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from transformers.utils import logging


logger = logging.get_logger(__name__)


def from_plain(kind: Any, value: Any, name: str) -> Any:
    """
    A value as its type hint says.

    Args:
        kind (`Any`): the hint: a dataclass, whose fields are read likewise, `list`, `tuple` or `dict` of something, a
            plain type, such a type or `None`, or `Any`.
        value (`Any`): what `json.loads` gave.
        name (`str`): what errors call it.

    Raises:
        ValueError: if it is of another type, or lacks a field. Fields that are not known are passed over, and told.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, UnionType):
        return None if value is None and NoneType in inner else from_plain(inner[0], value, name)
    if dataclasses.is_dataclass(kind):
        return _instance(kind, value, name)
    if origin in (list, tuple) and isinstance(value, list):
        each = inner[:1] * len(value) if origin is list or inner[-1] is ... else inner
        if len(each) == len(value):
            return origin(from_plain(one, item, f"one of {name}") for one, item in zip(each, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: from_plain(inner[1], item, f"{key} of {name}") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r:.80}")
    return value


def _instance(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.80}, not an object")
    hints, given = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            given[field.name] = from_plain(hints[field.name], value[field.name], f"{field.name} of {name}")
        elif dataclasses.MISSING is field.default is field.default_factory:
            raise ValueError(f"{name} has no {field.name}")
    if unknown := sorted(value.keys() - given.keys()):
        logger.warning(f"Ignoring {', '.join(unknown)} of {name}, written by another version of hf_editable.")
    return kind(**given)
