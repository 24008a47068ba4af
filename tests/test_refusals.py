"""What cannot be is refused by every command before its work: in one line, and as JSON if that is asked for."""

import dataclasses
import json
import typing

import pytest
from test_cli import NEEDED, module
from transformers import TrainingArguments

from hf_editable.checks import Numbers
from hf_editable.cli.main import COMMANDS, main
from hf_editable.cli.shared.numbers_taken import numbers_taken
from hf_editable.errors import EditableValueError


WRITING = {name: NEEDED[name] for name in COMMANDS if {"--output_dir", "--output_file"} & {*NEEDED[name]}}
STORING = {
    "edit": [*NEEDED["edit"], "--source", "a", "--target", "b"],
    "apply": [*NEEDED["apply"], "--model_name_or_path", "m"],
    "app": NEEDED["app"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to work in, which stays as it is."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "corrections.csv").write_text("source,target\na,b\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    yield tmp_path
    assert sorted(tmp_path.rglob("*")) == before


def refused(capsys, name, *arguments):
    """Exit code and message of a command that is refused: one line for people, and the same for machines."""
    capsys.readouterr()
    code = main([name, *arguments])
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown
    assert main([name, *arguments, "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code and said["error_type"].startswith("Editable" if code == 1 else "UsageError")
    assert said["command"] == name and said["error"]
    return code, shown.err


@pytest.mark.parametrize("name", COMMANDS)
def test_what_no_command_understands(name, capsys):
    needed = NEEDED[name]
    assert refused(capsys, name)[0] == 2
    assert refused(capsys, name, *needed, "--colour=blue") == (
        2,
        f"error: Unknown arguments: --colour=blue. `hf-editable {name} --help` lists what there is.\n",
    )
    for option in [word for word in needed if word.startswith("--")][:1]:
        assert refused(capsys, name, *needed, option)[0] == 2
    for text in ("a\0b", "\udcff"):
        code, message = refused(capsys, name, *needed[:-1], text)
        assert code == 1 and f"The argument {text!r} is not of the encoding" in message


@pytest.mark.parametrize("arguments", [["--jsno"], ["xyz"], []])
def test_what_is_no_command(arguments, capsys):
    assert main([*arguments, "--json"] if arguments[:1] != ["xyz"] else ["--json", *arguments]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error_type"] == "UsageError" and shown.err.count("\n") == 1


def options(name, monkeypatch):
    """The dataclasses of a command's options."""
    found = []

    def take(kinds, *_, **__):
        found.extend(kinds)
        raise EditableValueError("taken")

    monkeypatch.setattr(module(name), "parse_arguments", take)
    module(name).main([])
    monkeypatch.undo()
    return found


def numeric(kind):
    """The options of a dataclass that are numbers."""
    own = {int, float, int | None, float | None, list[int], list[int] | None}
    return [item.name for item in dataclasses.fields(kind) if typing.get_type_hints(kind)[item.name] in own]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_has_a_range(name, capsys, monkeypatch, folder):
    found = options(name, monkeypatch)
    monkeypatch.chdir(folder)
    for kind in found:
        taken = numbers_taken(kind)
        for option in numeric(kind):
            if option == "local_rank" and issubclass(kind, TrainingArguments):
                continue  # set by what starts the processes
            allowed = taken[option]
            bad = [allowed.least if allowed.above else allowed.least - 1, allowed.most + 1]
            for value in map(int, bad) if allowed.whole else (*bad, "nan", "inf"):
                if issubclass(kind, TrainingArguments) and value == allowed.most + 1 > 2**31:
                    continue
                code = main([name, *NEEDED[name], f"--{option}={value}"])
                message = capsys.readouterr().err
                assert code == 1 and option in message, (option, value, message)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("num_beams", "0", "--num_beams 0: it must be a whole number, 1 or more, and 1000 at most, as a search keeps"),
        ("num_beams", "-1", "--num_beams -1: it must be a whole number, 1 or more"),
        ("num_beams", "9000", "--num_beams 9000: it must be a whole number, 1 or more, and 1000 at most, as a search"),
        ("num_beams", "five", "Argument --num_beams/--num-beams: invalid int value: 'five'"),
        ("port", "65536", "--port 65536: it must be a whole number, 1 or more, and 65535 at most, as a port has 16"),
        ("learning_rate", "nan", "--learning_rate nan: it must be above 0."),
        ("max_steps", "99999999999", "--max_steps 99999999999: it must be a whole number, 1 or more, and 2147483647"),
    ],
)
def test_the_limits_are_told_with_their_reasons(option, value, reason, capsys):
    code, message = refused(capsys, "app", *NEEDED["app"], f"--{option}", value)
    assert code == (2 if value == "five" else 1) and reason in message


PLACES = [
    ("file", "'file' is a file"),
    ("file/a", "'file/a' is under 'file', which is a file"),
    ("link", "'link' is a link to nothing"),
    ("n" * 256, "cannot be written (File name too long)"),
    ("/proc/1/out", "cannot be written"),
]


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize(("place", "reason"), PLACES)
def test_where_the_results_cannot_go(name, place, reason, capsys):
    given = [f"{place}/m.csv" if name == "mistakes" and word == "mistakes.csv" else word for word in WRITING[name]]
    code, message = refused(capsys, name, *[place if word == "out" else word for word in given])
    assert code == 1 and (reason in message or "which" in message)


@pytest.mark.parametrize("name", STORING)
@pytest.mark.parametrize(("place", "reason"), PLACES)
def test_where_a_store_cannot_be(name, place, reason, capsys):
    code, message = refused(capsys, name, *STORING[name], "--store", place)
    assert code == 1 and reason in message


def test_an_error_of_the_system_is_one_line(capsys, monkeypatch, folder):
    def fill(argv):
        raise OSError(28, "No space left on device", "rows.jsonl")

    monkeypatch.setattr(module("report"), "_build", fill)
    assert main(["report"]) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'rows.jsonl'\n"
    monkeypatch.undo()
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("numbers", "good", "bad"),
    [
        (Numbers(), [1, 2**31 - 1], [0, -1, 1.0, True, "1", None, 2**31]),
        (Numbers(0, 1, whole=False, below=True), [0, 0.5], [1, -0.1, float("nan"), float("inf"), "x", True]),
        (Numbers(0, whole=False, above=True), [1e-9, 3], [0, 0.0, -1, float("nan"), float("inf")]),
    ],
)
def test_numbers(numbers, good, bad):
    assert [numbers.check("n=", value) for value in good] == good
    for value in bad:
        with pytest.raises(EditableValueError, match=r"^n=.*: it must be "):
            numbers.check("n=", value)
