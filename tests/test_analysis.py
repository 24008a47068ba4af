"""What edits do to each test sentence, against the longest way, and what is made of it."""

import copy
import json
import sys

import datasets
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import TruncatedSVD

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableFileError,
    EditableTypeError,
    EditableValueError,
    EditReport,
    NonFiniteEditError,
)
from hf_editable.cli.commands.analyze_edits import main
from hf_editable.evaluation import analysis as module
from hf_editable.evaluation.analysis import analyze_edits
from hf_editable.evaluation.edit_space import embed, reduced
from hf_editable.measures.similarity import cosine, means_by_decile, overlap, rank_correlation, ranks
from hf_editable.reporting.analysis_plots import (
    add_drawdowns,
    components_for,
    describe_picture,
    format_analyses,
    plot_analyses,
)
from hf_editable.reporting.analysis_report import EditAnalysis


@pytest.fixture(scope="module")
def test_set(tiny_pairs):
    """Fourteen pairs of different lengths, the first of which is the source of an edit."""
    return datasets.Dataset.from_list(
        [
            {key: " ".join(text.split()[: 6 - index % 3]) for key, text in pair.items()}
            for index, pair in enumerate(tiny_pairs[:14])
        ]
    )


@pytest.fixture
def analyze(tiny_model, tiny_tokenizer, tiny_edits, test_set):
    """Analyses four edits of the tiny model; arguments replace the fixture's."""

    def run(**options):
        arguments = {"model": tiny_model, "tokenizer": tiny_tokenizer, "edits": tiny_edits.select(range(4))}
        return analyze_edits(**{**arguments, "test_set": test_set, **options})

    return run


def plain_divergences(model, tokenizer, edit, test_set):
    """Token-averaged KL on each reference, one sentence at a time, on a copied model."""
    tensors = DataCollatorForEditableSeq2Seq(tokenizer, model).edit_inputs(edit)
    edited = copy.deepcopy(model)
    edited.load_state_dict(model.edit(**tensors).patch.tensors, strict=False)
    values = []
    for row in test_set:
        inputs = tokenizer(row["source"], return_tensors="pt").input_ids
        labels = tokenizer(text_target=row["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            before, after = (m(input_ids=inputs, labels=labels).logits.log_softmax(-1) for m in (model, edited))
        values.append(float((before.exp() * (before - after)).sum()) / labels.numel())
    return values


def test_divergences_equal_the_longest_way(analyze, tiny_model, tiny_tokenizer, tiny_edits, test_set):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    analysis = analyze()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_model.state_dict().items())
    expected = [plain_divergences(tiny_model, tiny_tokenizer, edit, test_set) for edit in tiny_edits.select(range(4))]
    assert analysis.divergences.dtype == np.float64 and np.max(expected) > 1e-3
    assert analysis.divergences == pytest.approx(np.array(expected), rel=1e-3, abs=1e-7)


def test_the_edited_sentence_does_not_count(analyze, tiny_edits, test_set):
    analysis = analyze()
    itself = [test_set["source"].index(s) if s in test_set["source"] else None for s in tiny_edits["source"][:4]]
    assert itself[0] == 0 and None in itself
    for edit, row, own in zip(analysis.edits, analysis.divergences, itself, strict=True):
        others = row if own is None else np.delete(row, own)
        assert edit["kl"] == pytest.approx(others.mean())
        assert edit["kl_itself"] == (None if own is None else row[own])
    summary = analysis.summary
    assert summary["kl"] == pytest.approx(np.mean([edit["kl"] for edit in analysis.edits]))
    assert summary["edits_in_test_set"] == sum(own is not None for own in itself)
    worst = {row["source"]: row["kl"] for row in summary["worst_sentences"]}
    own_edit = itself.index(0)
    assert worst[test_set["source"][0]] == pytest.approx(np.delete(analysis.divergences[:, 0], own_edit).mean())
    assert list(worst.values()) == sorted(worst.values(), reverse=True)


def test_editors_that_move_more_than_the_edited_layers_are_refused(analyze, tmp_path):
    with pytest.raises(EditableValueError, match="The editor 'finetune_all' moves more than the edited layers"):
        analyze(editor="finetune_all", num_edits=1)
    table = analyze(editor="cache", num_edits=2)
    assert not table.divergences.any() and table.summary["kl"] == 0.0


def test_kl_by_similarity(analyze, tiny_edits, test_set):
    analysis = analyze()
    alike = overlap(tiny_edits["source"][:4], test_set["source"][:])
    correlations = []
    for row, values, source in zip(alike, analysis.divergences, tiny_edits["source"][:4], strict=True):
        others = [index for index, other in enumerate(test_set["source"]) if other != source]
        correlations.append(rank_correlation(row[others], values[others]))
    measured = analysis.summary["similarity"]["overlap"]
    assert measured["rank_correlation"] == pytest.approx(np.mean(correlations))
    assert measured["rank_correlation_interval"] is analysis.summary["kl_interval"] is None  # of four edits
    assert len(analysis.summary["similarity"]["encoder"]["kl_by_decile"]) == 10


def test_encoder_states_are_averaged_without_padding(analyze, tiny_model, tiny_tokenizer, test_set, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "cosine", lambda first, second: seen.append(second) or cosine(first, second))
    analyze(num_edits=1)
    with torch.no_grad():
        for source, mean in zip(test_set["source"], seen[0], strict=True):
            encoded = tiny_model.get_encoder()(tiny_tokenizer(source, return_tensors="pt").input_ids)
            assert mean == pytest.approx(encoded.last_hidden_state[0].mean(0).numpy(), abs=1e-5)


def test_similarities():
    values = overlap(["Der Hund", "xyz"], ["der hund", "der hund bellt", "qqq", ""])
    assert values[0, 0] == 1.0 and values[0, 0] > values[0, 1] > values[0, 2] == 0.0 and not values[1].any()
    # " ab ", "abc": 2 and 3 trigrams, of which 1 is shared.
    assert overlap(["ab"], ["abc"])[0, 0] == pytest.approx(2 * 1 / 5)
    assert cosine(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.5, 0.6])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.6])) == 0.0


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 60).astype(float), rng.normal(size=60)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


def test_means_by_decile():
    similarity = np.array([[0.1, 0.4, np.nan, 0.2, 0.3], [4.0, 3.0, 2.0, 1.0, 0.0]])
    values = np.array([[1.0, 4.0, 99.0, 2.0, 3.0], [10.0, 20.0, 30.0, 40.0, 50.0]])
    # The first edit: 1, 2 | 3, 4; the second: 50, 40, 30 | 20, 10.
    assert means_by_decile(similarity, values, groups=2) == [123 / 5, 37 / 4]
    with pytest.raises(EditableValueError, match="4 test sentences cannot be put into 5 groups"):
        means_by_decile(similarity, values, groups=5)


def test_explained_variance_is_that_of_a_truncated_svd():
    matrix = np.random.default_rng(0).normal(1, 1, (12, 30))
    projected, explained = reduced(matrix, 5)
    other = TruncatedSVD(5, algorithm="arpack").fit(matrix)
    assert explained == pytest.approx(other.explained_variance_ratio_) and projected.shape == (12, 5)
    assert sum(reduced(matrix)[1]) == pytest.approx(1.0)
    assert components_for([0.5, 0.3, 0.2], 0.8) == 2 and components_for([0.5, 0.3], 0.9) is None
    assert reduced(np.ones((3, 4)))[1] == [0.0, 0.0, 0.0]


def test_tsne_keeps_groups_apart():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.1, (40, 6))
    points[20:, 0] += 10
    places = embed(points, seed=1)
    centres = places[:20].mean(0), places[20:].mean(0)
    spread = np.linalg.norm(places[:20] - centres[0], axis=1).max()
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    assert np.array_equal(places, embed(points, seed=1))
    assert embed(points[:2]) is None and embed(np.ones((5, 3))) is None


def test_without_scikit_learn_there_is_no_tsne(analyze, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    warnings = []
    monkeypatch.setattr("hf_editable.evaluation.edit_space.logger.warning", warnings.append)
    analysis = analyze()
    assert all(edit["tsne"] is None for edit in analysis.edits)
    assert len(warnings) == 1 and "pip install hf_editable[analysis]" in warnings[0]
    plot_analyses([analysis], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(analyze, tmp_path, monkeypatch):
    analysis = analyze()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    warnings = []
    monkeypatch.setattr("hf_editable.reporting.drawing.logger.warning", warnings.append)
    plot_analyses([analysis], tmp_path / "picture.png")
    assert not list(tmp_path.iterdir()) and "pip install hf_editable[plots]" in warnings[0]


def test_resumed_equals_uninterrupted(analyze, tiny_model, tmp_path, monkeypatch):
    whole = analyze()
    edit, calls = tiny_model.edit, []

    def interrupted(**arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyze(output_dir=tmp_path)
    rows = tmp_path / module.ROWS_NAME
    rows.write_bytes(rows.read_bytes()[:-9])
    calls.clear()
    calls += [None] * 10
    resumed = analyze(output_dir=tmp_path)
    assert len(calls) == 13  # the edit whose line was torn, and the two that were left
    assert (resumed.summary, resumed.edits) == (whole.summary, whole.edits)
    assert np.array_equal(resumed.divergences, whole.divergences)
    loaded = EditAnalysis.load(tmp_path)
    assert (loaded.summary, loaded.edits) == (whole.summary, whole.edits)
    assert np.array_equal(loaded.divergences, whole.divergences)
    with pytest.raises(EditableValueError, match="seed was 0 and is now 1"):
        analyze(output_dir=tmp_path, seed=1)


def test_edits_that_are_not_finite_change_nothing(analyze, tiny_model, monkeypatch):
    edit, calls = tiny_model.edit, []

    def sometimes(**arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise NonFiniteEditError("NaN")
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", sometimes)
    analysis = analyze()
    assert [edit["failed"] for edit in analysis.edits] == [False, True, False, False]
    assert analysis.edits[1]["kl"] == 0.0 and not analysis.divergences[1].any() and analysis.divergences[0].any()
    assert analysis.summary["failed_edits"] == 1 and analysis.summary["success_rate"] <= 0.75


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_test": 10}, EditableValueError, "10 test sentences have no deciles by similarity; give 11 or more"),
        ({"seed": -1}, EditableValueError, "seed=-1"),
        ({"model": torch.nn.Linear(1, 1)}, EditableTypeError, r"A Linear has no edit\(\)"),
        ({"edits": datasets.Dataset.from_dict({"source": ["a"]})}, EditableValueError, "edits has 1 rows of columns"),
        (
            {"test_set": datasets.Dataset.from_dict({"source": ["hund " * 40] * 11, "target": ["dog"] * 11})},
            EditableValueError,
            "32 are allowed",
        ),
    ],
)
def test_bad_arguments_raise(analyze, options, error, message):
    with pytest.raises(error, match=message):
        analyze(**options)


def test_tables(analyze):
    first, second = analyze(name="base|line"), analyze(name="other", learning_rate=1e-3)
    text = format_analyses([first, second], num_worst=3)
    lines = text.splitlines()
    assert lines[2].startswith("| base\\|line | ") and lines[3].startswith("| other | ")
    assert f" | {first.summary['kl']:.4f} | " in lines[2]
    first.summary["kl_interval"] = [0.25, 0.5]
    assert f" | {first.summary['kl']:.4f} [0.2500, 0.5000] | " in format_analyses([first])
    worst = second.summary["worst_sentences"]
    assert f"| {worst[2]['source']} | {worst[2]['target']} | {worst[2]['kl']:.4f} |" in lines
    assert text.count(worst[13]["source"] + " |") <= 1 and "most from edits of base\\|line:" in text
    assert "other: " in describe_picture([first, second])


@pytest.mark.parametrize("draw", [format_analyses, describe_picture, lambda each: plot_analyses(each, "unused.png")])
def test_nothing_to_show_raises(draw):
    with pytest.raises(EditableValueError, match="There is no analysis"):
        draw([])


def test_drawdowns_are_matched_by_edit(analyze):
    analysis = analyze()
    rows = [{**edit, "drawdown": float(edit["index"])} for edit in reversed(analysis.edits)]
    summary = {"name": "baseline", "edit_config": analysis.summary["edit_config"]}
    add_drawdowns(analysis, EditReport(summary=summary, rows=rows))
    assert [edit["drawdown"] for edit in analysis.edits] == [0.0, 1.0, 2.0, 3.0]
    rows[1]["target"] = "another"
    with pytest.raises(EditableValueError, match="'baseline' lacks 1 of the 4 analysed edits"):
        add_drawdowns(analysis, EditReport(summary=summary, rows=rows))
    summary["edit_config"] = {**summary["edit_config"], "max_steps": 3}
    with pytest.raises(EditableValueError, match="'baseline' were made with max_steps 3"):
        add_drawdowns(analysis, EditReport(summary=summary, rows=rows))


def test_command(tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path, capsys):
    for name, rate in (("first", 0.01), ("second", 1e-4)):
        tiny_model.edit_config = tiny_model.edit_config.replace(learning_rate=rate)
        tiny_model.save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    tiny_edits.save_to_disk(tmp_path / "edits")
    datasets.DatasetDict(test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "first"), str(tmp_path / "second"), "--edits_dir"]
    argv += [str(tmp_path / "edits"), "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    argv += ["--num_edits", "4", "--max_steps", "2"]
    assert main(argv) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out == (out / "table.md").read_text()
    content = json.loads((out / "analysis.json").read_text())
    assert "--num_edits 4" in content["command"] and content["seed"] == 0 and content["pictures"]["analysis.png"]
    assert [model["name"] for model in content["models"]] == ["first", "second"]
    assert content["models"][0]["kl"] > content["models"][1]["kl"] > 0
    assert (out / "analysis.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(out / "second" / "divergences.npy").shape == (4, 14)
    rows = EditAnalysis.load(out / "first").edits
    for name in ("first", "second"):
        drawn = [{**row, "drawdown": 1.0} for row in rows]
        config = EditAnalysis.load(out / name).summary["edit_config"]
        folder = tmp_path / "evaluation" / name
        folder.mkdir(parents=True)
        content = {"summary": {"name": name, "edit_config": config}, "rows": drawn}
        (folder / "report.json").write_text(json.dumps(content))
    assert main([*argv, "--evaluation_dir", str(tmp_path / "evaluation")]) == 0
    assert EditAnalysis.load(out / "second").edits[0]["drawdown"] == 1.0
    capsys.readouterr()
    for options, message in (
        (["--names", "one"], "2 models need as many names"),
        (["--evaluation_dir", str(tmp_path)], "holds no whole report.json"),
    ):
        assert main([*argv, *options]) == 2
        assert message in capsys.readouterr().err


def test_unusable_folders_raise(analyze, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EditableFileError, match="is a file"):
        analyze(output_dir=tmp_path / "file")
    with pytest.raises(EditableFileError, match=r"holds no whole analysis\.json"):
        EditAnalysis.load(tmp_path)
    analyze().save(tmp_path)
    (tmp_path / "divergences.npy").unlink()
    with pytest.raises(EditableFileError, match=r"divergences\.npy"):
        EditAnalysis.load(tmp_path)
