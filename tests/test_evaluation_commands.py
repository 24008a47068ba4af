"""The commands that measure single edits, and that hold the record of the search against `generate`."""

import json

import datasets
import pytest

import check_replay
from hf_editable import EditReport
from hf_editable.cli.commands.evaluate_edits import main
from hf_editable.evaluation.test_set import EncodedTestSet


@pytest.fixture(scope="module")
def test_set(tiny_pairs):
    """Eight pairs of different lengths."""
    return datasets.Dataset.from_list(
        [
            {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
            for index, pair in enumerate(tiny_pairs[:8])
        ]
    )


def test_command(tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path, capsys):
    tiny_model.save_pretrained(tmp_path / "first")
    tiny_model.edit_config = tiny_model.edit_config.replace(learning_rate=1e-4)
    tiny_model.save_pretrained(tmp_path / "second")
    for name in ("first", "second"):
        tiny_tokenizer.save_pretrained(tmp_path / name)
    tiny_edits.save_to_disk(tmp_path / "edits")
    datasets.DatasetDict(test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "first"), str(tmp_path / "second"), "--edits_dir"]
    argv += [str(tmp_path / "edits"), "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    argv += ["--num_edits", "2", "--num_beams", "1", "--max_steps", "2", "--bleu_tokenize", "none"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text() and "| second |" in table
    assert (tmp_path / "out" / "drawdown.png").is_file()
    first, second = (EditReport.load(tmp_path / "out" / name).summary for name in ("first", "second"))
    assert (first["edit_config"]["learning_rate"], second["edit_config"]["learning_rate"]) == (
        0.01,
        pytest.approx(1e-4),
    )
    assert first["edit_config"]["max_steps"] == 2 and "--num_beams 1" in first["command"]
    assert first["command"] in (tmp_path / "out" / "first" / "report.md").read_text()
    for options, message in (
        (["--names", "one"], "2 models need as many names"),
        (["--split", "dev"], "no pairs in a split 'dev'"),
    ):
        assert main([*argv, *options]) == 2
        assert message in capsys.readouterr().err


def test_check_replay(tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path, capsys, monkeypatch):
    tiny_model.generation_config.max_length = None
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_edits.save_to_disk(tmp_path / "edits")
    datasets.DatasetDict(test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "model"), "--edits_dir", str(tmp_path / "edits"), "--data_dir"]
    argv += [str(tmp_path / "data"), "--num_edits", "2", "--max_new_tokens", "6", "--output_dir"]
    assert check_replay.main([*argv, str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    summary, rows = report["summary"], report["rows"]
    assert (summary["edits"], summary["sentences"], summary["different"], summary["plain_different"]) == (
        2, len(test_set), 0, 0,
    )  # fmt: skip
    for ratio, name in (("plain_ratio", "plain_seconds"), ("ratio", "generate_seconds")):
        assert summary[ratio] == sum(row[name] for row in rows) / sum(row["record_seconds"] for row in rows) > 0
    assert capsys.readouterr().out == (tmp_path / "out" / "table.md").read_text()
    texts = EncodedTestSet.retranslate
    monkeypatch.setattr(EncodedTestSet, "retranslate", lambda self: [*texts(self)[1:], "other"])
    assert check_replay.main([*argv, str(tmp_path / "other")]) == 2
    assert "translations from the record are not those of generate" in capsys.readouterr().err
