import copy
import json
import sys

import datasets
import numpy as np
import pytest
import sacrebleu
import torch

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableError,
    EditableFileError,
    EditableTypeError,
    EditableValueError,
    EditReport,
    NonFiniteEditError,
    evaluate_edits,
)
from hf_editable.decoding.recorded import RecordedDecoding
from hf_editable.evaluation import format_table, plot_drawdown
from hf_editable.evaluation import single_edits as drawdown
from hf_editable.evaluation.test_set import EncodedTestSet
from hf_editable.measures.corpus_scores import CorpusBleu, CorpusChrf
from hf_editable.measures.statistics import bootstrap_interval
from hf_editable.reporting.edit_report import drawdown_range


TIMES = ("milliseconds", "milliseconds_mean", "milliseconds_median", "record")
OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none"}


@pytest.fixture(scope="module")
def test_set(tiny_pairs):
    """Eight pairs of different lengths."""
    return datasets.Dataset.from_list(
        [
            {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
            for index, pair in enumerate(tiny_pairs[:8])
        ]
    )


@pytest.fixture
def evaluate(tiny_model, tiny_tokenizer, tiny_edits, test_set):
    """Evaluates three edits of the tiny model; arguments replace the fixture's."""

    def run(**options):
        arguments = {"model": tiny_model, "tokenizer": tiny_tokenizer, "edits": tiny_edits.select(range(3))}
        return evaluate_edits(**{**arguments, "test_set": test_set, **OPTIONS, **options})

    return run


def untimed(report):
    """The report without what differs from run to run."""
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in report.rows]
    return {key: value for key, value in report.summary.items() if key not in TIMES}, rows


def test_kept_counts_give_the_bleu_of_sacrebleu():
    references = ["The dog sees the ball .", "A man buys a car .", "trees grow", "the table is red ."]
    first = ["the dog sees the ball .", "A man buys the car .", "trees", ""]
    second = ["The dog sees a ball .", "A man buys the car .", "trees grow", "the table is red !"]
    for tokenize, lowercase in (("none", False), ("13a", True)):
        bleu = CorpusBleu(references, first, tokenize, lowercase)
        options = {"tokenize": tokenize, "lowercase": lowercase, "force": True}
        assert bleu.score == sacrebleu.corpus_bleu(first, [references], **options).score
        assert bleu.score_of(second) == sacrebleu.corpus_bleu(second, [references], **options).score
        assert bleu.changed(second) == [0, 2, 3]
        metric = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase)
        metric.corpus_score(first, [references])
        assert bleu.signature == str(metric.get_signature())
    for lowercase in (False, True):
        chrf = CorpusChrf(references, first, lowercase)
        metric = sacrebleu.CHRF(lowercase=lowercase)
        assert chrf.score == metric.corpus_score(first, [references]).score
        assert chrf.score_of(second) == metric.corpus_score(second, [references]).score
        assert chrf.signature == str(metric.get_signature())
    with pytest.raises(EditableValueError, match="bleu_tokenize='moses': choose one of"):
        CorpusBleu(references, first, "moses")


def plain_evaluation(model, tokenizer, edit, test_set):
    """BLEU, texts and token-averaged KL of one edit by the longest way: one sentence at a time, on a copied model."""

    def translate(translator, source):
        inputs = tokenizer(source, return_tensors="pt").input_ids
        output = translator.generate(inputs, num_beams=2, max_new_tokens=8)
        return tokenizer.decode(output[0], skip_special_tokens=True)

    tensors = DataCollatorForEditableSeq2Seq(tokenizer, model).collate_edits([edit])
    result = model.edit(**{name.removeprefix("edit_"): tensor for name, tensor in tensors.items()})
    edited = copy.deepcopy(model)
    edited.load_state_dict(result.patch.tensors, strict=False)
    texts = [translate(edited, row["source"]) for row in test_set]
    kl, tokens = 0.0, 0
    for row in test_set:
        inputs = tokenizer(row["source"], return_tensors="pt").input_ids
        labels = tokenizer(text_target=row["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            before, after = (m(input_ids=inputs, labels=labels).logits.log_softmax(-1) for m in (model, edited))
        kl += float((before.exp() * (before - after)).sum())
        tokens += labels.numel()
    bleu = sacrebleu.corpus_bleu(texts, [test_set["target"][:]], tokenize="none").score
    return {
        "result": result,
        "texts": texts,
        "bleu": bleu,
        "chrf": sacrebleu.corpus_chrf(texts, [test_set["target"][:]]).score,
        "kl": kl / tokens,
        "decoded": translate(edited, edit["source"]),
    }


def test_rows_equal_a_plain_evaluation(evaluate, tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    report = evaluate(output_dir=tmp_path)
    _, *lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    changes = {row["index"]: row["changes"] for row in map(json.loads, lines)}
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_model.state_dict().items())
    unedited = [
        tiny_tokenizer.decode(
            tiny_model.generate(tiny_tokenizer(source, return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8)[
                0
            ],
            skip_special_tokens=True,
        )
        for source in test_set["source"]
    ]
    base = sacrebleu.corpus_bleu(unedited, [test_set["target"][:]], tokenize="none").score
    assert report.summary["bleu"] == base
    base_chrf = sacrebleu.corpus_chrf(unedited, [test_set["target"][:]]).score
    assert report.summary["chrf"] == base_chrf
    assert sum(row["changed"] for row in report.rows) > 0
    for row, edit in zip(report.rows, tiny_edits, strict=False):
        plain = plain_evaluation(tiny_model, tiny_tokenizer, edit, test_set)
        result = plain["result"]
        assert (row["success"], row["steps"], row["loss"]) == (result.success, result.steps, result.loss)
        assert (row["initial_loss"], row["source"], row["target"]) == (
            result.initial_loss,
            edit["source"],
            edit["target"],
        )
        assert (row["bleu"], row["drawdown"], row["decoded"]) == (
            plain["bleu"],
            base - plain["bleu"],
            plain["decoded"],
        )
        pairs = list(zip(unedited, plain["texts"], strict=True))
        expected = [[index, old, new] for index, (old, new) in enumerate(pairs) if old != new]
        assert changes[row["index"]] == expected and row["changed"] == len(expected) and "changes" not in row
        assert (row["chrf"], row["chrf_drawdown"]) == (plain["chrf"], base_chrf - plain["chrf"])
        assert row["kl"] == pytest.approx(plain["kl"], rel=1e-4)
        assert row["decode_success"] == (plain["decoded"] == edit["target"]) and row["milliseconds"] > 0


def test_summary_sums_the_rows_up(evaluate, tiny_model):
    report = evaluate(learning_rate=0.1, max_steps=3, name="tiny")
    summary = report.summary
    drawdowns = [row["drawdown"] for row in report.rows]
    assert summary["drawdown"] == pytest.approx(np.mean(drawdowns))
    assert summary["drawdown_interval"] is summary["drawdown_interval_with_sentences"] is None  # of three edits
    assert summary["mean_absolute_difference"] == pytest.approx(np.mean(np.abs(drawdowns)))
    assert summary["changed_rate"] == pytest.approx(np.mean([row["changed"] for row in report.rows]) / 8)
    assert summary["mean_steps"] == pytest.approx(np.mean([row["steps"] for row in report.rows]))
    assert summary["edit_config"]["learning_rate"] == 0.1 and summary["success_rate"] == 1.0
    # One of the three edits holds before it is made; the steps of the others are too small.
    assert [row["steps"] - row["success"] for row in evaluate(learning_rate=1e-6, max_steps=1).rows].count(1) == 2
    assert summary["length_penalty"] == 1.0 and evaluate(length_penalty=0.0).summary["length_penalty"] == 0.0
    assert (summary["num_edits"], summary["num_test"], summary["failed_edits"]) == (3, 8, 0)


def test_a_table_changes_the_sentences_that_it_has(evaluate, tiny_edits, test_set):
    edits = datasets.Dataset.from_list([{**tiny_edits[0], "source": test_set[3]["source"], "target": "the tree"}])
    for options in ({}, {"verify": 8}, {"record_gigabytes": 0}):
        report = evaluate(edits=edits, editor="cache", **options)
        (row,) = report.rows
        assert (row["changed"], row["decoded"], row["decode_success"], row["kl"]) == (1, "the tree", True, 0.0)
        assert row["chrf_drawdown"] != 0.0 and row["steps"] == 0


def test_decode_success_is_seen(evaluate, tiny_model, tiny_tokenizer, tiny_edits):
    edit = tiny_edits[0]
    output = tiny_model.generate(
        tiny_tokenizer(edit["source"], return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8
    )
    said = tiny_tokenizer.decode(output[0], skip_special_tokens=True)
    # What the model says already outranks the least likely of these, so the edit takes no step.
    report = evaluate(edits=datasets.Dataset.from_list([{**edit, "target": said, "alternatives": ["the the the"]}]))
    assert (report.rows[0]["decode_success"], report.rows[0]["steps"], report.rows[0]["changed"]) == (True, 0, 0)
    assert report.summary["decode_success_rate"] == 1.0 and report.rows[0]["kl"] == 0.0


def test_edits_that_are_not_finite_count_as_failures(evaluate, tiny_model, monkeypatch):
    edit = tiny_model.edit
    calls = []

    def sometimes(**arguments):
        calls.append(arguments)
        if len(calls) == 2:  # the first is the warm-up
            raise NonFiniteEditError("NaN")
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", sometimes)
    report = evaluate()
    failed = report.rows[0]
    assert [row["failed"] for row in report.rows] == [True, False, False] and report.summary["failed_edits"] == 1
    assert (failed["success"], failed["drawdown"], failed["changed"], failed["kl"], failed["steps"]) == (
        False,
        0.0,
        0,
        0.0,
        None,
    )
    assert report.summary["mean_steps"] == np.mean([row["steps"] for row in report.rows[1:]])


def test_resumed_equals_uninterrupted(evaluate, tiny_model, tmp_path, monkeypatch):
    whole = evaluate(num_test=5)
    edit, calls = tiny_model.edit, []

    def interrupted(**arguments):
        calls.append(arguments)
        if len(calls) == 4:  # the warm-up, two edits, and one too many
            raise KeyboardInterrupt
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(num_test=5, output_dir=tmp_path)
    rows = tmp_path / drawdown.ROWS_NAME
    rows.write_bytes(rows.read_bytes()[:-9])
    calls.clear()
    resumed = evaluate(num_test=5, output_dir=tmp_path)
    assert len(calls) == 3  # the warm-up, the edit whose line was torn, and the last
    assert untimed(resumed) == untimed(whole)
    monkeypatch.setattr(tiny_model, "edit", None)
    assert evaluate(num_test=5, output_dir=tmp_path).to_dict() == resumed.to_dict()
    with pytest.raises(EditableValueError, match="num_beams was 2 and is now 3; test_set was"):
        evaluate(num_beams=3, output_dir=tmp_path)


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    low, high = bootstrap_interval(values, seed=1)
    # The normal approximation: the mean ± 1.96 standard errors.
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.01) and high == pytest.approx(
        values.mean() + error, abs=0.01
    )
    assert bootstrap_interval(values, seed=1) == [low, high] != bootstrap_interval(values, seed=2)
    assert bootstrap_interval([0.5] * 20) == [0.5, 0.5]


def test_report_round_trip_table_and_picture(evaluate, tmp_path):
    report = evaluate(name="a|b", output_dir=tmp_path / "out")
    assert (
        EditReport.load(tmp_path / "out") == EditReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    )
    report.summary.update(
        bleu=34.768, drawdown=0.756, drawdown_interval=[0.5, 1.019], success_rate=1.0, decode_success_rate=0.125
    )
    report.summary.update(mean_steps=2.349, milliseconds_median=41.6, changed_rate=0.3333, kl=0.01234)
    table = format_table([report, report]).splitlines()
    assert table[0].split(" | ")[1:3] == ["BLEU", "Drawdown [95 %]"] and len(table) == 4
    assert table[2] == "| a\\|b | 34.77 | 0.76 [0.50, 1.02] | 100.0% | 12.5% | 2.35 | 42 | 33.3% | 0.0123 |"
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert report.summary["bleu_signature"] in markdown and "transformers" in markdown
    plot_drawdown([report] * 2, tmp_path / "two.png")
    plot_drawdown([report] * 4, tmp_path / "four.png")
    pictures = [(tmp_path / name).read_bytes() for name in ("two.png", "four.png", "out/drawdown.png")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    heights = [int.from_bytes(picture[20:24]) for picture in pictures]
    assert heights[1] < heights[2] < heights[0]  # four have marks in place of histograms


def test_no_picture_without_matplotlib(evaluate, tmp_path, monkeypatch):
    report = evaluate(num_edits=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    warnings = []
    monkeypatch.setattr("hf_editable.reporting.drawing.logger.warning", warnings.append)
    report.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert len(warnings) == 1 and "pip install hf_editable[plots]" in warnings[0]


@pytest.mark.parametrize("draw", [format_table, lambda reports: plot_drawdown(reports, "unused.png")])
def test_nothing_to_show_raises(draw):
    with pytest.raises(EditableValueError, match="There is no report"):
        draw([])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_beams": 0}, EditableValueError, "num_beams=0"),
        ({"seed": -1}, EditableValueError, "seed=-1: it must be a whole number, 0 or more"),
        ({"num_edits": -1}, EditableValueError, "number of rows to take=-1"),
        ({"model": torch.nn.Linear(1, 1)}, EditableTypeError, r"A Linear has no edit\(\)"),
        ({"no_such_field": 1}, EditableTypeError, "EditConfig has no no_such_field"),
        (
            {"edits": datasets.Dataset.from_dict({"source": ["a"]})},
            EditableValueError,
            r"edits has 1 rows of .*\['source'\]",
        ),
        (
            {"test_set": datasets.Dataset.from_dict({"source": [], "target": []})},
            EditableValueError,
            "test_set has 0 rows",
        ),
        (
            {"test_set": datasets.Dataset.from_dict({"source": ["hund " * 40], "target": ["dog"]})},
            EditableValueError,
            "more than the 32 tokens",
        ),
    ],
)
def test_bad_arguments_raise(evaluate, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(**options)


def test_unusable_folders_raise(evaluate, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EditableFileError, match="is a file"):
        evaluate(output_dir=tmp_path / "file")
    with pytest.raises(EditableFileError, match=r"holds no whole report\.json"):
        EditReport.load(tmp_path)


def test_a_few_large_drawdowns_do_not_take_the_whole_picture():
    many = np.linspace(-0.5, 1.5, 100)
    assert drawdown_range(many) == (-0.5, 1.5, 1.5)
    low, most, high = drawdown_range(np.append(many, 23.0))
    assert (low, most) == (-0.5, 23.0) and 1.4 < high < 2
    assert drawdown_range(np.zeros(3)) == (0.0, 0.0, 0.01)


def test_the_record_changes_nothing_but_the_time(evaluate, monkeypatch):
    recorded = evaluate(verify=3)
    plain = evaluate(record_gigabytes=0)
    assert recorded.summary["record"]["sentences"] == 8 and plain.summary["record"] is None
    assert untimed(recorded)[0].keys() == untimed(plain)[0].keys()
    for row, expected in zip(untimed(recorded)[1], untimed(plain)[1], strict=True):
        assert row == {**expected, "loss": pytest.approx(expected["loss"])}
    translate = RecordedDecoding.translate

    def wrong(self):
        return {index: ids if index else [2, *reversed(ids)] for index, ids in translate(self).items()}

    evaluate(verify=8)
    test_set = EncodedTestSet.record

    def then_wrong(self, *args, **options):
        result = test_set(self, *args, **options)
        monkeypatch.setattr(RecordedDecoding, "translate", wrong)
        return result

    monkeypatch.setattr(EncodedTestSet, "record", then_wrong)
    with pytest.raises(EditableError, match="From the record, sentence 0 is translated as"):
        evaluate(verify=8)
    with pytest.raises(EditableValueError, match="verify=-1"):
        evaluate(verify=-1)
    with pytest.raises(EditableValueError, match="record_gigabytes=-1"):
        evaluate(record_gigabytes=-1)


def test_intervals_over_sentences(evaluate, monkeypatch):
    for place in ("statistics", "corpus_scores"):
        monkeypatch.setattr(f"hf_editable.measures.{place}.LEAST_RESAMPLED", 3)
    report = evaluate()
    for row in report.rows:
        low, high = row["drawdown_interval"]
        assert low <= row["drawdown"] <= high or not row["changed"]
        assert (low == high == 0) == (row["changed"] == 0)
    assert report.summary["drawdown_interval"] == bootstrap_interval([row["drawdown"] for row in report.rows])
    low, high = report.summary["drawdown_interval_with_sentences"]
    over_edits = report.summary["drawdown_interval"]
    assert low < over_edits[0] and over_edits[1] < high  # sentences add to the uncertainty
