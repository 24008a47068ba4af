"""The impact gate: what it reports is what plain translation gives, and the model is the same afterwards."""

import copy
import json

import datasets
import pytest
import sacrebleu
import torch
from cheap_edits import same, weights_of

from hf_editable import EditableFileError, EditableTypeError, EditableValueError, EditPatch, TranslationEditor
from hf_editable.operations import (
    AskedCorrection,
    ChangedTranslation,
    ImpactGate,
    ImpactReport,
    ScoreChange,
    sample_regression,
)
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.operations.gate.report import marked
from hf_editable.patches.application import applied


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2, batch_size=8)


@pytest.fixture
def few(tiny_pairs):
    """A small regression set."""
    return tiny_pairs[1::3]


def edit(editor, row, **overrides):
    """A patch that changes some translations, made from the model as it is."""
    inputs = editor.collator.edit_inputs(row, editor.model.device)
    patch = editor.model.edit(**inputs, **{"learning_rate": 0.01, **overrides}).patch
    patch.source, patch.target = row["source"], row["target"]
    return patch


def expected_changes(editor, patch, rows):
    """Translations that a patch changes, by plain translation, and all of them with it."""
    sources = [row["source"] for row in rows]
    before = editor.translate(sources)
    with editor.model.edited(patch):
        after = editor.translate(sources)
    pairs = zip(rows, before, after, strict=True)
    changed = [ChangedTranslation(row["source"], old, new, row.get("target")) for row, old, new in pairs if old != new]
    return changed, before, after


def test_the_report_is_what_plain_translation_gives(editor, tiny_pairs, tiny_edits):
    patch = edit(editor, tiny_edits[0])
    changed, before, after = expected_changes(editor, patch, tiny_pairs)
    report = ImpactGate(editor, tiny_pairs).measure(patch)
    references = [row["target"] for row in tiny_pairs]
    assert changed
    assert report.changed == changed
    assert report.num_sentences == 24
    for score, metric in ((report.bleu, sacrebleu.corpus_bleu), (report.chrf, sacrebleu.corpus_chrf)):
        assert score.before == metric(before, [references]).score
        assert score.after == metric(after, [references]).score
        assert score.difference == score.after - score.before
        assert score.interval[0] <= score.difference <= score.interval[1]
    assert report.similarity == sacrebleu.corpus_chrf(after, [before]).score
    assert (report.source, report.target) == (tiny_edits[0]["source"], tiny_edits[0]["target"])
    with editor.model.edited(patch):
        assert report.said == editor.translate([report.source])[0]
    assert (report.accepted, report.reasons) == (True, [])


def trunk(model):
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.weight.mul_(-1.0)


def beams(model):
    model.generation_config.length_penalty = -3.0


@pytest.mark.parametrize("between", [None, trunk, beams])
@pytest.mark.parametrize("gigabytes", [0.0, 4.0])
def test_later_measures_are_of_the_model_as_it_then_is(editor, few, tiny_edits, between, gigabytes):
    gate, seen = ImpactGate(editor, few, record_gigabytes=gigabytes), []
    for number, row in enumerate(tiny_edits.select(range(3))):
        patch = edit(editor, row)
        changed, *_ = expected_changes(editor, patch, few)
        assert gate.measure(patch).changed == changed
        seen.append(bool(changed))
        patch.apply(editor.model)
        if between is not None and number == 0:
            between(editor.model)
    assert sum(seen) > 1


def test_only_what_is_new_is_translated(editor, few, tiny_edits, monkeypatch):
    from hf_editable.evaluation.test_set import EncodedTestSet

    made = []
    for name in ("translate", "record", "retranslate"):
        function = getattr(EncodedTestSet, name)

        def counted(*args, name=name, function=function, **kwargs):
            made.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(EncodedTestSet, name, counted)
    gate = ImpactGate(editor, few)
    first, refused = (edit(editor, row) for row in tiny_edits.select(range(2)))
    for patch, calls in ((first, ["translate", "translate"]), (refused, ["record", "retranslate"])):
        gate.measure(patch)
        assert made == calls
        made.clear()
    refused.apply(editor.model)
    gate.measure(edit(editor, tiny_edits[2]))
    assert made == ["retranslate"]


def test_a_patch_of_other_layers_is_measured_too(editor, few, tiny_edits):
    gate, seen = ImpactGate(editor, few), []
    for row in tiny_edits.select(range(2)):
        patch = edit(editor, row, layers_to_transform=[0, 1])
        changed, *_ = expected_changes(editor, patch, few)
        assert gate.measure(patch).changed == changed
        seen.append(bool(changed))
        patch.apply(editor.model)
    assert any(seen)


def test_a_table_is_measured_too(editor, few, tiny_edits):
    editor.model.edit_config = editor.model.edit_config.replace(editor="cache")
    gate, rows = ImpactGate(editor, few), [{**few[number], "alternatives": ["the dog ."]} for number in (0, 2)]
    for row in rows:
        patch = edit(editor, {**row, "target": "the tree buys"})
        report = gate.measure(patch)
        expected, *_ = expected_changes(editor, patch, few)
        assert [each.source for each in report.changed] == [row["source"]] == [each.source for each in expected]
        assert report.changed[0].after == report.said == "the tree buys"
        assert report.chrf.difference != 0.0
        patch.apply(editor.model)


def test_the_model_is_the_same_afterwards(editor, few, tiny_edits, monkeypatch):
    editor.model.train()
    edit(editor, tiny_edits[0]).apply(editor.model)
    patch, before = edit(editor, tiny_edits[1]), weights_of(editor.model)
    gate = ImpactGate(editor, few, max_drawdown=-100.0)
    assert gate.measure(patch).accepted is False
    assert same(weights_of(editor.model), before)
    with monkeypatch.context() as patched:
        patched.setattr(type(editor), "translate", lambda self, sources: 1 / 0)
        with pytest.raises(ZeroDivisionError, match="division"):
            gate.measure(patch)
    other = EditPatch(patch.tensors, "0" * 64)
    with pytest.raises(EditableValueError, match="The patch was made for tensors with fingerprint 000"):
        gate.measure(other)
    assert same(weights_of(editor.model), before)
    assert len(applied(editor.model)) == 1
    assert editor.model.training


def test_an_exception_with_the_patch_applied_takes_it_off(editor, few, tiny_edits, monkeypatch):
    patch, before = edit(editor, tiny_edits[0]), weights_of(editor.model)
    translate = TranslationEditor.translate

    def fails(self, sources):
        if len(applied(self.model)):
            raise KeyboardInterrupt
        return translate(self, sources)

    monkeypatch.setattr(TranslationEditor, "translate", fails)
    with pytest.raises(KeyboardInterrupt):
        ImpactGate(editor, few).measure(patch)
    assert same(weights_of(editor.model), before)


def test_max_drawdown_refuses(editor, few, tiny_edits):
    patch = edit(editor, tiny_edits[0])
    regression = [{**row, "target": said} for row, said in zip(few, translations(editor, few), strict=True)]
    cost = -ImpactGate(editor, regression).measure(patch).bleu.difference
    assert cost > 0
    refused = ImpactGate(editor, regression, max_drawdown=cost - 0.01).measure(patch)
    assert refused.accepted is False
    assert refused.reasons == [f"BLEU falls by {cost:.2f}, and max_drawdown allows {cost - 0.01:g}."]
    assert ImpactGate(editor, regression, max_drawdown=cost).measure(patch).accepted is True


def translations(editor, rows):
    return editor.translate([row["source"] for row in rows])


def test_corrections_that_are_lost_refuse(editor, tiny_pairs, few, tiny_edits):
    patch = edit(editor, tiny_edits[0])
    few = few[:2]
    changed, before, _ = expected_changes(editor, patch, tiny_pairs)
    lost = Correction(changed[1].source, changed[1].before)
    gained = Correction(changed[2].source, changed[2].after)
    kept = next(
        Correction(row["source"], said)
        for row, said in zip(tiny_pairs, before, strict=True)
        if row["source"] not in {each.source for each in changed}
    )
    never = Correction(tiny_pairs[3]["source"], "a tree")
    report = ImpactGate(editor, few, must_keep=[kept]).measure(patch, keep=[kept, gained, never])
    assert report.accepted
    assert (report.kept, report.lost, report.not_held) == ([kept, gained], [], [never])
    for arguments, keep in (({"must_keep": [lost]}, []), ({}, [lost])):
        refused = ImpactGate(editor, few, **arguments).measure(patch, keep=keep)
        assert refused.accepted is False
        assert refused.lost == [lost]
        message = f"1 corrections that held are lost, and max_lost allows 0: {lost.source!r} → {lost.target!r}."
        assert refused.reasons == [message]
        for most in (1, None):
            assert ImpactGate(editor, few, max_lost=most, **arguments).measure(patch, keep=keep).accepted


def test_a_new_correction_of_a_source_is_no_loss_of_the_earlier_one(editor, few, tiny_edits):
    patch = edit(editor, tiny_edits[0])
    earlier = Correction(patch.source, editor.translate([patch.source])[0])
    report = ImpactGate(editor, few).measure(patch, keep=[earlier])
    assert report.asked == []
    assert ImpactGate(editor, few, must_keep=[earlier]).measure(patch).lost == [earlier]


def test_a_regression_set_of_sources_alone(editor, few, tiny_edits):
    patch, sources = edit(editor, tiny_edits[0]), [row["source"] for row in few]
    whole = ImpactGate(editor, few).measure(patch)
    for regression in (
        sources,
        [{"source": source} for source in sources],
        datasets.Dataset.from_dict({"source": sources}),
    ):
        report = ImpactGate(editor, regression).measure(patch)
        assert (report.bleu, report.chrf, report.similarity) == (None, None, whole.similarity)
        assert [(each.source, each.after) for each in report.changed] == [
            (each.source, each.after) for each in whole.changed
        ]
        assert {each.reference for each in report.changed} == {None}
    with pytest.raises(EditableValueError, match=r"max_drawdown=0\.5 needs references .* sources only"):
        ImpactGate(editor, sources, max_drawdown=0.5)


def test_an_edit_that_changes_nothing(editor, few):
    parameters = dict(editor.model.named_parameters())
    name = "model.decoder.layers.1.fc1.weight"
    from hf_editable.runs.fingerprints import fingerprint

    patch = EditPatch({name: parameters[name].detach().clone()}, fingerprint({name: parameters[name]}))
    report = ImpactGate(editor, few, max_drawdown=0.0).measure(patch)
    assert report.accepted
    assert (report.changed, report.similarity, report.said) == ([], 100.0, None)
    assert (report.bleu.difference, report.bleu.interval) == (0.0, None)
    assert report.bleu.cost == "+0.00" and f"| {report.bleu.before:.2f} | +0.00 |" in report.markdown()
    assert ImpactReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


@pytest.mark.parametrize(
    ("regression", "arguments", "error", "message"),
    [
        ([], {}, EditableValueError, "regression has no rows; give a dataset or list"),
        ("a b", {}, EditableTypeError, "regression is a str; give a dataset or list"),
        ([{"text": "a"}], {}, EditableTypeError, r"regression, row 0 is \{'text': 'a'\}; give"),
        ([3], {}, EditableTypeError, "regression, row 0 is 3; give"),
        (["der hund .", " "], {}, EditableValueError, "regression, row 1: the source is empty"),
        ([{"source": "a", "target": "b"}, "c"], {}, EditableValueError, "1 of 2 rows, such as row 1, have no target"),
        (["der hund " * 40], {}, EditableValueError, "32"),
        (None, {"max_drawdown": float("nan")}, EditableValueError, "max_drawdown=nan: it must be a number"),
        (None, {"max_drawdown": True}, EditableValueError, "max_drawdown=True: it must be a number"),
        (None, {"max_lost": -1}, EditableValueError, "max_lost=-1: it must be a whole number, 0 or more"),
        (None, {"seed": -1}, EditableValueError, "seed=-1"),
        (None, {"record_gigabytes": -1.0}, EditableValueError, r"record_gigabytes=-1\.0: it must be 0 or more"),
        (None, {"bleu_tokenize": "words"}, EditableValueError, "bleu_tokenize='words': choose one of"),
        (None, {"must_keep": [Correction("", "a")]}, EditableValueError, "empty"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(editor, tiny_pairs, regression, arguments, error, message):
    with pytest.raises(error, match=message):
        ImpactGate(editor, tiny_pairs if regression is None else regression, **arguments)


def test_a_sample_of_a_corpus(tiny_pairs):
    corpus = datasets.Dataset.from_list([{**row, "id": number} for number, row in enumerate(tiny_pairs)])
    rows = sample_regression(corpus, 5, seed=1)
    assert len(rows) == 5
    assert [row for row in tiny_pairs if row in rows] == rows
    assert sample_regression(tiny_pairs, 5, seed=1) == rows
    assert sample_regression(tiny_pairs, 5, seed=2) != rows
    assert sample_regression(tiny_pairs, 99) == tiny_pairs
    sources = [row["source"] for row in tiny_pairs]
    assert sample_regression(sources, 5, seed=1) == [{"source": row["source"]} for row in rows]
    with pytest.raises(EditableValueError, match="count=0"):
        sample_regression(corpus, 0)
    with pytest.raises(EditableTypeError, match="corpus is a dict"):
        sample_regression({"source": sources}, 5)


@pytest.fixture
def report():
    return ImpactReport(
        accepted=False,
        reasons=["BLEU falls by 2.00, and max_drawdown allows 1."],
        source="ein <b>Hund</b>",
        target="a | dog",
        said="a dog",
        bleu=ScoreChange(40.0, 38.0, -2.0, (-3.0, -1.0), "case:mixed"),
        chrf=None,
        similarity=97.5,
        num_sentences=12,
        changed=[ChangedTranslation("das *Haus*", "the old | house", "the new house", "the `house`")],
        asked=[
            AskedCorrection("a", "A", "A", "A"),
            AskedCorrection("b", "B", "B", "b"),
            AskedCorrection("c", "C", "c", "c"),
            AskedCorrection("d", "D", "d", "D"),
        ],
        settings={"num_beams": 5, "max_drawdown": 1.0, "versions": {"torch": "2"}},
    )


def test_a_report_is_saved_whole(report, tmp_path):
    report.save(tmp_path / "impact")
    assert sorted(path.name for path in (tmp_path / "impact").iterdir()) == ["impact.html", "impact.json", "impact.md"]
    assert ImpactReport.load(tmp_path / "impact") == report
    values = json.loads((tmp_path / "impact" / "impact.json").read_text())
    assert values == report.to_dict()
    assert values["lost"] == [{"source": "b", "target": "B"}]
    page = (tmp_path / "impact" / "impact.html").read_text()
    assert "ein &lt;b&gt;Hund&lt;/b&gt; → a | dog" in page
    assert "<b>" not in page
    assert "the <code>new</code> house" in page
    assert "the `house`" in page
    markdown = (tmp_path / "impact" / "impact.md").read_text()
    assert "| BLEU | 40.00 | 38.00 | -2.00 [-3.00, -1.00] |" in markdown
    assert "Refused:\n\n- BLEU falls by 2.00" in markdown
    assert "## Changed translations: 1 of 12" in markdown
    assert "2 kept, 1 lost, 1 did not hold before" in markdown
    assert [
        line.split("|")[-2].strip()
        for line in markdown.splitlines()
        if line.startswith(("| a", "| b", "| c", "| d |"))
    ] == [
        "kept",
        "lost",
        "did not hold before",
        "gained",
    ]


@pytest.mark.parametrize("text", [None, "{", "{}", '{"bleu": 3}', "[]"])
def test_a_damaged_report_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "impact.json").write_text(text)
    with pytest.raises(EditableFileError, match=r"holds no whole impact\.json"):
        ImpactReport.load(tmp_path)


def test_words_that_differ_are_marked():
    assert marked("the old dog", "the new dog") == ("the `old` dog", "the `new` dog")
    assert marked("a b", "a b c") == ("a b", "a b `c`")
    assert marked("x | y", "z") == ("x \\| y", "`z`")
    assert marked("", "new") == ("", "`new`")


def test_a_gate_works_on_a_copy_of_the_report_settings(editor, few, tiny_edits):
    patch = edit(editor, tiny_edits[0])
    report = ImpactGate(editor, few, max_lost=3, seed=4).measure(patch)
    settings = copy.deepcopy(report.settings)
    assert settings.pop("versions").keys() >= {"torch", "hf_editable"}
    assert settings == {
        "num_beams": 2,
        "max_new_tokens": 15,
        "max_drawdown": None,
        "max_lost": 3,
        "bleu_tokenize": "13a",
        "lowercase": False,
        "seed": 4,
    }
