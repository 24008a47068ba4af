"""Edits on top of each other."""

import copy
import json

import datasets
import pytest
import sacrebleu
import torch

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableFileError,
    EditableMixin,
    EditableTypeError,
    EditableValueError,
)
from hf_editable.cli.commands.edit_sequence import main
from hf_editable.editors import Editor, EditOutcome, register_editor, unregister_editor
from hf_editable.editors.problems.constraint import constraint_value
from hf_editable.evaluation import SequenceReport, edit_sequence
from hf_editable.patches.changes import LowRank


LOW_RANK = {"editor": "low_rank"}
OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none", "counts": [1, 3]}


class AddsLowRank(Editor):
    """Adds a matrix of rank one at random to one of the edited ones, another for each edit."""

    def forward(self, problem, create_graph=False):
        name = sorted(name for name in self.moved(problem.model) if name.endswith("fc1.weight"))[0]
        shape = dict(problem.model.named_parameters())[name].shape
        generator = torch.Generator().manual_seed(int(problem.edits[0]["labels"].sum()))
        change = LowRank(name, *(torch.randn(size, 1, generator=generator) for size in shape))
        loss = constraint_value(problem.model, problem.edits, problem.length_penalty)
        return EditOutcome({}, torch.tensor(loss), loss, 1, (change,))


@pytest.fixture(autouse=True)
def low_rank():
    register_editor("low_rank", None, AddsLowRank)
    yield
    unregister_editor("low_rank")


@pytest.fixture(scope="module")
def test_set(tiny_pairs):
    """Six pairs of different lengths."""
    rows = [
        {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
        for index, pair in enumerate(tiny_pairs[:6])
    ]
    return datasets.Dataset.from_list(rows)


@pytest.fixture
def sequence(tiny_model, tiny_tokenizer, tiny_edits, test_set):
    """Makes four edits on top of each other; arguments replace the fixture's."""

    def run(**options):
        arguments = {"model": tiny_model, "tokenizer": tiny_tokenizer, "edits": tiny_edits.select(range(4))}
        return edit_sequence(**{**arguments, "test_set": test_set, "max_steps": 20, **OPTIONS, **options})

    return run


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def untimed(report):
    rows = [{key: value for key, value in row.items() if key != "milliseconds"} for row in report.rows]
    return report.summary, rows


def translate(model, tokenizer, source):
    output = model.generate(tokenizer(source, return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("editor", [{}, {"editor": "finetune_all", "adamw_learning_rate": 0.01}, LOW_RANK])
def test_points_equal_a_plain_sequence(editor, sequence, tiny_model, tiny_tokenizer, tiny_edits, test_set):
    state = state_of(tiny_model)
    report = sequence(**editor)
    assert unchanged(tiny_model, state)
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    model, config = copy.deepcopy(tiny_model), tiny_model.edit_config
    references = test_set["target"][:]
    before = [translate(model, tiny_tokenizer, source) for source in test_set["source"]]
    points = {point["count"]: point for point in report.summary["points"]}
    assert list(points) == [0, 1, 3, 4] and sorted(row["index"] for row in report.rows) == [0, 1, 2, 3]
    for count in range(5):
        if count:
            edit, row = tiny_edits[report.rows[count - 1]["index"]], report.rows[count - 1]
            result = model.edit(**collator.edit_inputs(edit), max_steps=20, **editor)
            assert (row["source"], row["success"], row["steps"]) == (edit["source"], result.success, result.steps)
            assert row["loss"] == result.loss
            model.load_state_dict(result.patch.values(model), strict=False)
        if count not in points:
            continue
        made = [tiny_edits[row["index"]] for row in report.rows[:count]]
        texts = [translate(model, tiny_tokenizer, source) for source in test_set["source"]]
        point = points[count]
        assert point["bleu"] == sacrebleu.corpus_bleu(texts, [references], tokenize="none").score
        assert point["chrf"] == sacrebleu.corpus_chrf(texts, [references]).score
        assert point["changed_rate"] == sum(a != b for a, b in zip(texts, before, strict=True)) / 6
        penalty = model.edit_length_penalty(config)
        held = [constraint_value(model, [collator.edit_inputs(edit)], penalty) <= 0 for edit in made]
        said = [translate(model, tiny_tokenizer, edit["source"]) == edit["target"] for edit in made]
        assert (point["held_edits"], point["held"]) == (held, sum(held))
        assert (point["decoded_edits"], point["decoded"]) == (said, sum(said))
        assert point["made"] == sum(row["success"] for row in report.rows[:count])
    assert points[4]["changed_rate"] > 0 and points[1]["held"] == points[1]["made"] == (editor != LOW_RANK)
    assert sequence(**editor, seed=3).rows[0]["index"] != report.rows[0]["index"]


def test_a_table_keeps_all_its_entries(sequence, tiny_edits):
    rows = [{"source": row["source"], "target": "the dog ."} for row in tiny_edits.select(range(4))]
    report = sequence(editor="cache", test_set=datasets.Dataset.from_list(rows))
    points = report.summary["points"]
    assert [point["decoded"] for point in points] == [0, 1, 3, 4]
    assert [round(4 * point["changed_rate"]) for point in points] == [0, 1, 3, 4]
    assert report.summary["edit_config"]["editor"] == "cache"


def test_resumed_equals_uninterrupted(sequence, tiny_model, tmp_path, monkeypatch):
    state, whole = state_of(tiny_model), sequence()
    edit, calls = EditableMixin.edit, []

    def interrupted(self, **arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return edit(self, **arguments)

    monkeypatch.setattr(EditableMixin, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sequence(output_dir=tmp_path)
    assert unchanged(tiny_model, state)
    counts = [json.loads(line).get("count") for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert counts == [None, 0, 1, 3]
    monkeypatch.setattr(EditableMixin, "edit", edit)
    measured = []
    bleu = "hf_editable.evaluation.sequences._Sequence._measure"
    from hf_editable.evaluation.sequences import _Sequence

    measure = _Sequence._measure
    monkeypatch.setattr(bleu, lambda self, edits, made: measured.append(len(edits)) or measure(self, edits, made))
    resumed = sequence(output_dir=tmp_path)
    assert measured == [4] and untimed(resumed) == untimed(whole)
    monkeypatch.setattr(EditableMixin, "edit", None)
    assert sequence(output_dir=tmp_path).to_dict() == resumed.to_dict()
    with pytest.raises(EditableValueError, match="counts was .* and is now"):
        sequence(output_dir=tmp_path, counts=[2])


def test_the_model_comes_back_if_the_disk_is_full(sequence, tiny_model, tmp_path, monkeypatch):
    state, written = state_of(tiny_model), []

    def full(self, rows):
        written.append(rows)
        if len(written) > 1:
            raise OSError("No space left on device")

    monkeypatch.setattr("hf_editable.evaluation.sequences.Journal.append", full)
    with pytest.raises(OSError, match="No space left"):
        sequence(output_dir=tmp_path)
    assert unchanged(tiny_model, state)


def test_edits_that_are_not_finite_change_nothing(sequence, tiny_model, monkeypatch):
    from hf_editable import NonFiniteEditError

    def never(**arguments):
        raise NonFiniteEditError("NaN")

    monkeypatch.setattr(tiny_model, "edit", never)
    report = sequence()
    assert report.summary["failed_edits"] == 4 and all(row["failed"] and row["loss"] is None for row in report.rows)
    assert [point["changed_rate"] for point in report.summary["points"]] == [0.0] * 4
    assert [point["made"] for point in report.summary["points"]] == [0] * 4


def test_report_round_trip_table_and_picture(sequence, tmp_path):
    report = sequence(name="a|b", output_dir=tmp_path)
    assert (
        SequenceReport.load(tmp_path) == SequenceReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    )
    report.summary["points"][1].update(bleu=12.345, chrf=67.891, changed_rate=0.25, made=1, held=1, decoded=0)
    table = SequenceReport.table([report, report]).splitlines()
    assert len(table) == 10 and table[2].startswith("| a\\|b | 0 |") and table[2].endswith("| – | – | – |")
    assert table[3] == "| a\\|b | 1 | 12.35 | 67.89 | 25.0% | 100.0% | 100.0% | 0.0% |"
    SequenceReport.plot([report, report], tmp_path / "two.png")
    for name in ("two.png", "picture.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert report.summary["bleu_signature"] in (tmp_path / "report.md").read_text()
    for nothing in (SequenceReport.table, lambda reports: SequenceReport.plot(reports, "unused.png")):
        with pytest.raises(EditableValueError, match="There is no report"):
            nothing([])
    with pytest.raises(EditableFileError, match=r"holds no whole report\.json"):
        SequenceReport.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"counts": []}, EditableValueError, "counts is empty"),
        ({"counts": [0]}, EditableValueError, "counts=0"),
        ({"seed": -1}, EditableValueError, "seed=-1"),
        ({"num_beams": 0}, EditableValueError, "num_beams=0"),
        ({"model": torch.nn.Linear(1, 1)}, EditableTypeError, r"A Linear has no edit\(\)"),
        ({"no_such_field": 1}, EditableTypeError, "EditConfig has no no_such_field"),
        ({"edits": datasets.Dataset.from_dict({"source": ["a"]})}, EditableValueError, "edits has 1 rows"),
    ],
)
def test_bad_arguments_raise(sequence, options, error, message):
    with pytest.raises(error, match=message):
        sequence(**options)


def test_command(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs, test_set, tmp_path, capsys):
    for name in ("first", "second"):
        tiny_model.save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    tiny_edits.save_to_disk(tmp_path / "edits")
    train = datasets.Dataset.from_list(tiny_pairs)
    datasets.DatasetDict(train=train, test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "first"), str(tmp_path / "second"), "--edits_dir"]
    argv += [str(tmp_path / "edits"), "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    argv += ["--num_edits", "2", "--num_beams", "1", "--counts", "1", "--bleu_tokenize", "none", "--editor", "kl"]
    argv += ["--editor_options", "num_pairs=3", "weight=4", "--max_steps", "3"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text() and table.count("| second |") == 3
    assert (tmp_path / "out" / "picture.png").is_file()
    summary = SequenceReport.load(tmp_path / "out" / "second").summary
    assert (summary["editor"], summary["edit_config"]["max_steps"]) == ("kl", 3)
    assert summary["edit_config"]["editor_options"] == {"num_pairs": 3, "weight": 4}
    assert "--editor_options num_pairs=3 weight=4" in summary["command"]
    assert summary["command"] in (tmp_path / "out" / "second" / "report.md").read_text()
    assert main([*argv, "--names", "one"]) == 2 and "2 models need as many names" in capsys.readouterr().err
