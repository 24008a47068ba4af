"""EditConfig: ranges, round trips, and documentation that tells the truth."""

import dataclasses
import json
import re

import pytest

from hf_editable import EditableTypeError, EditableValueError, EditConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "sgd", r"optimizer='sgd'.*'rmsprop'"),
        ("base_loss", "mse", r"base_loss='mse'.*'distillation'"),
        ("learning_rate", 0.0, "learning_rate=0.0.*above 0"),
        ("learning_rate", float("nan"), "learning_rate=nan"),
        ("learning_rate", float("inf"), "learning_rate=inf"),
        ("epsilon", -1e-6, "epsilon=-1e-06"),
        ("beta", 1.0, "beta=1.0.*above 0, and below 1"),
        ("momentum", 0.0, "momentum=0.0.*above 0, and below 1"),
        ("c_edit", -1.0, "c_edit=-1.0"),
        ("c_loc", float("inf"), "c_loc=inf"),
        ("max_steps", 0, "max_steps=0.*whole number, 1 or more, and 10000 at most"),
        ("max_steps", 2.5, "max_steps=2.5.*whole number"),
        ("num_alternatives", True, "num_alternatives=True"),
        ("length_penalty", float("inf"), "length_penalty=inf.*100 at most"),
    ],
)
def test_values_out_of_range(field, value, message):
    with pytest.raises(EditableValueError, match=message):
        EditConfig(**{field: value})


def test_adam_needs_a_momentum_above_a_tenth():
    assert EditConfig(optimizer="rmsprop", momentum=0.05).momentum == 0.05
    with pytest.raises(EditableValueError, match="momentum=0.05.*above 0.1, and below 1"):
        EditConfig(optimizer="adam", momentum=0.05)


def test_round_trip_through_json():
    config = EditConfig(optimizer="adam", learning_rate=3e-4, layers_to_transform=[-2, -1], target_modules=["fc1"])
    assert EditConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_keys_of_a_newer_version_are_left_out_with_a_warning(caplog):
    assert EditConfig.from_dict({"max_steps": 3, "colour": "blue"}).max_steps == 3
    assert "ignoring colour" in caplog.text


def test_instances_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError, match="max_steps"):
        EditConfig().max_steps = 3


def test_replace_names_unknown_fields():
    assert EditConfig().replace(max_steps=2).max_steps == 2
    with pytest.raises(EditableTypeError, match="has no lr"):
        EditConfig().replace(lr=1.0)


def test_every_field_is_documented_with_its_default():
    documented = dict(
        re.findall(r"^ {8}(\w+) \(.*?\*optional\*(?:, defaults to `(.+?)`)?\):", EditConfig.__doc__, re.M)
    )
    for field in dataclasses.fields(EditConfig):
        shown = documented[field.name]
        default = json.dumps(field.default) if isinstance(field.default, str) else repr(field.default)
        assert shown == ("" if field.default is None else default), field.name
