"""Evaluations of all editors: rows that equal plain ones, runs that go on, the command that compares."""

import copy
import json
import sys

import datasets
import pytest
import sacrebleu
import torch
from editor_cases import NAMES, all_pairs, settings_of, state_of

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableValueError,
    EditReport,
    evaluate_edits,
)
from hf_editable.cli.commands.compare_editors import main
from hf_editable.data.references import References
from hf_editable.editors import Editor, EditOutcome, register_editor, unregister_editor


OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none"}


@pytest.fixture
def references(tiny_tokenizer, tiny_pairs):
    return References(tiny_tokenizer, tiny_pairs)


@pytest.fixture
def inputs(tiny_model, tiny_tokenizer, tiny_edits):
    """The tensors of one edit."""
    return DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model).edit_inputs(tiny_edits[1])


@pytest.fixture(scope="module")
def test_set(tiny_pairs, tiny_edits):
    """Eight pairs of different lengths, and the source of the first edit."""
    rows = [
        {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
        for index, pair in enumerate(tiny_pairs[1:9])
    ]
    return datasets.Dataset.from_list([*rows, {"source": tiny_edits[0]["source"], "target": "the dog ."}])


def translate(model, tokenizer, source):
    output = model.generate(tokenizer(source, return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("name", [*NAMES, "lora"])
def test_rows_equal_a_plain_evaluation(name, references, tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    """Also where the encoder and the embeddings move."""
    made, state = settings_of(name), state_of(tiny_model)
    edits = tiny_edits.select([0, 3])
    options = {**OPTIONS, "max_steps": 4, "references": references, "output_dir": tmp_path, **made}
    report = evaluate_edits(tiny_model, tiny_tokenizer, edits, test_set, **options)
    assert all(torch.equal(tensor, state[key]) for key, tensor in tiny_model.state_dict().items())
    assert report.summary["editor"] == name
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    for row, edit in zip(report.rows, edits, strict=True):
        result = tiny_model.edit(**collator.edit_inputs(edit), references=references, max_steps=4, **made)
        edited = copy.deepcopy(tiny_model)
        edited.load_state_dict(result.patch.tensors, strict=False)
        texts = [translate(edited, tiny_tokenizer, source) for source in test_set["source"]]
        decoded = translate(edited, tiny_tokenizer, edit["source"])
        if name == "cache":
            decoded = edit["target"]
            texts = [decoded if row["source"] == edit["source"] else text for row, text in zip(test_set, texts)]
        kl = tokens = 0
        for source, labels in all_pairs(tiny_tokenizer, test_set):
            with torch.no_grad():
                before, after = (m(source, labels=labels).logits.log_softmax(-1) for m in (tiny_model, edited))
            kl += (before.exp() * (before - after)).sum().item()
            tokens += labels.numel()
        assert (row["success"], row["steps"], row["loss"]) == (result.success, result.steps, result.loss)
        assert row["bleu"] == sacrebleu.corpus_bleu(texts, [test_set["target"][:]], tokenize="none").score
        assert (row["decoded"], row["decode_success"]) == (decoded, decoded == edit["target"])
        assert row["kl"] == pytest.approx(kl / tokens, rel=1e-3, abs=1e-7)
    if name == "cache":
        assert report.summary["decode_success_rate"] == 1.0 and report.summary["kl"] == 0.0
        assert [row["changed"] for row in report.rows] == [1, 0]


class _Shaken(Editor):
    """Moves one layer of the encoder, and the embeddings, a lot."""

    def forward(self, problem, create_graph=False):
        generator = torch.Generator().manual_seed(3)
        names = ("model.encoder.layers.0.fc1.weight", "model.encoder.layers.1.fc2.weight", "model.shared.weight")
        named = dict(problem.model.named_parameters(remove_duplicate=False))
        tensors = {name: named[name] + torch.randn(named[name].shape, generator=generator) for name in names}
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        tied = [name for name, each in named.items() if each is named[names[-1]]]
        return EditOutcome({**tensors, **dict.fromkeys(tied, tensors[names[-1]])}, torch.tensor(-1.0), 1.0, 1)


@pytest.fixture
def shaken():
    register_editor("shaken", None, _Shaken)
    yield
    unregister_editor("shaken")


def test_nothing_is_kept_of_an_encoder_that_moved(
    shaken, tiny_model, tiny_tokenizer, tiny_edits, test_set, inputs, tmp_path
):
    state = state_of(tiny_model)
    options = {**OPTIONS, "editor": "shaken", "output_dir": tmp_path}
    report = evaluate_edits(tiny_model, tiny_tokenizer, tiny_edits.select([0]), test_set, **options)
    assert all(torch.equal(tensor, state[key]) for key, tensor in tiny_model.state_dict().items())
    edited = copy.deepcopy(tiny_model)
    edited.load_state_dict(tiny_model.edit(**inputs, editor="shaken").patch.tensors, strict=False)
    texts = [translate(edited, tiny_tokenizer, source) for source in test_set["source"]]
    before = [translate(tiny_model, tiny_tokenizer, source) for source in test_set["source"]]
    expected = [[i, old, new] for i, (old, new) in enumerate(zip(before, texts, strict=True)) if old != new]
    assert len(expected) > 4
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[1])["changes"] == expected
    assert report.rows[0]["kl"] > 0.01


def test_runs_go_on_with_the_same_editor_only(
    references, tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs, test_set, tmp_path
):
    def evaluate(name, references=references, max_rounds=None, **settings):
        options = {"references": references, "output_dir": tmp_path, "max_rounds": max_rounds}
        edits = tiny_edits.select([0])
        options |= {**OPTIONS, **settings_of(name, **settings)}
        return evaluate_edits(tiny_model, tiny_tokenizer, edits, test_set, **options)

    first = evaluate("kl", weight=2.0)
    assert evaluate("kl", weight=2.0).to_dict() == first.to_dict()
    others = [{"weight": 3.0}, {"weight": 2.0, "pairs_seed": 5}, {"weight": 2.0, "num_pairs": 5}]
    for call in (*(lambda each=each: evaluate("kl", **each) for each in others), lambda: evaluate("cache")):
        with pytest.raises(EditableValueError, match="edit_config was"):
            call()
    with pytest.raises(EditableValueError, match="references was"):
        evaluate("kl", References(tiny_tokenizer, tiny_pairs[:7]), weight=2.0)
    with pytest.raises(EditableValueError, match="max_rounds was"):
        evaluate("kl", weight=2.0, max_rounds=2)


def test_command(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs, test_set, tmp_path, capsys, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_edits.save_to_disk(tmp_path / "edits")
    train = datasets.Dataset.from_list(tiny_pairs)
    datasets.DatasetDict(train=train, test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "model"), "--edits_dir", str(tmp_path / "edits"), "--data_dir"]
    argv += [str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--num_edits", "1", "--num_beams", "1"]
    argv += ["--max_steps", "2", "--bleu_tokenize", "none", "--num_test", "4", "--editor_options", "kl.num_pairs=3"]
    argv += ["ewc.num_pairs=3", "ewc.weight=7", "rehearsal.num_pairs=3", "finetune_all.adamw_learning_rate=0.02"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text()
    named = [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]]
    assert named[:2] == ["gradient", "gradient:verified"] and sorted(named[2:]) == sorted([*NAMES[1:], "neurons"])
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    header = json.loads((tmp_path / "out" / "ewc" / "rows.jsonl").read_text().splitlines()[0])["arguments"]
    assert header["edit_config"]["editor_options"] == {"num_pairs": 3, "weight": 7}
    report = EditReport.load(tmp_path / "out" / "finetune_all")
    assert report.summary["editor"] == "finetune_all" and "ewc.weight=7" in report.summary["command"]
    assert EditReport.load(tmp_path / "out" / "gradient_verified").summary["max_rounds"] == 20
    monkeypatch.setitem(sys.modules, "peft", None)
    plain = argv[: argv.index("--editor_options")]
    for options, message in (
        (["--editors", "gradient", "magic"], "editor='magic': choose one of 'gradient'"),
        (["--editors", "kl", "kl"], "each once"),
        (["--editor", "kl"], "--editor kl: this command compares several. Give --editors"),
        (["--editors", "kl:proven"], "behind the colon, 'proven' is not 'verified'"),
        (["--editors", "kl", "--editor_options", "ewc.weight=1"], "give settings of the compared editors"),
        (["--editors", "kl", "--editor_options", "kl.colour=1"], "'kl' has no setting colour"),
        (["--editors", "lora"], "pip install hf_editable[lora]"),
        (["--reference_split", "dev"], "no pairs in a split 'dev'"),
    ):
        assert main([*plain, *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
