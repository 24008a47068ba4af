"""The choice of an editor's coefficients, and comparisons of editors and of what they edit."""

import copy
import json
import sys

import datasets
import families
import pytest
import torch

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableFileError,
    EditableTypeError,
    EditableValueError,
    EditConfig,
    EditReport,
    NonFiniteEditError,
)
from hf_editable.cli.commands import compare_optimizers, compare_parameters
from hf_editable.evaluation.comparison import compare_variants
from hf_editable.evaluation.edit_variants import optimizer_variants, parameter_variants
from hf_editable.evaluation.tuning import TUNING_NAME, TuningSettings, _Search, tune_editor
from hf_editable.reporting.comparison_report import Comparison, plot_comparison
from hf_editable.reporting.tuned_editor import TriedSetting
from hf_editable.tail.decoder_tail import Tail


OPTIONS = {"num_sentences": 4, "refinements": 0, "batch_size": 3}


@pytest.fixture(scope="module")
def pairs(tiny_pairs):
    """Twelve pairs of different lengths."""
    return datasets.Dataset.from_list(
        [
            {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
            for index, pair in enumerate(tiny_pairs[:12])
        ]
    )


@pytest.fixture
def tune(tiny_model, tiny_tokenizer, tiny_edits, pairs):
    """Tunes on three edits of the tiny model; arguments replace the fixture's."""

    def run(**options):
        arguments = {"model": tiny_model, "tokenizer": tiny_tokenizer, "edits": tiny_edits.select(range(3))}
        return tune_editor(**{**arguments, "sentences": pairs, **OPTIONS, **options})

    return run


def setting(coefficients, success_rate, kl, mean_loss=0.0):
    return TriedSetting(coefficients, success_rate, kl, mean_loss, 1.0, 0, 1.0)


class Landscape:
    """Stands in for the trials: success and locality as functions of the coefficients."""

    def __init__(self, optimizer, measure):
        self.config = EditConfig(optimizer=optimizer)
        self.measure = measure
        self.calls = []

    def __call__(self, coefficients):
        self.calls.append(coefficients)
        return setting(coefficients, *self.measure(**coefficients))


@pytest.mark.parametrize("threshold", [2e-7, 7e-4, 0.3, 50.0])
@pytest.mark.parametrize(("refinements", "apart"), [(0, 10**0.5), (1, 10**0.25), (2, 10**0.125)])
def test_search_finds_the_smallest_step_that_succeeds(threshold, refinements, apart):
    # Far below the threshold no edit succeeds, and only the loss says that larger steps are better.
    trials = Landscape(
        "gd", lambda learning_rate: (min(1.0, learning_rate / threshold // 0.1 / 10), learning_rate, -learning_rate)
    )
    tuned = _Search(trials, 0.95).run(refinements)
    assert tuned.reached and threshold <= tuned.chosen.coefficients["learning_rate"] < threshold * apart * 1.01
    assert len(trials.calls) == len(tuned.tried) == len({call["learning_rate"] for call in trials.calls}) < 30


def test_search_varies_every_coefficient():
    def measure(learning_rate, beta, momentum):
        # The best of β and μ wants a step size that is bad with the others.
        best = {(0.9, 0.5): 3e-5}.get((beta, momentum), 1e-3)
        return float(learning_rate >= best), learning_rate * (1 if (beta, momentum) == (0.9, 0.5) else 2)

    trials = Landscape("adam", lambda learning_rate, beta, momentum: measure(learning_rate, beta, momentum))
    start = trials.config
    trials.config = start.replace(momentum=0.5)
    tuned = _Search(trials, 1.0).run(0)
    assert tuned.chosen.coefficients == {"learning_rate": 3.16e-5, "beta": 0.9, "momentum": 0.5}
    assert {call["momentum"] for call in trials.calls} == {0.5, 0.9}
    assert {call["beta"] for call in trials.calls} == {0.5, 0.9, 0.99}
    for optimizer, names in (("gd", []), ("rprop", []), ("rmsprop", ["beta"]), ("momentum", ["momentum"])):
        trials = Landscape(optimizer, lambda learning_rate, **others: (1.0, 1.0 + learning_rate))
        _Search(trials, 1.0).run(0)
        assert all(list(call) == ["learning_rate", *names] for call in trials.calls)


def test_search_takes_the_most_successful_where_too_few_succeed():
    trials = Landscape("rprop", lambda learning_rate: (0.9 if 1e-3 <= learning_rate < 0.1 else 0.5, learning_rate))
    tuned = _Search(trials, 0.95).run(2)
    assert not tuned.reached and tuned.chosen.coefficients == {"learning_rate": 1e-3}
    assert _Search(trials, 0.9).run(0).reached


def test_settings_are_measured_as_said(tune, tiny_model, tiny_tokenizer, tiny_edits, pairs):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    tuned = tune(optimizer="scaled_gd", max_steps=3, num_sentences=None)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_model.state_dict().items())
    feasible = [tried for tried in tuned.tried if tried.success_rate >= 0.95]
    assert tuned.reached and tuned.chosen.kl == min(tried.kl for tried in feasible)
    assert 0 < min(tried.success_rate for tried in tuned.tried) < 1
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    for tried in (tuned.tried[0], tuned.chosen):
        losses, steps, kl, tokens = [], [], 0.0, 0
        for edit in tiny_edits.select(range(3)):
            overrides = {"optimizer": "scaled_gd", "max_steps": 3, **tried.coefficients}
            result = tiny_model.edit(**collator.edit_inputs(edit), **overrides)
            edited = copy.deepcopy(tiny_model)
            edited.load_state_dict(result.patch.tensors, strict=False)
            losses.append(result.loss)
            steps.append(result.steps)
            for pair in pairs:
                inputs = tiny_tokenizer(pair["source"], return_tensors="pt").input_ids
                labels = tiny_tokenizer(text_target=pair["target"], return_tensors="pt").input_ids
                with torch.no_grad():
                    old, new = (m(inputs, labels=labels).logits.log_softmax(-1) for m in (tiny_model, edited))
                kl += float((old.exp() * (old - new)).sum())
                tokens += labels.numel()
        assert tried.success_rate == sum(loss <= 0 for loss in losses) / 3
        assert tried.mean_loss == pytest.approx(sum(losses) / 3) and tried.mean_steps == sum(steps) / 3
        assert tried.kl == pytest.approx(kl / tokens, rel=1e-3) and tried.milliseconds_median > 0


@pytest.mark.parametrize("wrong", [1, 3])
def test_edits_that_are_not_finite_do_not_succeed(tune, tiny_model, monkeypatch, wrong):
    edit, calls = tiny_model.edit, []

    def sometimes(**arguments):
        calls.append(arguments)
        if len(calls) % 3 < wrong:
            raise NonFiniteEditError("NaN")
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", sometimes)
    tuned = tune(optimizer="rprop", max_steps=5)
    assert not tuned.reached and {tried.failed_edits for tried in tuned.tried} == {wrong}
    if wrong == 3:
        assert {(tried.success_rate, tried.kl, tried.mean_steps) for tried in tuned.tried} == {(0.0, None, None)}
    else:
        assert tuned.chosen.success_rate == 2 / 3 and tuned.chosen.kl > 0


def test_tuning_goes_on_where_it_ended(tune, tiny_model, tmp_path, monkeypatch):
    def untimed(tuned):
        values = tuned.to_dict()
        for tried in (values["chosen"], *values["tried"]):
            tried.pop("milliseconds_median")
        return values

    whole = tune(optimizer="rmsprop", max_steps=2)
    edit, calls = tiny_model.edit, []

    def interrupted(**arguments):
        calls.append(arguments)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(optimizer="rmsprop", max_steps=2, output_dir=tmp_path)
    assert len((tmp_path / TUNING_NAME).read_text().splitlines()) == 1 + 2
    calls[:] = [None] * 8
    resumed = tune(optimizer="rmsprop", max_steps=2, output_dir=tmp_path)
    assert untimed(resumed) == untimed(whole) and len(calls) - 8 == 3 * (len(whole.tried) - 2)
    monkeypatch.setattr(tiny_model, "edit", None)
    assert tune(optimizer="rmsprop", max_steps=2, output_dir=tmp_path).to_dict() == resumed.to_dict()
    for options, name in (
        ({"max_steps": 3}, "edit_config"),
        ({"num_edits": 2}, "edits"),
        ({"num_sentences": 3}, "sentences"),
    ):
        with pytest.raises(EditableValueError, match=f"{name} was .* and is now"):
            tune(**{"optimizer": "rmsprop", "max_steps": 2, "output_dir": tmp_path, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target_success": 0.0}, EditableValueError, "target_success=0.0: it must be above 0, and 1 at most"),
        ({"refinements": 3}, EditableValueError, "refinements=3: it must be 0, 1 or 2"),
        ({"seed": -1}, EditableValueError, "seed=-1"),
        ({"num_edits": 0}, EditableValueError, "number of rows to take=0"),
        ({"model": torch.nn.Linear(1, 1)}, EditableTypeError, r"A Linear has no edit\(\)"),
        ({"no_such_field": 1}, EditableTypeError, "EditConfig has no no_such_field"),
        ({"edits": datasets.Dataset.from_dict({"source": ["a"]})}, EditableValueError, "edits has 1 rows"),
        ({"sentences": datasets.Dataset.from_dict({"source": []})}, EditableValueError, "sentences has 0 rows"),
    ],
)
def test_bad_arguments_raise(tune, options, error, message):
    with pytest.raises(error, match=message):
        tune(**options)


def test_optimizer_variants():
    names = ["gd", "scaled_gd", "rprop", "rmsprop", "momentum", "adam"]
    assert optimizer_variants() == {name: {"optimizer": name} for name in names}
    assert optimizer_variants(["adam"]) == {"adam": {"optimizer": "adam"}}
    with pytest.raises(EditableValueError, match="There is no 'sgd' to compare, but gd, scaled_gd"):
        optimizer_variants(["adam", "sgd"])


def moved(model, fields):
    return set(Tail(model, EditConfig(**fields)).parameters)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_parts_of_a_layer_are_found_in_every_family(family):
    model = families.build(family)
    parts = ["last_self_attention", "last_cross_attention", "last_feed_forward"]
    if family == "t5gemma2":
        message = "have no cross-attention of their own: they hold self_attn.*Leave last_cross_attention out"
        with pytest.raises(EditableTypeError, match=message):
            parameter_variants(model)
        parts.remove("last_cross_attention")
    found = parameter_variants(model, [*parts, "layer_1", "layer_2", "layer_3", "last_two_layers", "all_layers"])
    names = {name: moved(model, fields) for name, fields in found.items()}
    layers = [names[f"layer_{number}"] for number in (1, 2, 3)]
    assert names["last_two_layers"] == layers[1] | layers[2] and names["all_layers"] == set.union(*layers)
    assert sum(map(len, layers)) == len(names["all_layers"]) > 0
    union = set.union(*(names[part] for part in parts))
    assert sum(len(names[part]) for part in parts) == len(union)
    # What is in none of them is norms; and each has what its name says.
    assert union <= layers[2] and all("norm" in name.lower() for name in layers[2] - union)
    assert all("att" in name.lower() for part in parts[:-1] for name in names[part])
    assert not any("att" in name.lower() for name in names["last_feed_forward"])
    if len(parts) == 3:
        crossing = ("cross", "encoder_att", "encdec")
        assert all(any(word in name.lower() for word in crossing) for name in names["last_cross_attention"])
        assert not any(any(word in name.lower() for word in crossing) for name in names["last_self_attention"])


@pytest.fixture
def compare(tiny_model, tiny_tokenizer, tiny_edits, pairs, tmp_path):
    """Compares two editors of the tiny model; arguments replace the fixture's."""

    def run(**options):
        arguments = {
            "variants": optimizer_variants(["rprop", "gd"]),
            "validation_edits": tiny_edits.select(range(2)),
            "validation_set": pairs.select(range(5)),
            "test_edits": tiny_edits.select(range(2, 5)),
            "test_set": pairs.select(range(5, 12)),
            "output_dir": tmp_path / "compared",
            "tuning": TuningSettings(refinements=0),
            **{"max_steps": 3, "num_beams": 2, "max_new_tokens": 6, "bleu_tokenize": "none"},
        }
        return compare_variants(tiny_model, tiny_tokenizer, **{**arguments, **options})

    return run


def test_comparison_measures_what_was_chosen(compare, tiny_model, tmp_path, monkeypatch):
    comparison = compare()
    assert [variant.name for variant in comparison.variants] == ["rprop", "gd"]
    for variant in comparison.variants:
        config = variant.summary["edit_config"]
        chosen = variant.tuned.chosen.coefficients
        assert (config["optimizer"], config["learning_rate"]) == (variant.name, chosen["learning_rate"])
        assert (variant.summary["num_edits"], variant.summary["num_test"], config["max_steps"]) == (3, 7, 3)
        assert EditReport.load(tmp_path / "compared" / variant.name).summary == variant.summary
        layer = tiny_model.model.decoder.layers[-1]
        assert variant.num_parameters == sum(tensor.numel() for tensor in layer.parameters())
    monkeypatch.setattr(tiny_model, "edit", None)  # a second call edits nothing
    again = compare(command="compare")
    values = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert again.to_dict() == values == Comparison.load(tmp_path / "compared").to_dict()
    assert values["variants"] == [variant.to_dict() for variant in comparison.variants]
    assert {"seed", "machine", "versions", "command"} < set(values["settings"])
    assert (tmp_path / "compared" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "compared" / "comparison.json").write_text("{}")
    with pytest.raises(EditableFileError, match="holds no whole comparison.json"):
        Comparison.load(tmp_path / "compared")


def test_table_names_those_that_missed(compare, tmp_path):
    comparison = compare(variants=optimizer_variants(["rprop", "gd"]))
    assert "\\*" not in comparison.markdown()
    missed = comparison.variants[1]
    missed.tuned.reached = False
    missed.tuned.chosen = setting({"learning_rate": 0.0316, "beta": 0.9}, 0.5, None)
    missed.summary.update(drawdown=1.234, drawdown_interval=[0.5, 2.0], mean_steps=None)
    lines = comparison.markdown().splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    cells = lines[3].split(" | ")
    assert cells[2:6] == ["α = 0.0316, β = 0.9", "50.0% \\*", "–", "1.23 [0.50, 2.00]"] and "–" in cells[8]
    assert "\\* No setting reached 95%; the most successful one: gd." in comparison.markdown()
    plot_comparison(comparison, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()


def test_no_picture_without_matplotlib(compare, tmp_path, monkeypatch):
    comparison = compare(variants=optimizer_variants(["gd"]))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    warnings = []
    monkeypatch.setattr("hf_editable.reporting.drawing.logger.warning", warnings.append)
    comparison.save(tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["comparison.json", "table.md"]
    assert len(warnings) == 1 and "pip install hf_editable[plots]" in warnings[0]


def test_what_is_measured_is_not_tuned_with(compare, tiny_edits, tmp_path):
    with pytest.raises(EditableValueError, match="1 sources are among the validation edits and the test edits, such"):
        compare(validation_edits=tiny_edits.select(range(3)))
    with pytest.raises(EditableValueError, match="There is nothing to compare"):
        compare(variants={})
    assert not (tmp_path / "compared").exists()


@pytest.fixture
def argv(tiny_model, tiny_tokenizer, tiny_edits, pairs, tmp_path):
    """Options of the commands, on tiny data."""
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_edits.select(range(2)).save_to_disk(tmp_path / "validation_edits")
    tiny_edits.select(range(2, 6)).save_to_disk(tmp_path / "test_edits")
    splits = {"validation": pairs.select(range(5)), "test": pairs.select(range(5, 12))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    options = {"validation_edits_dir": tmp_path / "validation_edits", "test_edits_dir": tmp_path / "test_edits"}
    options |= {"model_name_or_path": tmp_path / "model", "data_dir": tmp_path / "data"}
    options |= {"num_edits": 2, "num_beams": 1, "max_steps": 1, "max_new_tokens": 6, "refinements": 0}
    options |= {"num_validation_edits": 1, "num_validation_sentences": 2, "num_test": 3}
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def test_commands(argv, tmp_path, capsys):
    out = tmp_path / "editors"
    assert compare_optimizers.main([*argv, "--output_dir", str(out), "--names", "rmsprop", "adam"]) == 0
    table = capsys.readouterr().out
    assert table == (out / "table.md").read_text() and "| adam |" in table and "--names rmsprop adam" in table
    variants = Comparison.load(out).variants
    assert [variant.overrides for variant in variants] == [{"optimizer": "rmsprop"}, {"optimizer": "adam"}]
    assert set(variants[1].tuned.chosen.coefficients) == {"learning_rate", "beta", "momentum"}
    out = tmp_path / "parameters"
    assert compare_parameters.main([*argv, "--output_dir", str(out), "--optimizer", "rprop"]) == 0
    table = capsys.readouterr().out
    names = ["layer_1", "layer_2", "last_self_attention", "last_cross_attention", "last_feed_forward", "all_layers"]
    variants = Comparison.load(out).variants
    assert [variant.name for variant in variants] == names and "| last self attention |" in table
    assert {variant.summary["edit_config"]["optimizer"] for variant in variants} == {"rprop"}
    sizes = [variant.num_parameters for variant in variants]
    assert sizes[0] == sizes[1] == sizes[5] / 2 > sizes[2] == sizes[3]
    # Each was measured with its own parameters.
    assert len({variant.summary["kl"] for variant in variants}) == len(variants)
    assert {variant.summary["num_edits"] for variant in variants} == {2}


@pytest.mark.parametrize("command", [compare_optimizers.main, compare_parameters.main])
def test_commands_refuse_to_measure_what_they_tune_with(command, argv, tmp_path, capsys):
    out = ["--output_dir", str(tmp_path / "out")]
    for options, message in (
        (["--test_edits_dir", str(tmp_path / "test_edits" / ".." / "validation_edits")], "are both"),
        (["--test_split", "validation"], "--validation_split and --test_split are both 'validation'"),
        (["--names", "nothing"], "There is no 'nothing' to compare"),
    ):
        assert command([*argv, *out, *options]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
