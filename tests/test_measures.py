"""Measures: what is registered is in rows, summaries, tables and cards, and is gone once it is not."""

import json
import statistics

import datasets
import pytest
import sacrebleu
from huggingface_hub import ModelCard

from hf_editable import EditableTypeError, EditableValueError, EditReport, NonFiniteEditError, evaluate_edits
from hf_editable.evaluation import (
    SequenceReport,
    TuningSettings,
    compare_variants,
    edit_sequence,
    format_table,
    optimizer_variants,
)
from hf_editable.measures import (
    Column,
    CorpusMeasure,
    CorpusScore,
    Measure,
    Observation,
    ScoredTestSet,
    all_measures,
    register_measure,
    unregister_measure,
)
from hf_editable.measures.edit_measures import BUILT_IN, KL
from hf_editable.measures.registry import values_of
from hf_editable.measures.statistics import bootstrap_interval


OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none"}
COLUMNS = "| Model | BLEU | Drawdown [95 %] | Success | Decode success | Steps | ms per edit | Changed | KL |"


class LengthRatio(Measure):
    """How much longer the translations that an edit changes become."""

    name = "length_ratio"
    unit = "times"
    greater_is_better = False
    heading = "Length"
    form = ".3f"

    def value(self, seen):
        ratios = [len(new) / max(1, len(old)) for _, old, new in seen.changes]
        return statistics.fmean(ratios) if ratios else None


class Ter(CorpusMeasure):
    """Translation edit rate."""

    name = "ter"
    heading = "TER"
    greater_is_better = False

    def corpus_score(self, before):
        return CorpusScore(sacrebleu.TER(references=[before.references]), before.translations)


@pytest.fixture
def registered():
    """Registers measures for the test alone."""
    known = {measure.name for measure in all_measures()}
    yield lambda *measures: [register_measure(measure) for measure in measures]
    for measure in all_measures():
        if measure.name not in known:
            unregister_measure(measure.name)


@pytest.fixture(scope="module")
def test_set(tiny_pairs):
    return datasets.Dataset.from_list(tiny_pairs[:7])


@pytest.fixture
def evaluate(tiny_model, tiny_tokenizer, tiny_edits, test_set):
    """Evaluates three edits of the tiny model; arguments replace the fixture's."""

    def run(**options):
        return evaluate_edits(tiny_model, tiny_tokenizer, tiny_edits.select(range(3)), test_set, **OPTIONS, **options)

    return run


def untimed(report):
    times = ("milliseconds", "milliseconds_median", "milliseconds_mean")
    rows = [{key: value for key, value in row.items() if key not in times} for row in report.rows]
    return {key: value for key, value in report.summary.items() if key not in times}, rows


def test_a_registered_measure_is_everywhere_and_gone_after_it(evaluate, registered, tiny_model, tmp_path):
    without = evaluate(name="tiny")
    registered(LengthRatio())
    report = evaluate(name="tiny", output_dir=tmp_path / "out")
    # In the rows, from what the journal says of each edit's changes.
    _, *journal = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    ratios = [[len(new) / len(old) for _, old, new in row["changes"]] for row in journal]
    expected = [statistics.fmean(each) if each else None for each in ratios]
    assert [row["length_ratio"] for row in report.rows] == expected and len(set(expected)) == 3
    # In the summary, and in JSON.
    loaded = EditReport.load(tmp_path / "out")
    known = [value for value in expected if value is not None]
    mean = statistics.fmean(known)
    assert (loaded.summary["length_ratio"], loaded.summary["length_ratio_interval"]) == (mean, None)
    summary = LengthRatio().summary(report.rows * 20)
    interval = summary["length_ratio_interval"]
    assert interval == bootstrap_interval(known * 20) and interval[0] < mean < interval[1]
    cell = LengthRatio().column.cell(summary)
    assert cell == f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    # In the table, after all others, and explained below it.
    header, _, row = format_table([report]).splitlines()
    assert header == f"{COLUMNS} Length [95 %] |"
    assert row.endswith(f"| {mean:.3f} |")  # three edits have no interval
    explained = "- Length: mean over edits, in times, lower is better.\n"
    assert explained in (tmp_path / "out" / "report.md").read_text()
    # In the card.
    tiny_model.save_pretrained(tmp_path / "model", report=report)
    text = (tmp_path / "model" / "README.md").read_text()
    (metric,) = [each for each in ModelCard(text).data.eval_results if each.metric_type == "edit_length_ratio"]
    assert (metric.metric_name, metric.metric_value) == ("Length, mean over edits", pytest.approx(mean))
    assert row in text
    # Nothing else is other than without it.
    own = ("length_ratio", "length_ratio_interval")
    rest = [{key: value for key, value in row.items() if key not in own} for row in untimed(report)[1]]
    assert ({key: value for key, value in untimed(report)[0].items() if key not in own}, rest) == untimed(without)

    unregister_measure("length_ratio")
    assert untimed(evaluate(name="tiny")) == untimed(without)
    assert format_table([report]).splitlines()[0] == COLUMNS and explained not in report.markdown()
    assert report.card()["metrics"].keys() == without.card()["metrics"].keys()
    assert "edit_length_ratio" not in report.card()["metrics"]


def test_a_report_without_a_measure_has_a_dash_and_none_has_no_column(evaluate, registered):
    without = evaluate()
    registered(LengthRatio())
    assert format_table([without]).splitlines()[0] == COLUMNS
    assert without.card()["metrics"].keys().isdisjoint({"edit_length_ratio"})
    rows = format_table([without, evaluate()]).splitlines()[2:]
    assert rows[0].endswith(" | – |") and not rows[1].endswith(" | – |")


def test_an_edit_that_has_no_value_does_not_count(evaluate, registered, tiny_model, monkeypatch):
    registered(LengthRatio())
    edit, calls = tiny_model.edit, []

    def sometimes(**arguments):
        calls.append(arguments)
        if len(calls) == 2:  # the first is the warm-up
            raise NonFiniteEditError("NaN")
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", sometimes)
    report = evaluate()
    values = {row["index"]: row["length_ratio"] for row in report.rows}
    assert report.rows[0]["failed"] and values[0] is None and values[1] is not None
    known = [value for value in values.values() if value is not None]
    assert report.summary["length_ratio"] == statistics.fmean(known)


def test_without_any_value_there_is_none(registered):
    measure = LengthRatio()
    assert measure.summary([{"length_ratio": None}]) == {"length_ratio": None, "length_ratio_interval": None}
    assert measure.column.cell(measure.summary([{"length_ratio": None}])) == "–"


def test_a_corpus_score_is_in_evaluations_and_sequences(
    evaluate, registered, tiny_model, tiny_tokenizer, tiny_edits, test_set
):
    registered(Ter())
    report = evaluate()
    assert report.summary["ter_signature"].startswith("nrefs:1|") and report.summary["ter"] > 0
    assert {row["ter"] for row in report.rows} != {report.summary["ter"]}
    assert format_table([report]).splitlines()[0] == f"{COLUMNS} TER |"
    edits = tiny_edits.select(range(2))
    sequence = edit_sequence(tiny_model, tiny_tokenizer, edits, test_set, counts=[1], **OPTIONS)
    first, second, _ = sequence.summary["points"]
    assert (first["ter"], sequence.summary["ter_signature"]) == (
        report.summary["ter"],
        report.summary["ter_signature"],
    )
    assert second["ter"] in [row["ter"] for row in report.rows]
    header, _, row, *_ = SequenceReport.table([sequence]).splitlines()
    assert header == "| Model | Edits | BLEU | chrF | TER | Changed | Made | Hold | Decoded |"
    assert row.split(" | ")[4] == f"{first['ter']:.2f}"


def test_a_comparison_has_its_column(registered, tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    registered(LengthRatio())
    data = {"validation_edits": tiny_edits.select([0]), "validation_set": test_set, "test_set": test_set}
    options = {**data, "test_edits": tiny_edits.select([1, 2]), "output_dir": tmp_path, **OPTIONS}
    options |= {"tuning": TuningSettings(refinements=0)}
    comparison = compare_variants(tiny_model, tiny_tokenizer, optimizer_variants(["gd"]), max_steps=2, **options)
    last = [line.split(" | ")[-1] for line in comparison.markdown().splitlines()[:3]]
    assert last[0] == "Length [95 %] |" and last[2] == f"{LengthRatio().column.cell(comparison.variants[0].summary)} |"
    unregister_measure("length_ratio")
    assert comparison.markdown().splitlines()[0].endswith("| KL | ms per edit |")


def test_runs_go_on_with_the_same_measures_only(evaluate, registered, tmp_path):
    plain, added = tmp_path / "plain", tmp_path / "added"
    evaluate(output_dir=plain)
    assert "measures" not in json.loads((plain / "rows.jsonl").read_text().splitlines()[0])["arguments"]
    registered(LengthRatio())
    first = evaluate(output_dir=added)
    assert evaluate(output_dir=added).to_dict() == first.to_dict()
    with pytest.raises(EditableValueError, match=r"measures was None and is now {'length_ratio': {}}"):
        evaluate(output_dir=plain)
    unregister_measure("length_ratio")
    other = LengthRatio()
    other.arguments = {"of": "words"}
    registered(other)
    with pytest.raises(EditableValueError, match=r"{'length_ratio': {}} and is now {'length_ratio': {'of': 'words'}}"):
        evaluate(output_dir=added)


def named(name, **attributes):
    return type("Named", (Measure,), {"name": name, "value": lambda self, seen: 1.0, **attributes})()


@pytest.mark.parametrize(
    ("measure", "error", "message"),
    [
        (LengthRatio, EditableTypeError, "the class .*LengthRatio.* is no measure; give an instance"),
        (len, EditableTypeError, "a builtin_function_or_method: .* is no measure"),
        (Measure(), EditableValueError, "None is no name of a measure"),
        (named("two words"), EditableValueError, "'two words' is no name of a measure"),
        (named("drawdown"), EditableValueError, "The rows of reports have 'drawdown' already"),
        (named("changes"), EditableValueError, "The rows of reports have 'changes' already"),
        (named("own", key="num_test"), EditableValueError, "Summaries of reports have 'num_test' already"),
        (named("own", key="success_rate"), EditableValueError, "Summaries of reports have 'success_rate' already"),
    ],
)
def test_what_cannot_be_registered(measure, error, message, registered):
    with pytest.raises(error, match=message):
        registered(measure)
    assert all_measures() == list(BUILT_IN)


def test_a_name_is_taken_once_and_given_back_once(registered):
    measure = LengthRatio()
    registered(measure, measure)
    with pytest.raises(EditableValueError, match="The rows of reports have 'length_ratio' already"):
        registered(LengthRatio())
    unregister_measure("length_ratio")
    for name in ("length_ratio", "kl"):
        with pytest.raises(EditableValueError, match=f"No measure '{name}' was registered, but none"):
            unregister_measure(name)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"own": {1, 2}}, EditableTypeError, r"The measure 'own' gives .* JSON cannot hold .* float\(value\)"),
        ({"own": 1.0, "kl": 2.0}, EditableValueError, "The measure 'own' gives kl, which are there already"),
        ({"own": 1.0, "loss": 2.0}, EditableValueError, "The measure 'own' gives loss, which are there already"),
    ],
)
def test_bad_values_name_their_measure(values, error, message, evaluate, registered):
    registered(named("own", values=lambda self, seen: values))
    with pytest.raises(error, match=message):
        evaluate()


def test_a_bad_summary_names_its_measure(evaluate, registered, tmp_path):
    registered(named("own", summary=lambda self, rows, seed, before: {"own": 1.0, "machine": "mine"}))
    with pytest.raises(EditableValueError, match="The measure 'own' gives machine, which are there already"):
        evaluate(output_dir=tmp_path)
    unregister_measure("own")
    registered(named("own"))
    assert evaluate(output_dir=tmp_path).summary["own"] == 1.0  # from the rows that were kept


def test_nothing_is_computed_twice_or_unasked(monkeypatch):
    asked, scored, counted = [], [], []
    before = ScoredTestSet(["a", "b"], ["x y", "y"], ["x y", "y"], "none")
    seen = Observation({"target": "t"}, None, 1.0, None, before, ["x y", "z"], lambda: asked.append(1) or 0.5)
    assert asked == [] and KL.value(seen) == KL.value(seen) == 0.5 and asked == [1]
    score_of = CorpusScore.score_of
    monkeypatch.setattr(
        CorpusScore, "score_of", lambda self, texts: scored.append(type(self).__name__) or score_of(self, texts)
    )
    count = CorpusScore._count
    monkeypatch.setattr(CorpusScore, "_count", lambda self, *args: counted.append(args) or count(self, *args))
    row = values_of(seen)
    # Both scores of two translations before the edit, and of the one that it changed, which the interval counts too.
    assert len(counted) == 7
    assert sorted(scored) == ["CorpusBleu", "CorpusChrf"] and asked == [1]
    assert row["chrf_drawdown"] == 100.0 - row["chrf"] > 0 and row["changed"] == 1
    assert seen.changes == [(1, "y", "z")] and sorted(before.scorers) == ["bleu", "chrf"]


def test_cells():
    summary = {"a": 1.2345, "a_interval": [1.0, 2.0], "b": 0.5, "c": None}
    cells = [
        Column("A", "a", ".1f", True),
        Column("A", "a"),
        Column("B", "b", ".0%"),
        Column("C", "c"),
        Column("D", "d"),
    ]
    assert [column.cell(summary) for column in cells] == ["1.2 [1.0, 2.0]", "1.23", "50%", "–", "–"]


def test_defaults_of_a_measure():
    measure = named("own_measure")
    assert measure.column == Column("Own measure [95 %]", "own_measure", ".2f", True)
    assert measure.card({"own_measure": 3.0}) == {"edit_own_measure": ("Own measure, mean over edits", 3.0)}
    assert measure.facts({}) == ["Own measure: mean over edits."]
    hidden = named("own", in_table=False, in_card=False, interval=False, key="own_rate", greater_is_better=True)
    assert (hidden.column, hidden.card({"own_rate": 1.0})) == (None, {})
    assert hidden.summary([{"own": 1}, {"own": 0}]) == {"own_rate": 0.5}
    assert hidden.facts({}) == ["Own: mean over edits, higher is better."]
    with pytest.raises(NotImplementedError, match=r"Measure has no value\(\)"):
        Measure().value(None)
    with pytest.raises(NotImplementedError, match=r"CorpusMeasure has no corpus_score\(\)"):
        CorpusMeasure().corpus_score(None)
