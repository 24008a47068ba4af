"""The settings that all evaluations share: documented and checked once, and taken as an object or by name."""

import dataclasses
import inspect
import json
import re

import datasets
import pytest

from hf_editable import EditableTypeError, EditableValueError, evaluate_edits
from hf_editable.evaluation import (
    EvaluationSettings,
    TuningSettings,
    analyze_edits,
    compare_variants,
    edit_sequence,
    measure_generality,
    optimizer_variants,
)


SMALL = {"num_edits": 2, "num_beams": 2, "max_new_tokens": 6, "seed": 3, "name": "small"}


@pytest.fixture(scope="module")
def pairs(tiny_pairs):
    return datasets.Dataset.from_list(tiny_pairs)


@pytest.fixture
def given(tiny_model, tiny_tokenizer, tiny_edits, pairs):
    """What all evaluations take first."""
    return tiny_model, tiny_tokenizer, tiny_edits, pairs


def rows_of(report):
    rows = getattr(report, "rows", None) or report.edits
    return [{key: value for key, value in row.items() if key != "milliseconds"} for row in rows]


def test_every_field_is_documented_with_its_default():
    text = inspect.getdoc(EvaluationSettings)
    for field in dataclasses.fields(EvaluationSettings):
        (line,) = re.findall(rf"^    {field.name} \(.*$", text, re.MULTILINE)
        default = json.dumps(field.default) if isinstance(field.default, str) else str(field.default)
        documented = re.findall(r"defaults to `(.*?)`", line)
        assert documented == ([] if field.default is None else [default]), line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed=-1: it must be a whole number, 0 or more"),
        ({"seed": True}, "seed=True"),
        ({"num_edits": 0}, "num_edits, the number of rows to take=0: it must be a whole number, 1 or more"),
        ({"num_test": 1.5}, r"num_test, the number of rows to take=1\.5"),
        ({"num_beams": 0}, "num_beams=0: it must be a whole number, 1 or more"),
        ({"batch_size": "8"}, "batch_size='8'"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"bleu_tokenize": "moses"}, "bleu_tokenize='moses': choose one of"),
    ],
)
def test_bad_values_raise(fields, message, given):
    with pytest.raises(EditableValueError, match=message):
        EvaluationSettings(**fields)
    with pytest.raises(EditableValueError, match=message):
        evaluate_edits(*given, **fields)


def test_an_object_is_as_good_as_names(given, tmp_path):
    named = evaluate_edits(*given, num_test=5, bleu_tokenize="none", lowercase=True, max_steps=2, **SMALL)
    settings = EvaluationSettings(**SMALL, num_test=5, bleu_tokenize="none", lowercase=True, output_dir=tmp_path)
    report = evaluate_edits(*given, settings, max_steps=2)
    assert rows_of(report) == rows_of(named) and (tmp_path / "report.json").is_file()
    assert (report.summary["name"], report.summary["num_test"], report.summary["seed"]) == ("small", 5, 3)
    # A name goes before the object.
    other = evaluate_edits(*given, settings, output_dir=None, num_test=4, name="other")
    assert (other.summary["name"], other.summary["num_test"], other.summary["num_edits"]) == ("other", 4, 2)
    assert settings.num_test == 5


def test_one_object_serves_all_evaluations(given):
    settings = EvaluationSettings(**SMALL, num_test=12, bleu_tokenize="none", lowercase=True)
    reports = [evaluate(*given, settings) for evaluate in (evaluate_edits, edit_sequence, analyze_edits)]
    reports.append(measure_generality(*given, settings, kinds=["typo"]))
    rows = [sorted((row["index"], row["source"]) for row in rows_of(report)) for report in reports]
    assert all(each == rows[0] for each in rows) and len(rows[0]) == 2
    assert {(each.summary["name"], each.summary["seed"]) for each in reports} == {("small", 3)}


@pytest.mark.parametrize(
    ("evaluate", "name", "own", "unused"),
    [
        (evaluate_edits, "no_such_field", {"record_gigabytes", "verify", "num_edits", "lowercase"}, set()),
        (edit_sequence, "no_such_field", {"counts", "num_edits", "num_test"}, set()),
        (measure_generality, "num_test", {"kinds", "number_words", "num_edits", "num_beams"}, {"bleu_tokenize"}),
        (analyze_edits, "num_beams", {"num_edits", "num_test", "output_dir", "seed", "name"}, {"lowercase"}),
        (analyze_edits, "no_such_field", {"num_edits"}, {"batch_size", "max_new_tokens", "bleu_tokenize"}),
    ],
)
def test_unknown_names_raise_and_list_those_there_are(evaluate, name, own, unused, given):
    with pytest.raises(EditableTypeError, match=rf"EditConfig has no {name}\. It has: .*learning_rate") as raised:
        evaluate(*given, **{name: 1})
    before, takes, names = str(raised.value).removesuffix(".").partition(f" {evaluate.__name__} itself takes: ")
    assert takes and own <= set(names.split(", ")) and not (unused | {name}) & set(names.split(", "))


def test_other_objects_raise(given):
    with pytest.raises(EditableTypeError, match="settings={'seed': 1} is of type dict. Give an EvaluationSettings"):
        evaluate_edits(*given, {"seed": 1})


@pytest.fixture
def compare(tiny_model, tiny_tokenizer, tiny_edits, pairs, tmp_path):
    """Compares one editor of the tiny model with itself."""

    def run(*evaluation, **options):
        data = {"validation_edits": tiny_edits.select([0]), "validation_set": pairs.select(range(3))}
        data |= {"test_edits": tiny_edits.select(range(1, 4)), "test_set": pairs.select(range(3, 9))}
        small = {"tuning": TuningSettings(refinements=0), "max_steps": 1, "output_dir": tmp_path / "compared"}
        return compare_variants(
            tiny_model, tiny_tokenizer, optimizer_variants(["gd"]), *evaluation, **data, **small, **options
        )

    return run


def test_a_comparison_takes_them_too(compare, tmp_path):
    settings = EvaluationSettings(**SMALL, num_test=4, output_dir=tmp_path / "elsewhere")
    (variant,) = compare(settings, record_gigabytes=0.0).variants
    summary = variant.summary
    assert (summary["name"], summary["num_edits"], summary["num_test"], summary["seed"]) == ("gd", 2, 4, 3)
    assert summary["record"] is None and not (tmp_path / "elsewhere").exists()
    header = json.loads((tmp_path / "compared" / "gd" / "tuning.jsonl").read_text().splitlines()[0])
    assert header["arguments"]["edit_config"]["max_steps"] == 1


def test_a_comparison_refuses_unknown_names_before_it_tunes(compare, tmp_path):
    with pytest.raises(EditableTypeError, match="EditConfig has no no_such_field.* compare_variants itself takes: "):
        compare(no_such_field=1)
    assert not (tmp_path / "compared").exists()
