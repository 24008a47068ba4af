"""The soak: it finds nothing where nothing is wrong, and each thing that must hold is seen not to."""

import dataclasses
import json

import pytest

import soak
from hf_editable.operations.store.manifest import Manifest
from soaking.rules import Attempt, Edit, Ledger, Violation
from soaking.workers import Outcome


A, B = ("der hund sieht", "the dog buys"), ("der ball malt", "the ball lifts")
ONE, TWO = Edit("0001-00000000", (A,), True, 0), Edit("0002-00000000", (B,), True, 0)
NEW, ANEW = Edit("0003-00000000", (A,), True, 0), dataclasses.replace(TWO, revision=1)
ADDED = Attempt(((A,),), added=[NEW.id], acknowledged=1)
TAKEN = Attempt(removed=frozenset([ONE.id]))


def run(folder, *options):
    code = soak.main(["--minutes", "1", "--output_dir", str(folder), *options])
    return code, json.loads((folder / "soak.json").read_text())


def test_nothing_is_wrong(tmp_path, capsys):
    kinds = ["edit", "revert", "apply", "page", "together", "full disk", "read-only", "git", "refused"]
    code, report = run(tmp_path, "--num_operations", "8", "--seed", "1", "--only", *kinds)
    assert (code, report["violations"]) == (0, [])
    counts = report["counts"]
    assert counts["operation: first"] == 1 and sum(n for name, n in counts.items() if "operation" in name) == 8
    assert "8 operations in" in capsys.readouterr().out and report["seed"] == 1


def test_an_edit_that_is_lost_is_found(tmp_path, monkeypatch):
    write = Manifest.write

    def forgetful(manifest, folder):
        write(dataclasses.replace(manifest, edits=manifest.edits[-1:]), folder)

    monkeypatch.setattr(Manifest, "write", forgetful)
    code, report = run(tmp_path, "--num_operations", "5", "--only", "edit")
    assert code == 1
    found = next(each for each in report["violations"] if "are lost; nobody took them back" in each["violation"])
    evidence = tmp_path / f"operation-{found['number']}"
    stores = [json.loads((evidence / place / "store.json").read_text()) for place in ("before", "after/store")]
    assert found["seed"] == 0 and stores[0]["edits"][0]["id"] not in [each["id"] for each in stores[1]["edits"]]


@pytest.mark.parametrize(
    ("now", "attempts"),
    [
        ([ONE, TWO], [Attempt()]),
        ([ONE, TWO], [Attempt(((A,),), unfinished=True)]),
        ([ONE, TWO, NEW], [Attempt(((A,),), unfinished=True)]),
        ([ONE, TWO, NEW], [ADDED, Attempt(((A,),))]),
        ([ANEW], [TAKEN]),
        ([ANEW, NEW], [ADDED, TAKEN]),
        ([ANEW], [Attempt(removing=TAKEN.removed, unfinished=True)]),
        ([ONE, TWO], [ADDED, Attempt(removed=frozenset([NEW.id]))]),
    ],
)
def test_what_a_store_may_become(now, attempts):
    Ledger([ONE, TWO], 2).settle(now, attempts)


@pytest.mark.parametrize(
    ("now", "attempts", "message"),
    [
        ([ONE], [Attempt()], "'0002-00000000'] are lost; nobody took"),
        ([ONE, TWO], [TAKEN], "taking them back was acknowledged"),
        ([TWO, ONE], [Attempt()], "now in the order"),
        ([NEW, ONE, TWO], [ADDED], "now in the order"),
        ([ONE, TWO], [ADDED], "'0003-00000000'] are lost; adding them was"),
        ([ONE, TWO], [Attempt(((A,),), acknowledged=1)], "1 edits were acknowledged, and 0 of"),
        ([ONE, TWO, NEW], [Attempt(((A,),))], "nobody acknowledged or was cut off"),
        ([ONE, TWO, NEW], [Attempt(((B,),), unfinished=True)], "nobody acknowledged or was cut off"),
        ([ONE, TWO, dataclasses.replace(NEW, id="0002-11111111")], [ADDED], "not new, or not in order"),
        ([ONE, TWO, dataclasses.replace(NEW, id="../evil")], [ADDED], "is no id of an edit"),
        ([ONE, ANEW], [Attempt()], "became"),
    ],
)
def test_what_a_store_may_not_become(now, attempts, message):
    with pytest.raises(Violation, match=message.replace("[", r"\[")):
        Ledger([ONE, TWO], 2).settle(now, attempts)


@pytest.mark.parametrize(
    ("code", "out", "err", "signal", "problem"),
    [
        (1, "", "error: no\n", None, None),
        (130, "", "Interrupted.\n", "interrupt", None),
        (-9, "", "", "kill", None),
        (0, '{"exit_code": 0}\n', "", None, None),
        (1, "", "Traceback (most recent call last)\n", None, "a traceback"),
        (1, "", "error: one\nerror: two\n", None, "not told in one line"),
        (1, "", "error: one\nof two lines\n", None, "not told in one line"),
        (0, "", "error: no\n", None, "an error, and exit code 0"),
        (0, "", "x.py:1: FutureWarning: old\n", None, "a warning"),
        (0, '{"exit_code": 1}\n', "", None, "another exit code in its JSON"),
        (2, "", "usage: x\n", None, "not told in one line"),
        (4, "", "", None, "an exit code that is none"),
        (-11, "", "", None, "an exit code that is none"),
        (-9, "", "", None, "a signal that nobody sent"),
    ],
)
def test_how_a_process_may_end(code, out, err, signal, problem):
    outcome = Outcome("x", code, out, err, signal, 0.0)
    if problem is None:
        return outcome.judge()
    with pytest.raises(Violation, match=problem):
        outcome.judge()


def test_bad_arguments_are_told(capsys):
    assert soak.main(["--minutes", "-1"]) == 2 and "--minutes -1.0: it must be 0 or more" in capsys.readouterr().err
    assert soak.main(["--only", "sleep"]) == 2 and "--only sleep: choose from edit, " in capsys.readouterr().err
