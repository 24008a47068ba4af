import json

import pytest

import check_invariance
from check_invariance import OBJECTIVES, largest_difference, main
from hf_editable.errors import EditableValueError


def test_the_commands_train_alike(tmp_path, capsys):
    assert main(["--objectives", "baseline", "--num_steps", "2", "--output_dir", str(tmp_path)]) == 0
    table = capsys.readouterr().out.splitlines()[-4:]
    assert table[2] == "| baseline | 1 process × 4 accumulated | reference | | |"
    assert table[3].startswith("| baseline | 2 processes × 2 accumulated | ")
    info = json.loads((tmp_path / "invariance.json").read_text())
    reference, other = info["runs"]
    assert other["difference"] < 1e-4
    assert {"loss", "grad_norm", "eval_loss"} <= set(other["terms"]) and len(reference["logs"]) == 3
    assert info["seed"] == 0 and "torch" in info["versions"] and "--num_steps 2" in info["command"]
    assert table[3] in (tmp_path / "invariance.md").read_text()


def test_runs_that_differ_end_in_an_error(monkeypatch, capsys):
    monkeypatch.setattr(check_invariance, "_make_inputs", lambda folder, arguments: None)
    monkeypatch.setattr(
        check_invariance, "_train", lambda folder, objective, processes, accumulated, arguments: [{"loss": processes}]
    )
    assert main(["--objectives", "edits"]) == 2
    shown = capsys.readouterr()
    assert "2 of 5 runs differ by more than 0.0001" in shown.err
    assert shown.out.count("| 1.0e+00 | loss | 1 |") == 2 and shown.out.count("| 0.0e+00 |") == 2
    assert main(["--objectives", "edits", "--tolerance", "1"]) == 0


def test_the_largest_difference_is_found_and_named():
    reference = [{"loss": 4.0, "edit_loss": 0.0, "epoch": 1}, {"loss": 2.0, "edit_loss": 1e-3, "epoch": 1}]
    other = [{"loss": 4.0, "edit_loss": 1e-4, "epoch": 2}, {"loss": 2.2, "edit_loss": 1e-3, "epoch": 2}]
    worst = largest_difference(reference, other)
    assert worst == {"difference": pytest.approx(0.1), "term": "edit_loss", "step": 1, "terms": ["edit_loss", "loss"]}
    assert largest_difference(reference, reference)["difference"] == 0.0
    broken = [{**log, "loss": float("nan")} for log in reference]
    assert largest_difference(reference, broken)["term"] == "loss"
    for others in (other[:1], [{"loss": 4.0}, {"loss": 2.0}]):
        with pytest.raises(EditableValueError, match="other terms or steps"):
            largest_difference(reference, others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objectives", "speed"], f"--objectives speed: choose some of {', '.join(OBJECTIVES)}"),
        (["--num_steps", "0"], "--num_steps 0: it must be 1 or more"),
    ],
)
def test_bad_arguments_are_told(options, message, capsys):
    assert main(options) == 2
    assert message in capsys.readouterr().err
