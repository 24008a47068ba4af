"""Stores whose edits do not continue each other, as after a git merge: found, refused, made anew when asked for."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from cheap_edits import FOUR, CheapEditor, files, fill, same, weights_of
from test_store import change

from hf_editable import EditableFileError, EditableValueError, EditPatch, EditRefusedError
from hf_editable.cli.commands import apply_edits, check_edits, export_edits, list_edits, repair_edits
from hf_editable.operations import EditStore, repair_store
from hf_editable.patches.changes import Lookup, LowRank
from hf_editable.patches.files import TENSORS_NAME
from hf_editable.runs.fingerprints import fingerprint


THEIRS = ("5 e", "1005")


def git(folder, *arguments, check=True):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


@pytest.fixture
def path(tmp_path, make_tiny_model):
    """A store with four edits."""
    model = make_tiny_model()
    fill(EditStore.create(tmp_path / "store", model), CheapEditor(model), FOUR)
    return tmp_path / "store"


@pytest.fixture
def merged(path, make_tiny_model):
    """The same after another branch, that has but the first two edits of it and one of its own, was merged by git."""
    git(path, "init", "-q", "-b", "ours")
    listed = json.loads((path / "store.json").read_text())["edits"]
    for count in (2, 4):
        change(path, edits=listed[:count], next_number=count + 1)
        git(path, "add", "store.json", "base", *(f"edits/{edit['id']}" for edit in listed[:count]))
        git(path, "commit", "-qm", f"{count} edits")
    git(path, "checkout", "-qb", "theirs", "HEAD~1")
    model, store = make_tiny_model(), EditStore.open(path)
    store.load(model)
    fill(store, CheapEditor(model), [THEIRS])
    git(path, "add", "."), git(path, "commit", "-qm", "another edit")
    git(path, "checkout", "-q", "ours")
    assert "CONFLICT" in git(path, "merge", "theirs", check=False)
    with pytest.raises(EditableFileError, match="If git has merged it, resolve the conflict"):
        EditStore.open(path)
    ours, theirs = (json.loads(git(path, "show", f":{side}:store.json")) for side in (2, 3))
    ours["edits"].append(theirs["edits"][-1])
    (path / "store.json").write_text(json.dumps(ours))
    git(path, "add", "."), git(path, "commit", "-qm", "both")
    return path


def refused(*work):
    for each in work:
        with pytest.raises(EditableFileError, match="damaged"):
            each()


def test_a_merge_that_keeps_both_sides_is_refused_everywhere(merged, make_tiny_model, capsys, tmp_path):
    store, out = EditStore(merged), str(tmp_path / "out")
    refused(lambda: EditStore.open(merged), lambda: store.load(make_tiny_model()), store.merge, store.check)
    refused(lambda: store.export(out), lambda: store.edits, lambda: store.revert("0001"), lambda: store.diff("0001"))
    result = CheapEditor(make_tiny_model()).edit("6 f", "1006")
    refused(lambda: store.add(result))
    commands = [
        (list_edits, ["--store", str(merged)]),
        (export_edits, ["--store", str(merged), "--output_dir", out]),
        (apply_edits, [str(merged), "--output_dir", out]),
    ]
    for command, arguments in commands:
        assert command.main(arguments) == 2
        error = capsys.readouterr().err
        assert "damaged at its edit 0003-" in error and "hf-editable repair" in error and error.count("\n") == 1
    assert not os.path.exists(out)


def test_check_names_what_is_wrong(path, merged, capsys):
    assert check_edits.main([str(merged), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == 1 and [each["problem"] for each in said["problems"]] == [
        "It is not made from the edits before it."
    ]
    assert said["problems"][0]["edit"] == json.loads((merged / "store.json").read_text())["edits"][4]["id"]
    change(merged, edits=lambda edits: edits[:4])
    assert check_edits.main([str(merged)]) == 0
    assert "is whole" in capsys.readouterr().out
    (merged / "store.json").write_text("{")
    assert check_edits.main([str(merged)]) == 2


def test_a_merged_store_is_repaired(merged, make_tiny_model, capsys, monkeypatch):
    editor, before = CheapEditor(make_tiny_model()), weights_of(make_tiny_model())
    listed = [edit["id"] for edit in json.loads((merged / "store.json").read_text())["edits"]]
    monkeypatch.setattr(repair_edits, "load_text_editor", lambda *given: editor)
    assert repair_edits.main([str(merged), "--model_name_or_path", "model", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in said["redone"]] == listed[4:] and said["lost"] == []
    assert editor.kept == ["1 a", "2 b", "3 c", "4 d"] and same(weights_of(editor.model), before)
    store = EditStore.open(merged)
    store.check()
    assert [edit.id for edit in store.edits] == listed and [edit.revision for edit in store.edits] == [0, 0, 0, 0, 1]
    store.load(editor.model)
    assert editor.translate([source for source, _ in [*FOUR, THEIRS]]) == [target for _, target in [*FOUR, THEIRS]]
    assert sorted(os.listdir(merged / "edits")) == sorted(edit.folder for edit in store.edits)
    state = files(merged)
    assert repair_edits.main([str(merged)]) == 0 and "Nothing is wrong" in capsys.readouterr().out
    assert files(merged) == state
    # The next id is that of no edit of either side.
    assert store.add(editor.edit("6 f", "1006")).id.startswith("0005-")


def exchange(path, one, other):
    edits = path / "edits"
    one, other = (next(edits.glob(f"{each}-*")) for each in (one, other))
    one.rename(edits / "x"), other.rename(one), (edits / "x").rename(other)


def flip(path):
    place = next((path / "edits").glob("0002-*")) / TENSORS_NAME
    content = place.read_bytes()
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def other_base(path):
    model_file = path / "base" / TENSORS_NAME
    shutil.copyfile(next((path / "edits").glob("0001-*")) / TENSORS_NAME, model_file)


# How a store is spoiled, which edit is named, and how many are made anew; `open` looks at the content of no tensors.
SPOILED = {
    "reordered": (lambda path: change(path, edits=lambda all: [all[0], all[2], all[1], all[3]]), "0003", 3, True),
    "removed": (lambda path: change(path, edits=lambda all: [all[0], *all[2:]]), "0003", 2, True),
    "replaced folders": (lambda path: exchange(path, "0002", "0003"), "0002", 3, True),
    "no folder": (lambda path: shutil.rmtree(next((path / "edits").glob("0003-*"))), "0003", 2, True),
    "damaged tensors": (flip, "0002", 3, False),
    "no base": (lambda path: shutil.rmtree(path / "base"), None, 0, True),
    "another base": (other_base, None, 0, False),
    "no description": (lambda path: next((path / "edits").glob("0004-*/edit_config.json")).unlink(), "0004", 1, True),
    "impact": (lambda path: (next((path / "edits").glob("0004-*")) / "impact.json").write_text("{"), "0004", 1, False),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_spoiled_is_found_and_repaired(path, make_tiny_model, case):
    spoil, named, count, when_opened = SPOILED[case]
    spoil(path)
    store = EditStore(path)
    if when_opened:
        refused(lambda: EditStore.open(path), lambda: store.edits, store.merge, lambda: store.load(make_tiny_model()))
    found = store.problems()
    assert (found[0].edit or "0000-")[:5] == f"{named or '0000'}-"
    listed = json.loads((path / "store.json").read_text())["edits"]
    editor = CheapEditor(make_tiny_model())
    result = repair_store(path, editor)
    assert len(result.redone) == count and result.problems == found and result.lost == []
    store.check()
    assert [edit.id for edit in store.edits] == [edit["id"] for edit in listed]
    store.load(editor.model)
    assert editor.translate([edit.source for edit in store.edits]) == [edit.target for edit in store.edits]


def test_a_repair_writes_through_no_link(path, make_tiny_model):
    outside = path.parent / "outside.safetensors"
    (path / "base" / TENSORS_NAME).rename(outside)
    (path / "base" / TENSORS_NAME).symlink_to(outside)
    with outside.open("ab") as file:
        file.write(b"mine")
    content = outside.read_bytes()
    repair_store(path, CheapEditor(make_tiny_model()))
    assert outside.read_bytes() == content and not (path / "base" / TENSORS_NAME).is_symlink()
    EditStore.open(path).check()


def test_an_open_store_sees_what_is_done_to_it(path):
    store = EditStore.open(path)
    assert len(store.edits) == 4
    exchange(path, "0002", "0003")
    refused(lambda: store.edits, store.merge)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"broken": [THEIRS[0]]}, "0003-.* does not come out as well as it was"),
        ({"spoils": {THEIRS[0]: 1}}, "does not say 1 corrections: '1 a' → '1001'"),
    ],
)
def test_a_repair_that_fails_changes_nothing(merged, make_tiny_model, options, message):
    before = files(merged)
    with pytest.raises(EditRefusedError, match=message):
        repair_store(merged, CheapEditor(make_tiny_model(), **options))
    assert files(merged) == before
    result = repair_store(merged, CheapEditor(make_tiny_model(), **options), allow_lost=True)
    assert len(result.lost) == 1 and EditStore.open(merged).edits[-1].revision == 1


def test_only_the_base_model_repairs(merged, make_tiny_model):
    model = make_tiny_model()
    CheapEditor(model).edit("1 a", "7").patch.apply(model)
    with pytest.raises(EditableValueError, match="1 patches are applied"):
        repair_store(merged, CheapEditor(model))
    other = make_tiny_model()
    with torch.no_grad():
        next(other.parameters())[0] += 1
    with pytest.raises(EditableValueError, match="is of a base model with fingerprint"):
        repair_store(merged, CheapEditor(other))


def test_edits_of_matrices_and_tables_are_checked_by_their_values(tmp_path, make_tiny_model):
    model = make_tiny_model()
    store, editor = EditStore.create(tmp_path / "store", model), CheapEditor(model)
    name = next(name for name, tensor in editor.parameters.items() if tensor.dim() == 2)
    rows, columns = editor.parameters[name].shape
    for number in range(4):
        change_ = LowRank(name, torch.full((rows, 1), 1.0 + number), torch.ones(columns, 1))
        table = Lookup({(number,): (1, 2)})
        for changes, base in (((change_,), {name: editor.parameters[name]}), ((table,), {})):
            patch = EditPatch(changes, fingerprint(base), f"{number}", "t")
            store.add(patch)
            patch.apply(model)
    fill(store, editor, FOUR[:1])
    assert EditStore.open(store.path).problems() == []
    loaded = make_tiny_model()
    store.load(loaded)
    assert same(weights_of(loaded), weights_of(model))
    change(tmp_path / "store", edits=lambda edits: [edits[2], edits[1], edits[0], *edits[3:]])
    refused(lambda: EditStore.open(store.path))
    # Of numbers that are added in another order, the last bits differ to the end.
    assert [each.edit[:4] for each in store.problems()] == ["0003", "0001", "0005", "0007", "0009"]
