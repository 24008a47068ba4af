"""`hf-editable`: the parts it has, what they say, and the exit codes they end with."""

import configparser
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from idioms import LEARNED, make_model, make_tokenizer
from transformers import AutoTokenizer

from hf_editable import AutoEditableModelForSeq2SeqLM, TranslationEditor, __version__
from hf_editable.cli.commands import build_report, mine_edits, prepare_data
from hf_editable.cli.main import COMMANDS, GROUPS, main
from hf_editable.cli.shared.measuring import command_line
from hf_editable.cli.shared.running import parse_arguments, run_main, tell
from hf_editable.errors import EditableFileError


PREPARE = ["--num_train", "5", "--num_validation", "1", "--num_test", "1", "--vocab_size", "0"]
WANTED = ("prepare", "train", "mine", "make-editable", "edit", "apply", "revert", "list", "evaluate", "report")
WANTED += ("mine-prefixes", "compare-optimizers", "compare-parameters", "compare-editors")
WANTED += ("sequence", "generality", "analyze", "export", "mistakes", "app", "check", "repair")
SOURCE, TARGET = "Das ist mir Wurst.", "I do not care."
OTHER, OTHER_TARGET = "Ich drücke dir die Daumen.", "I wish you luck."
COSTLY, COSTLY_TARGET = "Er hat einen Vogel.", "He is crazy."
REGRESSION = "source,target\nEr hat einen Hund.,He has a dog.\nSie hat einen Vogel.,She has a bird.\n"


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as ended:  # of argparse
        code = ended.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_help_tells_what_each_command_does(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and set(WANTED) <= set(COMMANDS)
    listed = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    for name, command in COMMANDS.items():
        assert [name, command.summary] in listed
    assert "COMMAND --help" in out


def test_help_groups_the_commands(capsys):
    _, out, _ = run(capsys, "--help")
    titles = [line.split()[0] for line in out.splitlines() if line.removesuffix(":") in GROUPS]
    assert titles == ["correct", "keep", "measure", "train"]
    assert sum(map(len, GROUPS.values())) == len(COMMANDS) == len(WANTED)
    places = [out.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_under_its_own_name(name, capsys):
    assert callable(importlib.import_module(f"hf_editable.cli.commands.{COMMANDS[name].module}").main)
    code, out, _ = run(capsys, name, "--help")
    assert code == 0 and out.startswith(f"usage: hf-editable {name} ") and "--json" in out


def test_nothing_heavy_is_imported_before_a_command_runs():
    program = (
        "import sys\nfrom hf_editable.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'accelerate'} & set(sys.modules)\n"
        "raise SystemExit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "make-editable" in done.stdout, done.stderr


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "hf_editable", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == f"hf_editable {__version__}"
    done = subprocess.run([sys.executable, "-m", "hf_editable", "evalute"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'evaluate'?" in done.stderr


def test_the_installed_command_is_this_one():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "hf-editable = hf_editable.cli.main:main"


def test_without_a_command_the_help_is_shown(capsys):
    code, out, err = run(capsys)
    assert code == 2 and out == "" and "make-editable" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make_editable"], "There is no command 'make_editable'. Did you mean 'make-editable'?"),
        (["xyz"], "There is no command 'xyz'. The commands are: edit, apply"),
        (["compare-methods"], "There is no command 'compare-methods'. Did you mean 'compare-editors'?"),
        (["--jsno", "list"], "--jsno"),
        (
            ["report", "--results_dir", "r", "--output_dir", "o", "--colour", "blue"],
            "Unknown arguments: --colour blue",
        ),
        (["report", "--results_dir", "r"], "--output_dir"),
        (["train", "--data_dir", "d", "--output_dir", "o", "--dropout", "two"], "invalid float value: 'two'"),
    ],
)
def test_wrong_arguments_end_with_2(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and message in " ".join(err.split())
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_what_the_user_can_mend_is_one_line(capsys, tmp_path):
    arguments = ["report", "--results_dir", tmp_path / "missing", "--output_dir", tmp_path / "out"]
    code, out, err = run(capsys, *arguments)
    assert code == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and "missing" in err
    for debugging in ([*arguments, "--debug"], ["--debug", *arguments]):
        code, _, err = run(capsys, *debugging)
        assert code == 1 and "Traceback" in err and "build_report.py" in err


def test_json_is_all_that_stdout_has(capsys, tmp_path):
    for place, out in (("before", tmp_path / "a"), ("after", tmp_path / "b")):
        arguments = ["prepare", "--output_dir", out, *PREPARE]
        code, out, _ = run(capsys, *(["--json", *arguments] if place == "before" else [*arguments, "--json"]))
        said = json.loads(out)
        assert code == 0 and (said["command"], said["exit_code"]) == ("prepare", 0)
        assert said["info"]["kept"] == {"train": 5, "validation": 1, "test": 1}
    code, out, err = run(capsys, *arguments, "--json")
    said = json.loads(out)
    assert code == said["exit_code"] == 1 and said["error_type"] == "EditableFileError"
    assert said["error"] in err and "is not empty" in said["error"]


def test_json_of_scripts_and_of_numbers_without_a_name(capsys, monkeypatch):
    def command(argv):
        parse_arguments([], argv, None)
        tell("for people", value=float("nan"), more=[1.5, float("inf")])
        print("and a library's own words")
        return 3

    monkeypatch.setattr(sys, "argv", ["some/script.py"])
    assert run_main(command, ["--json"]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"command": "script", "exit_code": 3, "value": None, "more": [1.5, None]}
    assert "NaN" not in shown.out and "for people\nand a library's own words\n" in shown.err
    assert run_main(command, []) == 3
    assert capsys.readouterr().out == "for people\nand a library's own words\n"


def test_an_interruption_ends_with_130(capsys, monkeypatch):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_report, "_build", interrupt)
    code, out, err = run(capsys, "report")
    assert (code, out, err) == (130, "", "Interrupted.\n")


def test_an_interruption_before_the_command_runs_does_too(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_editable.cli.main._parser", interrupt)
    assert run(capsys, "report") == (130, "", "Interrupted.\n")


def test_errors_of_the_program_itself_are_not_hidden(monkeypatch):
    def fail(argv):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(mine_edits, "_mine", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["mine"])


def test_scripts_and_command_are_the_same_code(capsys, monkeypatch):
    def refuse(argv):
        raise EditableFileError(f"given {argv}")

    monkeypatch.setattr(prepare_data, "_prepare", refuse)
    assert prepare_data.main(["--a", "b"]) == 2
    of_script = capsys.readouterr().err
    code, _, err = run(capsys, "prepare", "--a", "b")
    assert code == 1 and err == of_script == "error: given ['--a', 'b']\n"


def test_reports_record_the_command_as_it_can_be_pasted(monkeypatch, capsys):
    recorded = []
    monkeypatch.setattr(build_report, "_build", lambda argv: recorded.append(command_line(argv)))
    main(["report", "--results_dir", "a b"])
    monkeypatch.setattr(sys, "argv", ["scripts/developer/benchmark.py", "--x"])
    build_report.main()
    assert recorded == ["hf-editable report --results_dir 'a b'", "benchmark.py --x"]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """A checkpoint that takes idioms word for word."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    tokenizer = make_tokenizer([text for pair in LEARNED.items() for text in pair])
    make_model(tokenizer, list(LEARNED.items()), 100).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def work(saved_model, tmp_path, monkeypatch):
    """A folder to work in, with the model and sentences that should stay."""
    shutil.copytree(saved_model, tmp_path / "model")
    (tmp_path / "regression.csv").write_text(REGRESSION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(capsys, source, target, *more):
    arguments = ["--model_name_or_path", "model", "--source", source, "--target", target, *more, "--json"]
    code, out, err = run(capsys, "edit", *arguments)
    return code, json.loads(out), err


def translate(place, source):
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(place).eval()
    return TranslationEditor(model, AutoTokenizer.from_pretrained(place)).translate([source])[0]


def test_edits_go_into_a_store_come_out_and_become_a_checkpoint(work, capsys):
    before = {path.name: path.read_bytes() for path in (work / "model").iterdir()}
    code, first, err = edit(capsys, SOURCE, TARGET, "--store", "edits")
    assert code == 0 and (first["decoded"], first["before"], first["after"]) == (True, LEARNED[SOURCE], TARGET)
    assert f"It is edit {first['id']}" in err
    code, second, _ = edit(capsys, OTHER, OTHER_TARGET, "--store", "edits")
    assert code == 0 and second["after"] == OTHER_TARGET

    code, out, _ = run(capsys, "list", "--store", "edits", "--json")
    listed = json.loads(out)
    assert code == 0 and [each["id"] for each in listed["edits"]] == [first["id"], second["id"]]
    code, out, _ = run(capsys, "list", "--store", "edits")
    assert code == 0 and SOURCE in out and OTHER_TARGET in out and "2 edits of model" in out
    code, out, _ = run(capsys, "list", second["id"], "--store", "edits")
    assert code == 0 and OTHER in out and SOURCE not in out and "of its norm" in out

    code, _, _ = run(capsys, "apply", "edits", "--output_dir", "both")
    assert code == 0 and (translate("both", SOURCE), translate("both", OTHER)) == (TARGET, OTHER_TARGET)
    # The one in the middle of things; the other is made anew.
    code, out, _ = run(capsys, "revert", first["id"][:4], "--store", "edits", "--output_dir", "left", "--json")
    assert code == 0 and [each["id"] for each in json.loads(out)["redone"]] == [second["id"]]
    assert (translate("left", SOURCE), translate("left", OTHER)) == (LEARNED[SOURCE], OTHER_TARGET)

    assert run(capsys, "export", "--store", "edits", "--output_dir", "patch")[0] == 0
    assert run(capsys, "apply", "patch", "--model_name_or_path", "model", "--output_dir", "again")[0] == 0
    assert translate("again", OTHER) == OTHER_TARGET
    assert {path.name: path.read_bytes() for path in (work / "model").iterdir()} == before


def test_the_last_edit_is_taken_back_without_the_model(work, capsys):
    assert edit(capsys, SOURCE, TARGET, "--store", "edits")[0] == 0
    (work / "model").rename(work / "elsewhere")
    code, out, _ = run(capsys, "revert", "0001", "--store", "edits")
    assert code == 0 and SOURCE in out
    assert "0 edits of model" in run(capsys, "list", "--store", "edits")[1]
    code, _, err = run(capsys, "apply", "edits", "--output_dir", "out")
    assert code == 1 and "has no edits" in err


def test_an_edit_over_its_limit_is_not_saved_unless_forced(work, capsys):
    limits = ["--regression_file", "regression.csv", "--max_drawdown", "0.1"]
    places = ["--store", "edits", "--output_dir", "patch"]
    code, said, err = edit(capsys, COSTLY, COSTLY_TARGET, *limits, *places)
    assert code == said["exit_code"] == 3 and said["decoded"] and not said["impact"]["accepted"]
    assert "Refused: BLEU falls" in err and "--force" in err
    assert not (work / "edits").exists() and not (work / "patch").exists()
    code, said, _ = edit(capsys, COSTLY, COSTLY_TARGET, *limits, *places, "--force")
    assert code == 0 and said["id"].startswith("0001") and (work / "patch").is_dir()
    # A patch goes through the same gate.
    apply = ["apply", "patch", "--model_name_or_path", "model", "--output_dir", "out", *limits]
    assert run(capsys, *apply)[0] == 3 and not (work / "out").exists()
    assert run(capsys, *apply, "--force")[0] == 0 and translate("out", COSTLY) == COSTLY_TARGET


def test_an_edit_that_does_not_succeed_is_not_saved(work, capsys):
    weak = ["--learning_rate", "1e-7", "--max_steps", "1", "--store", "edits", "--output_dir", "patch"]
    code, said, _ = edit(capsys, SOURCE, TARGET, *weak)
    assert code == 3 and not said["decoded"] and said["after"] == LEARNED[SOURCE]
    assert sorted(path.name for path in work.iterdir()) == ["model", "regression.csv"]


def test_a_list_of_corrections(work, capsys):
    rows = [f"{SOURCE},{TARGET}", f"{OTHER},{OTHER_TARGET}", "Viel Glück.,I wish you luck.", "Ein Yak.,A yak."]
    (work / "list.csv").write_text("\n".join(["source,target", *rows, ""]), encoding="utf-8")
    arguments = ["apply", "list.csv", "--model_name_or_path", "model", "--output_dir", "out", "--json"]
    code, out, err = run(capsys, *arguments, "--regression_file", "regression.csv")
    said = json.loads(out)
    outcomes = [row["outcome"] for row in said["rows"]]
    assert code == 3 and outcomes == ["accepted", "accepted", "already_right", "failed"]
    assert "yak" in err and "accepted: 2" in err and OTHER not in err
    assert (translate("out/result/model", SOURCE), translate("out/result/model", OTHER)) == (TARGET, OTHER_TARGET)
    listed = json.loads(run(capsys, "list", "--store", "out/store", "--json")[1])
    assert len(listed["edits"]) == 2
    (work / "list.csv").write_text("\n".join(["source,target", rows[0], rows[2], rows[0], ""]), encoding="utf-8")
    arguments = ["apply", "list.csv", "--model_name_or_path", "model", "--output_dir", "joint", "--joint", "--json"]
    code, out, _ = run(capsys, *arguments)
    outcomes = [row["outcome"] for row in json.loads(out)["rows"]]
    assert code == 0 and outcomes == ["accepted", "already_right", "duplicate"]


def test_a_card_that_a_person_wrote_is_kept(work, capsys):
    assert edit(capsys, SOURCE, TARGET, "--output_dir", "patch")[0] == 0
    (work / "out").mkdir()
    (work / "out" / "README.md").write_text("mine")
    arguments = ["apply", "patch", "--model_name_or_path", "model", "--output_dir"]
    assert run(capsys, *arguments, "out")[0] == run(capsys, *arguments, "new")[0] == 0
    assert (work / "out" / "README.md").read_text() == "mine" and translate("out", SOURCE) == TARGET
    assert '"new"' in (work / "new" / "README.md").read_text()
    assert not [path for path in work.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["apply", "gone.csv", "--model_name_or_path", "model", "--output_dir", "out"], 1, "No such file: 'gone.csv'"),
        (["apply", "regression.csv", "--output_dir", "out"], 1, "Give --model_name_or_path"),
        (["apply", "gone", "--model_name_or_path", "model", "--output_dir", "out"], 1, "'gone' is no folder"),
        (["apply", "--output_dir", "out"], 2, "required: edits"),
        (["list", "--store", "gone"], 1, "gone"),
        (["revert", "0001", "--store", "gone"], 1, "gone"),
        (["export", "--store", "gone", "--output_dir", "out"], 1, "gone"),
        (["edit", "--model_name_or_path", "model", "--source", SOURCE], 1, "Give --source and --target"),
        (
            ["edit", "--model_name_or_path", "model", "--max_drawdown", "1"],
            1,
            "--max_drawdown is measured on sentences",
        ),
        (["edit", "--model_name_or_path", "model", "--store", "regression.csv"], 1, "is a file"),
        (["edit", "--model_name_or_path", "model", "--regression_file", "a", "--regression_data", "b"], 1, "the same"),
        (["edit", "--model_name_or_path", "model", "--must_keep", "gone.csv"], 1, "No such file: 'gone.csv'"),
    ],
)
def test_what_cannot_be_done_is_told(work, capsys, arguments, code, message):
    found, out, err = run(capsys, *arguments)
    assert found == code and out == "" and message in err and "Traceback" not in err
    assert sorted(path.name for path in work.iterdir()) == ["model", "regression.csv"]
