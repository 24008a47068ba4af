"""The editable class of a class of transformers, made once, so that it can be pickled."""

import functools

from transformers import PreTrainedModel

from .mixin import EditableMixin


@functools.cache
def editable_class(base: type[PreTrainedModel]) -> type[EditableMixin]:
    """The editable class made of a sequence-to-sequence model class, `Editable` before its name; always the same."""
    return type(f"Editable{base.__name__}", (EditableMixin, base), {"__module__": __name__, "__reduce_ex__": _reduce})


def _reduce(model: EditableMixin, protocol: int) -> tuple:
    return _empty_model, (type(model).base_class(),), model.__dict__


def _empty_model(base: type[PreTrainedModel]) -> EditableMixin:
    editable = editable_class(base)
    return editable.__new__(editable)
