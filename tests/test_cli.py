"""What all commands have in common: help, and one line instead of a traceback."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPTS = Path(__file__).parents[1] / "scripts"
DEVELOPER = {"benchmark", "check_invariance", "check_replay"}
COMMANDS = sorted({path.stem for path in SCRIPTS.glob("*.py")} | DEVELOPER)
COMPARED = ["--model_name_or_path", "m", "--data_dir", "d", "--output_dir", "out"]
COMPARED += ["--validation_edits_dir", "v", "--test_edits_dir", "t"]
NEEDED = {
    "prepare_data": ["--output_dir", "out"],
    "train_baseline": ["--data_dir", "data", "--output_dir", "out"],
    "train_editable": ["--model_name_or_path", "m", "--data_dir", "d", "--edits_dir", "e", "--output_dir", "out"],
    "mine_prefixes": ["--model_name_or_path", "m", "--edits_dir", "e", "--output_dir", "out"],
    "mine_edits": ["--model_name_or_path", "model", "--data_dir", "data", "--output_dir", "out"],
    "evaluate_edits": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "compare_editors": COMPARED,
    "compare_parameters": COMPARED,
    "analyze_edits": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "build_report": ["--results_dir", "results", "--output_dir", "out"],
    "compare_methods": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "edit_sequence": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "measure_generality": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "check_replay": ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"],
    "check_invariance": ["--output_dir", "out"],
    "app": ["--model_name_or_path", "model"],
    "benchmark": ["--output_dir", "out"],
    "edit_translation": ["--model_name_or_path", "model"],
    "find_mistakes": ["--model_name_or_path", "model", "--data_dir", "data", "--output_file", "mistakes.csv"],
}


def command(name):
    if name in DEVELOPER:
        return importlib.import_module(name).main
    return importlib.import_module(f"hf_editable.cli.commands.{'open_page' if name == 'app' else name}").main


def test_every_command_is_tested():
    assert sorted(NEEDED) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        command(name)(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in NEEDED[name] if option.startswith("--"))


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_options_are_named(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(name)([*NEEDED[name], "--colour", "blue"]) == 2
    assert "--colour" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_script_ends_with_its_commands_exit_code(tmp_path):
    arguments = [sys.executable, SCRIPTS / "edit_translation.py", "--model_name_or_path", "missing"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Cannot load the tokenizer of 'missing'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["mine_edits", "train_editable", "evaluate_edits", "edit_translation", "compare_editors", "analyze_edits"]
)
def test_languages_come_in_pairs(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(name)([*NEEDED[name], "--source_lang", "deu_Latn"]) == 2
    assert "--source_lang and --target_lang belong together" in capsys.readouterr().err
