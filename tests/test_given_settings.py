"""Settings as an object, by name, or both."""

import pytest

from hf_editable import EditableTypeError, EditableValueError
from hf_editable.checks import given_settings
from hf_editable.evaluation import EvaluationSettings, TuningSettings
from hf_editable.mining.mining_settings import MiningSettings
from hf_editable.operations import BulkSettings


# Each class, a setting of it that is no default, another, and a value out of range.
KINDS = [
    (MiningSettings, {"seed": 3}, {"num_edits": 2}, {"temperature": 0}),
    (TuningSettings, {"seed": 3}, {"num_edits": 2}, {"refinements": 3}),
    (EvaluationSettings, {"seed": 3}, {"num_edits": 2}, {"num_beams": 0}),
    (BulkSettings, {"joint": True}, {"max_rounds": 2}, {"max_rounds": 0}),
]
kinds = pytest.mark.parametrize(
    ("kind", "one", "other", "bad"), KINDS, ids=lambda value: getattr(value, "__name__", "")
)


@kinds
def test_names_go_before_an_object(kind, one, other, bad):
    assert given_settings(kind, None, {}) == kind()
    assert given_settings(kind, kind(**one), other) == kind(**one, **other)
    (name,) = one
    assert given_settings(kind, kind(**one), {name: getattr(kind(), name)}) == kind()


@kinds
def test_what_does_not_fit_is_named(kind, one, other, bad):
    with pytest.raises(
        EditableTypeError, match=rf"{kind.__name__} has no colour, shape\. It has: .*{next(iter(one))}"
    ):
        given_settings(kind, None, {"shape": 1, "colour": 2, **one})
    with pytest.raises(EditableTypeError, match=rf"settings=.'seed': 1.: give {kind.__name__}\(\), or its fields"):
        given_settings(kind, {"seed": 1}, {})
    ((name, value),) = bad.items()
    with pytest.raises(EditableValueError, match=f"{name}={value}"):
        given_settings(kind, None, bad)
