"""Lists of corrections: what becomes of each, in which order, and what is left of it on disk."""

import copy
import dataclasses
import json

import pytest
import torch
from bulk_lists import contents, learn, run, timeless, wanted
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_editable import EditableFileError, EditableValueError, EditPatch, NonFiniteEditError, TranslationEditor
from hf_editable.operations import EditStore, ImpactGate
from hf_editable.operations.bulk.apply_corrections import apply_corrections
from hf_editable.operations.bulk.plan import plan_corrections
from hf_editable.operations.bulk.report import BulkReport, Outcome
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.patches.application import applied
from hf_editable.runs.fingerprints import fingerprint


@pytest.fixture(scope="module")
def learned(make_tiny_model, tiny_tokenizer, tiny_pairs):
    return learn(make_tiny_model(), tiny_tokenizer, tiny_pairs)


@pytest.fixture
def model(learned):
    return copy.deepcopy(learned)


@pytest.fixture
def editor(model, tiny_tokenizer):
    return TranslationEditor(model, tiny_tokenizer, num_beams=2, batch_size=32)


@pytest.fixture(scope="module")
def in_order(learned, tiny_tokenizer, tiny_pairs, tmp_path_factory):
    """A finished run, its folder, and the weights of its model afterwards."""
    folder, model = tmp_path_factory.mktemp("bulk"), copy.deepcopy(learned)
    report = run(model, tiny_tokenizer, wanted(tiny_pairs), folder)
    return report, folder, model


def weights(model):
    return fingerprint(dict(model.state_dict()))


def outcomes(report):
    return [row["outcome"] for row in report.rows]


def test_each_correction_is_an_edit_on_top_of_the_earlier_ones(in_order, learned, tiny_tokenizer, tiny_pairs):
    report, folder, _ = in_order
    assert outcomes(report) == ["accepted", "already_right", "accepted", "accepted", "accepted"]
    store = EditStore.open(folder / "store")
    assert [edit.id for edit in store.edits] == [row["edit"] for row in report.rows if "edit" in row]
    model = copy.deepcopy(learned)
    editor = TranslationEditor(model, tiny_tokenizer, num_beams=2, batch_size=32)
    earlier = []
    for correction, row in zip(wanted(tiny_pairs), report.rows):
        assert row["before"] == editor.translate([correction.source])[0]
        if row["outcome"] == "accepted":
            result = editor.edit(correction.source, correction.target, keep=earlier)
            assert (row["steps"], row["rounds"], row["after"]) == (result.steps, result.rounds, correction.target)
            stored = store.patch(row["edit"])
            assert all(torch.equal(tensor, stored.tensors[name]) for name, tensor in result.patch.tensors.items())
            result.patch.apply(model)
        earlier.append((correction.source, correction.target))
    finals = editor.translate([row["source"] for row in report.rows])
    assert [row["final"] for row in report.rows] == finals
    assert [row["holds"] for row in report.rows] == [said == row["target"] for said, row in zip(finals, report.rows)]
    assert report.summary["holding"] == report.summary["right"] == 5


def test_edits_that_do_not_keep_the_earlier_ones_lose_some(learned, tiny_tokenizer, tiny_pairs, tmp_path):
    rows = wanted(tiny_pairs)
    report = run(copy.deepcopy(learned), tiny_tokenizer, rows, tmp_path, keep_earlier=False, save_model=False)
    assert report.summary["holding"] == sum(row["holds"] for row in report.rows) < report.summary["right"] == 5


def test_afterwards_the_model_is_as_it_was(in_order, learned):
    _, _, model = in_order
    assert weights(model) == weights(learned) and len(applied(model)) == 0


def test_the_results_are_one_patch_one_model_and_one_report(in_order, learned, tiny_tokenizer):
    report, folder, _ = in_order
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["result", "rows.jsonl"]
    result = folder / "out" / "result"
    expected = copy.deepcopy(learned)
    EditPatch.from_pretrained(result / "patch").apply(expected)
    saved, loading = AutoModelForSeq2SeqLM.from_pretrained(result / "model", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in saved.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(result / "model")
    sources = [row["source"] for row in report.rows]
    again = TranslationEditor(expected, tokenizer, num_beams=2).translate(sources)
    assert again == [row["final"] for row in report.rows]
    assert BulkReport.load(result) == report
    text, page = ((result / name).read_text() for name in ("corrections.md", "corrections.html"))
    assert "Of 5 corrections to make, the model came to say 5 (100.0%)." in text and text.count("| accepted |") == 5
    assert "<table>" in page and report.rows[0]["target"] in page


def test_a_finished_run_is_read_and_not_made_again(in_order, learned, tiny_tokenizer, tiny_pairs, monkeypatch):
    report, folder, _ = in_order
    monkeypatch.setattr(TranslationEditor, "edit", lambda *_, **__: pytest.fail("It is edited again."))
    assert run(copy.deepcopy(learned), tiny_tokenizer, wanted(tiny_pairs), folder) == report
    with pytest.raises(
        EditableValueError, match="results made with other arguments: corrections was .*; max_rounds was"
    ):
        run(copy.deepcopy(learned), tiny_tokenizer, wanted(tiny_pairs, 3), folder, max_rounds=9)


def test_edits_that_the_store_has_come_first(in_order, model, tiny_tokenizer, tiny_pairs, tmp_path):
    first, *others = wanted(tiny_pairs)
    run(model, tiny_tokenizer, [first], tmp_path)
    editor = TranslationEditor(model, tiny_tokenizer, num_beams=2, batch_size=32)
    report = apply_corrections(editor, others, EditStore.open(tmp_path / "store"), tmp_path / "second")
    assert (report.summary["edits_before"], report.summary["edits_after"]) == (1, 4)
    assert contents(tmp_path / "second/result/model") == contents(in_order[1] / "out/result/model")


def test_rows_that_cannot_be_applied_are_told_and_the_others_applied(model, tiny_tokenizer, tiny_pairs, tmp_path):
    good = wanted(tiny_pairs)[0]
    rows = [
        dataclasses.replace(good, place="line 2"),
        Correction(good.source, ""),
        Correction("der mann sieht .", "the xylophone sees ."),
        Correction("der mann " * 20, "the man ."),
        Correction(f" {good.source} ".replace(" ", "  "), good.target.replace(" ", "  ")),
        Correction("der hund malt .", "the dog paints .", place="line 9"),
        Correction("der hund malt .", "the man paints ."),
    ]
    report = run(model, tiny_tokenizer, rows, tmp_path)
    assert outcomes(report) == ["accepted", "incomplete", "failed", "failed", "duplicate", "conflict", "conflict"]
    reasons = [" ".join(row["reasons"]) for row in report.rows]
    assert reasons[1] == "It has no target." and "no tokens for ['xylophone']" in reasons[2]
    assert "tokens" in reasons[3] and reasons[4] == "The same as line 2."
    assert "to 'the dog paints .' (line 9) and to 'the man paints .'" in reasons[5] == reasons[6]
    assert len(EditStore.open(tmp_path / "store").edits) == 1
    assert "xylophone" in (tmp_path / "out/result/corrections.md").read_text()


@pytest.mark.parametrize("policy, chosen", [("first", [0, 1, 3]), ("last", [2, 3]), ("skip", [3])])
def test_conflicts_are_decided_by_policy(editor, policy, chosen):
    source, one, two = "der hund malt .", "the dog paints .", "the man paints ."
    rows = [Correction(source, one), Correction(source, one), Correction(source, two), Correction("der mann .", one)]
    planned = plan_corrections(editor, rows, policy)
    duplicates = [each.index for each in planned if each.outcome is Outcome.DUPLICATE]
    assert [each.index for each in planned if each.outcome is not Outcome.CONFLICT] == chosen
    assert duplicates == ([1] if policy == "first" else [])


def test_conflicts_can_be_an_error(editor):
    rows = [Correction("der hund malt .", "the dog paints ."), Correction("der hund malt .", "the man paints .")]
    with pytest.raises(
        EditableValueError, match="1 sources have more than one target: 'der hund malt .' is corrected"
    ):
        plan_corrections(editor, rows, "error")
    with pytest.raises(
        EditableValueError, match=r"on_conflict='both': give one of \['skip', 'first', 'last', 'error'\]"
    ):
        plan_corrections(editor, rows, "both")


def test_what_is_not_decoded_or_fails_leaves_the_model(model, tiny_tokenizer, tiny_pairs, tmp_path, monkeypatch):
    first, _, second, third, _ = wanted(tiny_pairs)
    edit = TranslationEditor.edit

    def fail(self, source, *args, **options):
        if source == second.source:
            raise NonFiniteEditError("The loss is nan.")
        result = edit(self, source, *args, **options)
        return dataclasses.replace(result, decoded=source != first.source, success=False)

    monkeypatch.setattr(TranslationEditor, "edit", fail)
    report = run(model, tiny_tokenizer, [first, second, third], tmp_path)
    assert outcomes(report) == ["not_decoded", "failed", "accepted"]
    assert "took all its steps" in report.rows[0]["reasons"][0] and report.rows[1]["reasons"] == ["The loss is nan."]
    (stored,) = EditStore.open(tmp_path / "store").edits
    assert stored.corrections == (third,)
    assert (
        report.rows[2]["before"] == TranslationEditor(model, tiny_tokenizer, num_beams=2).translate([third.source])[0]
    )


def test_a_gate_keeps_what_was_corrected_before(editor, tiny_pairs, tmp_path):
    first, right, *others = wanted(tiny_pairs)
    regression = tiny_pairs[:6]
    gate = ImpactGate(editor, regression)
    rows = [first, right, *others]
    store = EditStore.create(tmp_path / "store", editor.model)
    options = {"gate": gate, "save_model": False, "keep_earlier": False}
    report = apply_corrections(editor, rows, store, tmp_path / "out", **options)
    assert outcomes(report)[:2] == ["accepted", "already_right"] and "refused" in outcomes(report)
    assert report.summary["holding"] == report.summary["right"]
    refused = next(row for row in report.rows if row["outcome"] == "refused")
    assert "max_lost allows 0" in refused["reasons"][0] and refused["impact"]["lost"]
    assert len(store.edits) == report.summary["outcomes"]["accepted"]
    before = editor.translate([pair["source"] for pair in regression])
    with editor.model.edited(store.merge()):
        after = editor.translate([pair["source"] for pair in regression])
    changed = [pair for pair in zip(before, after) if pair[0] != pair[1]]
    assert [(each.before, each.after) for each in report.impact.changed] == changed
    assert report.impact.bleu.before == pytest.approx(100.0)
    assert sorted(path.name for path in (tmp_path / "out/result").iterdir())[-1] == "patch"
    assert "BLEU on the regression set: 100.00 before" in (tmp_path / "out/result/corrections.md").read_text()
    with pytest.raises(EditableValueError, match="gate was .* and is now None"):
        apply_corrections(editor, rows, store, tmp_path / "out")


def test_jointly_is_one_edit_of_all(model, tiny_tokenizer, tiny_pairs, tmp_path, learned):
    rows = [*wanted(tiny_pairs), Correction("der xylophone .", "the xylophone .")]
    report = run(model, tiny_tokenizer, rows, tmp_path, joint=True)
    store = EditStore.open(tmp_path / "store")
    (stored,) = store.edits
    accepted = [row for row in report.rows if row["outcome"] == "accepted"]
    said = [(row["source"], row["target"]) for row in report.rows if row.get("holds")]
    assert accepted and {row["edit"] for row in accepted} == {stored.id}
    assert [(each.source, each.target) for each in stored.corrections] == said
    assert outcomes(report)[1] == "already_right" and outcomes(report)[-1] == "failed"
    lacking = [row for row in report.rows[:-1] if row["outcome"] == "not_decoded"]
    assert len(accepted) + len(lacking) + 1 == len(report.rows) - 1
    assert weights(model) == weights(learned)
    with model.edited(EditPatch.from_pretrained(tmp_path / "out/result/patch")):
        editor = TranslationEditor(model, tiny_tokenizer, num_beams=2, batch_size=32)
        finals = editor.translate([row["source"] for row in report.rows[:-1]])
    assert finals == [row["after"] for row in report.rows[:-1]]


def test_a_joint_edit_that_helps_nobody_is_not_made(model, tiny_tokenizer, tiny_pairs, tmp_path, monkeypatch):
    joint = TranslationEditor.edit_jointly

    def fail(self, sources, *args, **options):
        result = joint(self, sources, *args, **options)
        return dataclasses.replace(result, decoded=[False] * len(sources))

    monkeypatch.setattr(TranslationEditor, "edit_jointly", fail)
    report = run(model, tiny_tokenizer, wanted(tiny_pairs, 2), tmp_path, joint=True, max_rounds=1)
    assert outcomes(report) == ["not_decoded", "already_right", "not_decoded"]
    assert "with it, 0 of 3 are as asked, without it 1." in report.rows[0]["reasons"][0]
    assert EditStore.open(tmp_path / "store").edits == []
    assert "patch" not in [path.name for path in (tmp_path / "out/result").iterdir()]


def test_a_run_that_an_error_stopped_goes_on(
    in_order, learned, model, tiny_tokenizer, tiny_pairs, tmp_path, monkeypatch
):
    edit = TranslationEditor.edit
    calls = []

    def stop(self, *args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return edit(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(TranslationEditor, "edit", stop)
        with pytest.raises(KeyboardInterrupt):
            run(model, tiny_tokenizer, wanted(tiny_pairs), tmp_path)
    assert weights(model) == weights(learned) and len(applied(model)) == 0
    assert not (tmp_path / "out/result").exists()
    monkeypatch.setattr(
        TranslationEditor, "edit", lambda self, *args, **more: calls.append(args) or edit(self, *args, **more)
    )
    report = run(model, tiny_tokenizer, wanted(tiny_pairs), tmp_path)
    assert len(calls) == 5  # three, and the two that were left
    assert timeless(report.rows) == timeless(in_order[0].rows)


def test_a_store_that_was_changed_meanwhile_is_refused(in_order, model, tiny_tokenizer, tiny_pairs, tmp_path):
    rows = wanted(tiny_pairs, 3)
    run(model, tiny_tokenizer, rows, tmp_path)
    (tmp_path / "out/result").rename(tmp_path / "old")
    store = EditStore.open(tmp_path / "store")
    store.revert(store.edits[-1].id)
    with pytest.raises(EditableValueError, match="was changed since this run was interrupted: its edits are"):
        run(model, tiny_tokenizer, rows, tmp_path)
    store.revert(store.edits[-1].id)
    store.add(patch_for(model, store, tiny_tokenizer, "der hund malt .", "the dog paints the ball ."))
    journal = tmp_path / "out/rows.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]))  # to where its first edit is noted
    with pytest.raises(EditableValueError, match="its edit .* is of 'der hund malt .'. Give another output_dir"):
        run(model, tiny_tokenizer, rows, tmp_path)


def patch_for(model, store, tokenizer, source, target):
    """An edit on top of those of a store."""
    patch = store.load(model)
    result = TranslationEditor(model, tokenizer, num_beams=2).edit(source, target)
    patch.revert(model)
    return result


def test_what_cannot_work_is_refused_before_the_work(editor, tiny_pairs, tmp_path, monkeypatch):
    rows = wanted(tiny_pairs)
    store = EditStore.create(tmp_path / "store", editor.model)
    with pytest.raises(EditableValueError, match="There are no corrections"):
        apply_corrections(editor, [], store, tmp_path / "out")
    with pytest.raises(EditableValueError, match="max_rounds=0"):
        apply_corrections(editor, rows, store, tmp_path / "out", max_rounds=0)
    (tmp_path / "file").touch()
    with pytest.raises(EditableFileError, match="file' is a file"):
        apply_corrections(editor, rows, store, tmp_path / "file")
    (tmp_path / "other/result").mkdir(parents=True)
    with pytest.raises(EditableFileError, match=r"result' is there, without rows\.jsonl of its run"):
        apply_corrections(editor, rows, store, tmp_path / "other")
    result = editor.edit(rows[0].source, rows[0].target)
    with editor.model.edited(result.patch), pytest.raises(EditableValueError, match="The model has 1 patches applied"):
        apply_corrections(editor, rows, store, tmp_path / "out")
    monkeypatch.setattr("hf_editable.operations.bulk.apply_corrections.process_state", lambda: object())
    with pytest.raises(EditableValueError, match="one process applies them"):
        apply_corrections(editor, rows, store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_report_is_an_error(in_order, tmp_path):
    in_order[0].save(tmp_path)
    values = json.loads((tmp_path / "corrections.json").read_text())
    (tmp_path / "corrections.json").write_text(json.dumps({"rows": values["rows"]}))
    with pytest.raises(EditableFileError, match=r"holds no whole corrections\.json \(KeyError: 'impact'\)"):
        BulkReport.load(tmp_path)
