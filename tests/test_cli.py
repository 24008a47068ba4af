"""What all commands have in common: help, and one line instead of a traceback."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hf_editable
from hf_editable.cli.main import COMMANDS


ROOT = Path(__file__).parents[1]
DEVELOPER = ROOT / "scripts" / "developer"
SCRIPTS = sorted(path.stem for path in DEVELOPER.glob("*.py"))
ALL = [*COMMANDS, *SCRIPTS]
MEASURED = ["--model_name_or_path", "m", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"]
COMPARED = ["--model_name_or_path", "m", "--data_dir", "d", "--output_dir", "out"]
COMPARED += ["--validation_edits_dir", "v", "--test_edits_dir", "t"]
NEEDED = {
    "edit": ["--model_name_or_path", "model"],
    "apply": ["corrections.csv", "--output_dir", "out"],
    "mistakes": ["--model_name_or_path", "model", "--data_dir", "data", "--output_file", "mistakes.csv"],
    "app": ["--model_name_or_path", "model"],
    "list": ["--store", "edits"],
    "revert": ["0001", "--store", "edits"],
    "export": ["--store", "edits", "--output_dir", "out"],
    "mine": ["--model_name_or_path", "model", "--data_dir", "data", "--output_dir", "out"],
    "evaluate": MEASURED,
    "sequence": MEASURED,
    "generality": MEASURED,
    "analyze": MEASURED,
    "compare-editors": MEASURED,
    "compare-optimizers": COMPARED,
    "compare-parameters": COMPARED,
    "check": ["edits"],
    "repair": ["edits"],
    "report": ["--results_dir", "results", "--output_dir", "out"],
    "prepare": ["--output_dir", "out"],
    "train": ["--data_dir", "data", "--output_dir", "out"],
    "make-editable": MEASURED,
    "mine-prefixes": ["--model_name_or_path", "m", "--edits_dir", "e", "--output_dir", "out"],
    "benchmark": ["--output_dir", "out"],
    "check_invariance": ["--output_dir", "out"],
    "check_replay": MEASURED,
    "families_table": ["--output_dir", "out"],
    "interval_coverage": [],
    "soak": ["--output_dir", "out"],
}
WITH_LANGUAGES = ["edit", "apply", "mistakes", "mine", "evaluate", "analyze", "make-editable", "mine-prefixes"]
WITH_LANGUAGES += ["compare-editors", "compare-optimizers", "compare-parameters"]


def module(name):
    return importlib.import_module(f"hf_editable.cli.commands.{COMMANDS[name].module}" if name in COMMANDS else name)


def help_of(name, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        module(name).main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def command_lines(text):
    """The words of each line of shell in a text that runs a command of the package, and the name of the command."""
    for line in text.replace("\\\n", " ").splitlines():
        for program in ("hf-editable ", "python -m hf_editable ", "accelerate launch "):
            if line.strip().startswith(program):
                words = shlex.split(line, comments=True)
                start = words.index("hf_editable" if "hf_editable" in words else "hf-editable") + 1
                words = [word for word in words[start:] if word not in ("--json", "--debug")]
                yield words[0], words[1:]


def test_every_command_is_tested():
    assert sorted(NEEDED) == sorted(ALL) and len(ALL) == len(set(ALL))


def test_every_module_of_commands_is_a_command():
    folder = Path(hf_editable.__file__).parent / "cli" / "commands"
    assert sorted(path.stem for path in folder.glob("*.py")) == sorted(
        ["__init__", *(command.module for command in COMMANDS.values())]
    )


@pytest.mark.parametrize("name", ALL)
def test_help(name, capsys):
    shown = help_of(name, capsys)
    assert all(option in shown for option in NEEDED[name] if option.startswith("--"))


@pytest.mark.parametrize("name", ALL)
def test_help_says_each_thing_once(name, capsys):
    shown = help_of(name, capsys)
    usage = " ".join(shown.split("\n\n")[0].split())
    options = re.findall(r"^  (--\w+)", shown, re.MULTILINE)
    assert usage.endswith("[options]") and {"--json", *re.findall(r"--\w+", usage)} <= set(options)
    assert len(set(options)) == len(options) and not re.search(r"^  --\w+-\w", shown, re.MULTILINE)
    assert "(default: None)" not in shown and "(default: False)" not in shown
    assert not any("Default:" in each and "(default:" in each for each in shown.split("\n  --"))


def test_help_tells_what_is_needed_and_what_switches_do(capsys):
    shown = " ".join(help_of("apply", capsys).split())
    assert shown.startswith("usage: ") and "--output_dir OUTPUT_DIR edits [options]" in shown
    assert "--keep_earlier Make each edit" in shown and "--no_keep_earlier The opposite of --keep_earlier." in shown
    assert "--force Apply" in shown and "(default: 0)" in shown and "(default: skip)" in shown
    assert "[id] [options]" in help_of("list", capsys)
    shown = " ".join(help_of("sequence", capsys).split())
    assert "--model_name_or_path MODEL_NAME_OR_PATH [MODEL_NAME_OR_PATH ...]" in shown
    assert "(default: 1 2 5 10 20 50 100)" in shown
    assert "(default: grammar)" in help_of("prepare", capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name, capsys):
    shown = help_of(name, capsys)
    examples = list(command_lines(shown.split("options:\n")[0]))
    assert {used for used, _ in examples} == {name}
    for _, words in examples:
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--\w+", shown))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_developers_script_runs_from_the_root(name):
    arguments = [sys.executable, f"scripts/developer/{name}.py", "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and f"python scripts/developer/{name}.py" in done.stdout, done.stderr


def test_what_is_shown_exists(capsys):
    pages = [ROOT / "README.md", ROOT / "scripts" / "results" / "README.md"]
    pages += [*ROOT.glob("hf_editable/docs/*.md"), *ROOT.glob("scripts/*.sh")]
    mentioned, used = set(), {}
    for path in [*pages, *ROOT.glob("hf_editable/**/*.py"), *DEVELOPER.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert [name for name in re.findall(r"\bscripts/[\w/]+\.\w+", text) if not (ROOT / name).exists()] == [], path
        if path in pages:
            mentioned |= set(re.findall(r"`hf-editable (?:--\w+ )*([a-z][a-z-]*)", text))
            for name, words in command_lines(text):
                used.setdefault(name, set()).update(word for word in words if re.fullmatch(r"--\w+", word))
    assert used.pop("$command")  # of the main job, for either training
    assert mentioned <= set(COMMANDS) and len(mentioned | set(used)) > 15
    for name, options in used.items():
        assert options <= set(re.findall(r"--\w+", help_of(name, capsys))), name


@pytest.mark.parametrize("name", ALL)
def test_unknown_options_are_named(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert module(name).main([*NEEDED[name], "--colour", "blue"]) == 2
    assert "--colour" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ([DEVELOPER / "check_replay.py", "--edits_dir", "e", "--data_dir", "d", "--output_dir", "out"], 2),
        (["-m", "hf_editable", "edit"], 1),
    ],
)
def test_a_process_ends_with_its_commands_exit_code(program, code, tmp_path):
    arguments = [sys.executable, *program, "--model_name_or_path", "missing"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code and re.search("Cannot load the (tokenizer of|model) 'missing'", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", WITH_LANGUAGES)
def test_languages_come_in_pairs(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert module(name).main([*NEEDED[name], "--source_lang", "deu_Latn"]) == 2
    assert "--source_lang and --target_lang belong together" in capsys.readouterr().err
